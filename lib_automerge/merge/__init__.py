"""Merging: read checkpoints, combine their tensors, put them somewhere."""

from lib_automerge.merge.files import merge_files

__all__ = ["merge_files"]
