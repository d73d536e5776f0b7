"""What vision transformers and the networks modeled on them share: patches, perceptrons, and rates of stochastic depth."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import numpy as np

from rfn_jax.models import hooks, layers


def patches(features: int, size: int, *, kernel_init: nn.initializers.Initializer, dtype, name: str) -> nn.Conv:
    """A convolution over patches that do not overlap; rows and columns at the end that do not fill a patch are dropped."""
    return layers.conv(
        features, size, strides=size, padding=0, use_bias=True, kernel_init=kernel_init, dtype=dtype, name=name
    )


def perceptron(
    hidden: int,
    features: int,
    *,
    dense: Callable[..., nn.Dense],
    drop: Callable[[jax.Array], jax.Array] = hooks.identity,
) -> Callable[[jax.Array], jax.Array]:
    """Two dense layers, `fc1` and `fc2`, with a GELU between them.

    Args:
      hidden: Width of the first layer.
      features: Width of the second layer.
      dense: Constructor of the layers.
      drop: Applied after each layer, such as dropout.
    """
    fc1, gelu, fc2 = dense(hidden, name='fc1'), hooks.Gelu(name='gelu'), dense(features, name='fc2')
    return lambda x: drop(fc2(drop(gelu(fc1(x)))))


def stages(depths: Sequence[int], stochastic_depth: float) -> list[list[tuple[str, float]]]:
    """The name of each block and its rate of stochastic depth, stage by stage.

    Blocks are named by their position in torchvision's `features`, where one other layer precedes each stage.

    Args:
      depths: Number of blocks in each stage.
      stochastic_depth: Rate of the last block; the rates grow linearly from 0 at the first block.
    """
    rates = iter(np.linspace(0, stochastic_depth, sum(depths)).tolist())
    return [
        [(f'features_{2 * stage + 1}_{index}', next(rates)) for index in range(depth)]
        for stage, depth in enumerate(depths)
    ]
