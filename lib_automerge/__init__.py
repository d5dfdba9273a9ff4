"""Automerge: Bayesian block-weighted merging of Stable Diffusion checkpoints."""

__version__ = "0.1.0"

DATA_FOLDER = "automerge-data"
"""The folder of the user's data outside a WebUI unless told otherwise, below the working one."""

REBASIN_FOLDER = "rebasin"
"""Where in such a folder the orders of channels are kept that were found."""
