"""Training: the state, the compiled step, the loop and its checkpoints, and evaluation."""

from rfn_jax.training.checkpoints import CheckpointStore
from rfn_jax.training.evaluation import Predictions, accuracy, predict, predict_all
from rfn_jax.training.loop import fit
from rfn_jax.training.metrics import MetricsLog
from rfn_jax.training.objectives import Objective, objective
from rfn_jax.training.programs import Program, program
from rfn_jax.training.recipe import Recipe
from rfn_jax.training.runs import Run, needed_epochs
from rfn_jax.training.state import TrainState, create
from rfn_jax.training.statistics import reestimate_batch_stats
from rfn_jax.training.step import train_step

__all__ = [
    'CheckpointStore', 'MetricsLog', 'Objective', 'Predictions', 'Program', 'Recipe', 'Run', 'TrainState', 'accuracy',
    'create', 'fit', 'needed_epochs', 'objective', 'predict', 'predict_all', 'program', 'reestimate_batch_stats',
    'train_step',
]  # fmt: skip
