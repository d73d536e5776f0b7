"""Surrogates made of others: ensembles, cycles of checkpoints, and networks that are changed inside."""
