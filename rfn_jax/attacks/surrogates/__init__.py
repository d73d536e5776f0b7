"""Surrogates made of others: ensembles, cycles of checkpoints, and networks with internal changes."""
