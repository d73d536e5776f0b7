"""The registry of architectures: each factory takes the number of classes and options, and returns a Flax module.

A module of the zoo maps normalized images `[B, H, W, C]` to float32 logits `[B, K]` through `module(x, train=False)`. With
`train=True` it uses and updates batch statistics (collection `batch_stats`), draws dropout and stochastic depth (rng
`'dropout'`), and records the logits of auxiliary heads (collection `auxiliary_logits`); the training loss adds their
cross-entropy, weighted by the module's attribute `auxiliary_weight`.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from rfn_jax.core import errors, registry

MODELS = registry.Registry('model')
# Types of the computation that a spec may request as `dtype`; parameters, statistics, losses and logits stay float32.
DTYPES = ('float32', 'bfloat16', 'float16')


def from_spec(spec: Mapping[str, object], *, num_classes: int) -> nn.Module:
    """Makes the module that a spec in a config describes.

    Args:
      spec: `name` of the architecture, and its options. `dtype` is the name of the type of the computation, such as
        `'float32'`, or `'bfloat16'` for training and attacks on an accelerator.
      num_classes: Number of classes.

    Raises:
      InputError: The name is unknown, or an option is unknown, missing or out of range.
    """
    if isinstance(spec, Mapping) and 'dtype' in spec:
        if spec['dtype'] not in DTYPES:
            raise errors.InputError(
                f'dtype of model {spec.get("name")!r} must be one of {", ".join(DTYPES)}, got {spec["dtype"]!r}'
            )
        spec = {**spec, 'dtype': jnp.dtype(spec['dtype'])}
    return MODELS.make_from(spec, num_classes=num_classes)
