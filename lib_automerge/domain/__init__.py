"""Values that every part speaks in: blocks, weights, recipes, payloads, runs. No torch, no I/O."""
