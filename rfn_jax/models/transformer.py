"""What vision transformers and the networks with their proportions have in common: patches, perceptrons, rates of blocks."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import numpy as np

from rfn_jax.models import hooks, layers


def patches(features: int, size: int, *, kernel_init: nn.initializers.Initializer, dtype, name: str) -> nn.Conv:
    """A convolution of patches that do not overlap; rows and columns that fill no patch are left out."""
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
    """Two dense layers, `fc1` and `fc2`, around a GELU.

    Args:
      hidden: Width of the first layer.
      features: Width of the second one.
      dense: Makes the layers.
      drop: What follows each of them, such as dropout.
    """
    fc1, gelu, fc2 = dense(hidden, name='fc1'), hooks.Gelu(name='gelu'), dense(features, name='fc2')
    return lambda x: drop(fc2(drop(gelu(fc1(x)))))


def stages(depths: Sequence[int], stochastic_depth: float) -> list[list[tuple[str, float]]]:
    """The name of each block and its rate of stochastic depth, stage by stage.

    Blocks are named by their place in torchvision's `features`, where a layer comes before each stage.

    Args:
      depths: Blocks in each stage.
      stochastic_depth: Rate of the last block; that of the first is 0, and it grows linearly between them.
    """
    rates = iter(np.linspace(0, stochastic_depth, sum(depths)).tolist())
    return [
        [(f'features_{2 * stage + 1}_{index}', next(rates)) for index in range(depth)]
        for stage, depth in enumerate(depths)
    ]
