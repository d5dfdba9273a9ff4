"""Hosts: where the engine runs, and what it gets from there."""
