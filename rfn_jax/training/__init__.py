"""Training: the state, the compiled step, the loop with its checkpoints, and evaluation."""

from rfn_jax.training.checkpoints import CheckpointStore
from rfn_jax.training.evaluation import accuracy, predict
from rfn_jax.training.loop import fit, needed_epochs
from rfn_jax.training.metrics import MetricsLog
from rfn_jax.training.recipe import Recipe
from rfn_jax.training.state import TrainState, create
from rfn_jax.training.statistics import reestimate_batch_stats
from rfn_jax.training.step import DeviceData, train_step
from rfn_jax.training.weights import EPOCH as IMPORTED_EPOCH
from rfn_jax.training.weights import (
    Weights,
    abstract_weights,
    check_is_free,
    load_weights,
    open_weights,
    read_weights,
    save_weights,
)

__all__ = [
    'IMPORTED_EPOCH', 'CheckpointStore', 'DeviceData', 'MetricsLog', 'Recipe', 'TrainState', 'Weights',
    'abstract_weights', 'accuracy', 'check_is_free', 'create', 'fit', 'load_weights', 'needed_epochs', 'open_weights',
    'predict', 'read_weights', 'reestimate_batch_stats', 'save_weights', 'train_step',
]  # fmt: skip
