"""Git Re-Basin: puts the channels of a model where they are nearest to another model's.

`symmetries` says which channels may change places, `matching` finds their best order, `tensors`
reads the permuted model a few rows at a time, `formulas` merges with it, `cache` keeps what was
found, and `files` does all that for two checkpoints.
"""
