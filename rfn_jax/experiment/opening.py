"""From a config and a directory to a plan and a work directory, after checking everything that would make a run fail."""

import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rfn_jax import data, models, storage
from rfn_jax.core import console as console_lib
from rfn_jax.core import errors, io, processes, sharding
from rfn_jax.experiment import inputs, layout, pinning, reading
from rfn_jax.experiment import plan as plan_lib
from rfn_jax.experiment import workdir as workdir_lib


def open_workdir(
    config: Mapping, directory: os.PathLike[str] | str, console: console_lib.Console
) -> tuple[plan_lib.Plan, workdir_lib.Workdir]:
    """Checks a config against the work directory of an experiment; only the stages write to the directory.

    A work directory can grow: the config may add networks, attacks, seeds and examples, or leave some out. A network that
    already exists must have been made from the same model, data and recipe.

    Args:
      config: Nested mapping of plain values; see `configs/digits.py`.
      directory: The work directory; the first stage creates it if it is missing.
      console: Where to report progress.

    Returns:
      The plan and the work directory, which every stage takes.

    Raises:
      InputError: The config is wrong, or the directory cannot be written, has another layout, or holds networks that were
        made from something else.
      RunError: A network directory that the config names is damaged.
    """
    config = pinning.pinned(config)
    plan = reading.read(config)
    layout.check_layout(directory)
    workdir = workdir_lib.Workdir(io.absolute(directory), console, _mesh(plan, console), config)
    for network in plan.networks:
        workdir.check_definition(network)
    if not layout.is_last_config(directory, config):
        _check_networks(plan)  # needs the data and the files of imported networks
    else:
        _check_writable(directory)
    return plan, workdir


@processes.on_first
def _check_writable(directory: os.PathLike[str] | str) -> None:
    if '://' not in str(directory) and not os.access(directory, os.W_OK):
        raise errors.InputError(f'cannot write to the work directory {directory}: permission denied')


def template(network: plan_lib.Network, info: data.DataInfo) -> models.Classifier:
    """The classifier of a network, with shapes in place of values.

    Raises:
      InputError: The network that it starts from has another number of classes than the data, or does not take such images.
      RunError: The network that it starts from is damaged.
    """
    if network.start is None:
        module = network.module(info.num_classes)
        shared = {'num_classes': info.num_classes, 'mean': info.mean, 'std': info.std}
        return models.abstract(module, info.image_shape, **shared)
    start = network.start
    try:
        classifier = storage.template_in_all_processes(start.network, start.epoch, image_shape=info.image_shape)
    except errors.InputError as error:
        raise errors.InputError(f'{network.title}: {error}') from error
    if classifier.num_classes != info.num_classes:
        raise errors.InputError(
            f'{network.title}: the network in {start.network} has {classifier.num_classes} classes, but the data '
            f'have {info.num_classes}'
        )
    return classifier


@processes.on_first
def _check_networks(plan: plan_lib.Plan) -> None:
    """Traces every network and every attack on it, without computing anything: sizes, classes and layers must match.

    Imported networks must also be complete.
    """
    _check_validation_targets(plan)
    splits = inputs.open_data(plan)
    surrogates = {}
    for network in plan.networks:
        classifier = template(network, splits.info)
        if network.recipe:
            _check_training(classifier, splits.info.image_shape)
            data.steps_per_epoch(len(splits.train), network.recipe.batch_size)
        if network.role == 'surrogate':
            surrogates[network.model] = classifier
    images = jax.ShapeDtypeStruct((1, *splits.info.image_shape), jnp.float32)
    labels = jax.ShapeDtypeStruct((1,), jnp.int32)
    for entry in filter(None, (*plan.attacks.values(), plan.validation_attack)):

        def run(surrogate, images, labels, attack=entry.attack):
            pool = {'pool': (images, labels)} if attack.needs_pool else {}
            return attack(surrogate, images, labels, jax.random.key(0), **pool)

        for surrogate in surrogates.values():
            jax.eval_shape(run, surrogate, images, labels)
    _check_imported_networks(plan, splits.info.image_shape)


def _check_imported_networks(plan: plan_lib.Plan, image_shape: tuple[int, int, int]) -> None:
    """Reads every imported network completely: otherwise an incomplete copy would be noticed only when it is used."""
    for network in {network.start: network for network in plan.networks if network.start}.values():
        try:
            storage.load(network.start.network, network.start.epoch, image_shape=image_shape)
        except errors.RunError as error:
            raise pinning.damaged_error(network.title, error) from error


def _check_validation_targets(plan: plan_lib.Plan) -> None:
    """Checks that no validation target has the same variables as a target."""
    digests = {}
    for role in ('target', 'validation_target'):
        starts = [network for network in plan.of_role(role) if network.start]
        digests[role] = {network.model: pinning.variables_sha256(network.start) for network in starts}
    for name, digest in digests['validation_target'].items():
        for target, other in digests['target'].items():
            if digest == other:
                raise plan_lib.reused_target_error(name, target)


def _check_training(classifier: models.Classifier, image_shape: tuple[int, int, int]) -> None:
    """Traces a network in training mode, in which auxiliary heads may need larger images than in evaluation mode."""
    key, images = jax.random.key(0), jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    mutable = ['batch_stats', 'auxiliary_logits']
    jax.eval_shape(
        lambda v, x: classifier.module.apply(v, x, train=True, mutable=mutable, rngs={'dropout': key}),
        classifier.variables,
        images,
    )


def _mesh(plan: plan_lib.Plan, console: console_lib.Console) -> Mesh:
    """The mesh over the largest number of devices that divides every batch size."""
    try:
        devices = jax.devices()
    except RuntimeError as error:  # for example, a platform in JAX_PLATFORMS is not available
        raise errors.InputError(f'JAX has no device: {str(error).splitlines()[0]}') from error
    sizes = {network.recipe.batch_size for network in plan.networks if network.recipe}
    for size in sizes if jax.process_count() > 1 else ():
        if size % len(devices):
            below, above = (n * len(devices) for n in (size // len(devices), size // len(devices) + 1))
            near = f'{below} or {above}' if below else str(above)
            raise errors.InputError(
                f'batch_size {size} does not divide over the {len(devices)} devices of {jax.process_count()} processes; '
                f'the nearest that does is {near}'
            )
    used = max(n for n in range(1, len(devices) + 1) if all(size % n == 0 for size in sizes))
    if used < len(devices):
        console.info(
            f'using {used} of {len(devices)} devices, so that they divide batch_size {", ".join(map(str, sizes))}'
        )
    return sharding.data_mesh(devices[:used])
