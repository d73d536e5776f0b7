"""The state of a training run: everything that a step changes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from rfn_jax import models


@struct.dataclass
class TrainState:
    """What a training step takes and returns; a pytree of arrays.

    Unlike `flax.training.train_state.TrainState` it holds no functions, and the step passes `grad_fn` to the optimizer.

    Attributes:
      step: Number of steps done, int32.
      params: Parameters.
      batch_stats: Running statistics of batch normalization; empty for models without batch normalization.
      opt_state: State of the optimizer.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState

    @property
    def variables(self) -> dict[str, Any]:
        """The Flax variables, as `Classifier` holds them."""
        return {'params': self.params, 'batch_stats': self.batch_stats}


def create(classifier: models.Classifier, tx: optax.GradientTransformation) -> TrainState:
    """Creates the state before the first step from the variables of `classifier` and an optimizer."""
    params = classifier.variables['params']
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=classifier.variables.get('batch_stats', {}),
        opt_state=tx.init(params),
    )
