"""How good the search is, against the peers and against its targets: `run.py` is the command."""
