"""The table of architectures: each factory takes the number of classes and options, and returns a Flax module.

A module of the zoo maps normalised images `[B, H, W, C]` to float32 logits `[B, K]` through `module(x, train=False)`; with
`train=True` it uses and updates batch statistics (collection `batch_stats`).
"""

from rfn_jax.core import registry

MODELS = registry.Registry('model')
