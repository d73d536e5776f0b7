"""A multi-layer perceptron on the flattened image: the target that differs most from a convolutional surrogate."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rfn_jax.models import hooks, layers, ranges, zoo


class MLP(nn.Module):
    """Dense layers with batch normalization and ReLU; logits `[B, num_classes]` in float32.

    Attributes:
      num_classes: Number of classes.
      widths: Widths of the hidden layers.
      dtype: Type of the computation.
    """

    num_classes: int
    widths: Sequence[int]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps normalized images `[B, H, W, C]` to logits `[B, num_classes]`."""
        x = x.reshape(x.shape[0], -1)
        for index, width in enumerate(self.widths):
            x = layers.dense(width, dtype=self.dtype, name=f'fc{index + 1}')(x)
            bn = layers.batch_norm(use_running_average=not train, dtype=self.dtype, name=f'bn{index + 1}')
            x = hooks.Relu(name=f'relu{index + 1}')(bn(x))
        return layers.dense(self.num_classes, name='fc')(x.astype(jnp.float32))


@zoo.MODELS.register
def mlp(num_classes: int, *, widths: Sequence[int] = (256, 256), dtype=jnp.float32) -> MLP:
    """A multi-layer perceptron; for the arguments, see the attributes of `MLP`.

    Raises:
      InputError: A width is not positive.
    """
    return MLP(num_classes, **ranges.check_widths(widths=widths), dtype=dtype)
