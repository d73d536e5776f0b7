"""The table of data sets that a config can name; each factory returns `Splits`."""

from rfn_jax.core import registry

SOURCES = registry.Registry('data set')
