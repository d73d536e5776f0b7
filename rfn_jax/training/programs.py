"""What is compiled for the training of an architecture by a recipe: made once, for all seeds."""

import dataclasses

import optax
from jax.sharding import Mesh

from rfn_jax import models, optim
from rfn_jax.training import recipe, step


@dataclasses.dataclass(frozen=True)
class Program:
    """The optimizer and the compiled step of an architecture and a recipe.

    Attributes:
      recipe: The hyper-parameters.
      steps_per_epoch: Steps of an epoch, which schedules count.
      steps_per_call: Steps that a call of `step` makes at most; 1 for calls on batches without an axis of steps.
      mesh: The devices.
      tx: The optimizer.
      schedule: The learning rate as a function of the step.
      step: The compiled step; see `train_step`.
    """

    recipe: recipe.Recipe
    steps_per_epoch: int
    steps_per_call: int
    mesh: Mesh
    tx: optim.Optimizer
    schedule: optax.Schedule
    step: step.Step


def program(
    classifier: models.Classifier, plan: recipe.Recipe, *, steps_per_epoch: int, mesh: Mesh, streaming: bool = False
) -> Program:
    """The program of an architecture and a recipe.

    Args:
      classifier: A classifier of the architecture, with its normalization; its variables do not count.
      plan: The hyper-parameters.
      steps_per_epoch: Steps of an epoch.
      mesh: Mesh with the axis `'data'`; its size must divide the batch size.
      streaming: Whether batches are streamed: then a call makes one step unless the recipe says otherwise.

    Raises:
      InputError: A size does not fit the devices.
    """
    plan.check_sizes(mesh.size)
    on_cpu = mesh.devices.flat[0].platform == 'cpu'
    per_call = (1 if on_cpu or streaming else steps_per_epoch) if plan.steps_per_call is None else plan.steps_per_call
    per_call = min(per_call, steps_per_epoch)
    tx = plan.optimizer(steps_per_epoch)
    compiled = step.train_step(
        classifier.module,
        classifier.mean,
        classifier.std,
        tx,
        plan.augmentation(),
        mesh,
        group_size=plan.group_size,
        micro_batch_size=plan.micro_batch_size,
        shard_state=plan.shard_parameters,
        scan=per_call > 1,
    )
    return Program(plan, steps_per_epoch, per_call, mesh, tx, plan.schedule(steps_per_epoch), compiled)
