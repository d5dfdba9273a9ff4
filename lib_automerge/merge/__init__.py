"""Merging: read checkpoints, combine tensors, put them somewhere."""
