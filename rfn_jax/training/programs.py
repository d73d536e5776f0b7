"""What is compiled to train an architecture with a recipe, one network or several at once; made once for all seeds."""

import dataclasses
import functools

import jax
import optax
from jax.sharding import Mesh

from rfn_jax import data, models, optim
from rfn_jax.core import sharding
from rfn_jax.training import step
from rfn_jax.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Program:
    """The optimizer and the compiled step for an architecture and a recipe.

    Attributes:
      recipe: The hyperparameters.
      steps_per_epoch: Steps in an epoch, by which schedules count epochs.
      steps_per_call: Maximum number of steps in a call of `step`; if 1, batches have no axis of steps.
      mesh: The devices; its axis `'fsdp'` is as the recipe says.
      tx: The optimizer.
      schedule: The learning rate as a function of the step.
      step: The compiled step; see `train_step`.
      step_of_several: The compiled step of several networks that differ only in their seed.
    """

    recipe: Recipe
    steps_per_epoch: int
    steps_per_call: int
    mesh: Mesh
    tx: optim.Optimizer
    schedule: optax.Schedule
    step: step.Step
    step_of_several: step.StepOfSeveral

    def advance(
        self, states: step.States, batches: tuple[data.Batch, ...], keys: tuple[jax.Array, ...]
    ) -> tuple[step.States, tuple[step.Metrics, ...]]:
        """Makes a call of the step for one network or for several, each of which has one entry in every tuple."""
        if len(states) > 1:
            return self.step_of_several(states, batches, keys)
        state, metrics = self.step(states[0], batches[0], keys[0])
        return (state,), (metrics,)


def program(
    classifier: models.Classifier, recipe: Recipe, *, steps_per_epoch: int, mesh: Mesh, streaming: bool = False
) -> Program:
    """Returns the program for an architecture and a recipe.

    Args:
      classifier: A classifier of the architecture, with its normalization; its variables are not used.
      recipe: The hyperparameters.
      steps_per_epoch: Steps in an epoch.
      mesh: Mesh with the axis `'data'`; its size must divide the batch size.
      streaming: Whether batches are streamed; if so, a call makes one step unless the recipe says otherwise.

    Raises:
      InputError: A size does not match the number of devices.
    """
    recipe.check_sizes(mesh.size)
    if recipe.shard_parameters is not True and recipe.shard_parameters:
        mesh = sharding.data_mesh(mesh.devices.ravel(), fsdp=min(recipe.shard_parameters, mesh.size))
    per_call = recipe.steps_per_call
    if per_call is None:
        on_cpu = mesh.devices.flat[0].platform == 'cpu'
        per_call = 1 if on_cpu or streaming else steps_per_epoch
    per_call = min(per_call, steps_per_epoch)
    tx, augmentation = recipe.optimizer(steps_per_epoch), recipe.augmentation
    make = functools.partial(
        step.train_step,
        classifier.module,
        classifier.mean,
        classifier.std,
        tx,
        augmentation.on_device(),
        mesh,
        mix=augmentation.mixing(classifier.num_classes),
        label_smoothing=recipe.label_smoothing,
        group_size=recipe.group_size,
        micro_batch_size=recipe.micro_batch_size,
        shard_state=bool(recipe.shard_parameters),
        rematerialize=recipe.rematerialize,
        scan=per_call > 1,
    )
    schedule = recipe.schedule(steps_per_epoch)
    return Program(recipe, steps_per_epoch, per_call, mesh, tx, schedule, make(), make(several=True))
