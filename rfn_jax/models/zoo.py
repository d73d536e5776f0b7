"""The table of architectures: each factory takes the number of classes and options, and returns a Flax module.

A module of the zoo maps normalised images `[B, H, W, C]` to float32 logits `[B, K]` through `module(x, train=False)`. With
`train=True` it uses and updates batch statistics (collection `batch_stats`), draws dropout and stochastic depth (rng
`'dropout'`), and records the logits of auxiliary heads (collection `auxiliary_logits`), which count in the training loss with
its attribute `auxiliary_weight`.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from rfn_jax.core import errors, registry

MODELS = registry.Registry('model')


def from_spec(spec: Mapping[str, object], *, num_classes: int) -> nn.Module:
    """The module that a spec of a config asks for.

    Args:
      spec: `name` of the architecture and its options.
      num_classes: Number of classes.

    Raises:
      InputError: The name is unknown, or an option is unknown, missing or out of its range.
    """
    module = MODELS.make_from(spec, num_classes=num_classes)
    try:
        jnp.dtype(spec.get('dtype', 'float32'))
    except TypeError as error:
        raise errors.InputError(
            f'dtype of model {spec["name"]!r}: {error}; known: float32, bfloat16, float16'
        ) from error
    return module
