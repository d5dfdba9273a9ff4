"""Automerge: Bayesian block-weighted merging of Stable Diffusion checkpoints."""

__version__ = "0.1.0"
