"""Configs of experiments; `rfn-jax run --config=configs/NAME.py` reads them as files."""
