"""The search for better weights: space, proposers, stopping rules, statistics. No torch."""

from lib_automerge.search.maximize import SearchResult, maximize

__all__ = ["SearchResult", "maximize"]
