"""Stage 1: train the targets, the validation targets and the surrogates."""

import contextlib
import functools
import itertools
from collections.abc import Sequence

from rfn_jax import data, models, storage, training
from rfn_jax.core import errors, locks, processes, rng
from rfn_jax.experiment import inputs as inputs_lib
from rfn_jax.experiment import opening
from rfn_jax.experiment import plan as plan_lib
from rfn_jax.experiment import workdir as workdir_lib
from rfn_jax.storage import description


def train(plan: plan_lib.Plan, workdir: workdir_lib.Workdir, only: Sequence[str] = ()) -> None:
    """Trains every network of the plan that is not trained yet, and reports the accuracy of the imported ones.

    A surrogate keeps the checkpoints of all epochs. While a network is being trained, `training.lock` in its folder keeps
    other processes away from it; a work directory in a bucket has no locks. Surrogates with the same seed see the same
    examples in the same order whatever their training, so that trainings are compared pair by pair.

    Args:
      plan: The experiment.
      workdir: Its work directory.
      only: Folders of the networks to train, or their parent folders, such as `'targets'` or `'surrogates/resnet18-rfn'`,
        so that several processes can share the work; by default all.

    Raises:
      InputError: The data or the batch size do not match the networks, a folder in `only` does not exist, or an existing
        network was made from something else.
      RunError: A training diverged or could not be saved, or another process is training the network.
    """
    inputs = inputs_lib.Inputs(plan, workdir)
    chosen = plan.networks_in(only)
    for network in chosen:
        _check_origin(network, workdir)
    workdir.record_config()
    # Networks that differ only in their seed are next to each other, and share what is compiled.
    for _, seeds in itertools.groupby(chosen, key=lambda n: (n.role, n.model, n.training)):
        missing = []
        for network in seeds:
            _check_origin(network, workdir)  # again: another process may have made it in the meantime
            if network.recipe is None:
                _report_accuracy(network, inputs)
                continue
            if _is_trained(network, workdir):
                _write_description(network, inputs)
            else:
                missing.append(network)
        if missing:
            _train(missing, inputs)


@processes.on_first
def _check_origin(network: plan_lib.Network, workdir: workdir_lib.Workdir) -> None:
    """Checks that a network, if it exists, has a definition and was made from the same config."""
    folder = workdir.network(network)
    if network.recipe and _epochs(network, workdir) and not workdir.is_defined(network):
        raise errors.InputError(
            f'{folder} has checkpoints but no definition.json, which says how they were trained: restore it, or delete the '
            'folder to train the network again'
        )
    workdir.check_definition(network)


@processes.on_first
def _is_trained(network: plan_lib.Network, workdir: workdir_lib.Workdir) -> bool:
    needed = training.needed_epochs(network.recipe, keep_all=network.role == 'surrogate')
    return needed <= _epochs(network, workdir)


def _epochs(network: plan_lib.Network, workdir: workdir_lib.Workdir) -> set[int]:
    """The epochs that have checkpoints."""
    return set(training.CheckpointStore(workdir.network(network) / 'checkpoints').epochs())


def _train(networks: Sequence[plan_lib.Network], inputs: inputs_lib.Inputs) -> None:
    """Trains networks that differ only in their seed."""
    workdir, splits = inputs.workdir, inputs.splits
    recipe = networks[0].recipe
    augmentation = recipe.augmentation.on_host()
    streaming = data.is_streamed(splits.train, splits.info, recipe.streaming, augmentation)
    program = training.program(
        opening.template(networks[0], splits.info),
        recipe,
        steps_per_epoch=data.steps_per_epoch(len(splits.train), recipe.batch_size),
        mesh=workdir.mesh,
        streaming=streaming,
    )
    for first in range(0, len(networks), recipe.seeds_at_once):
        together = networks[first : first + recipe.seeds_at_once]
        with contextlib.ExitStack() as held:
            for network in together:
                lock = functools.partial(locks.held, workdir.network(network) / 'training.lock')
                held.enter_context(processes.entered_on_first(lock))
            for network in together:
                _write_description(network, inputs)
            _fit(together, program, inputs, streaming)


def _fit(
    networks: Sequence[plan_lib.Network], program: training.Program, inputs: inputs_lib.Inputs, streaming: bool
) -> None:
    """Trains networks at the same time, and frees their loader, which may hold the training set on every device."""
    plan, workdir, splits = inputs.plan, inputs.workdir, inputs.splits
    seeds = [rng.seed_for(plan.seed, f'train {n.role} {n.model} {n.seed}') for n in networks]
    loader = data.loader(
        splits.train if streaming else inputs.train,
        splits.info,
        batch_size=program.recipe.batch_size,
        seed=seeds[0],
        mesh=program.mesh,
        streaming=streaming,
        augmentation=program.recipe.augmentation.on_host(),
        workers=program.recipe.workers,
    )
    runs = [
        training.Run(
            _initial_classifier(network, inputs),
            data.with_seed(loader, seed),
            workdir.network(network),
            f'train {network.title}',
        )
        for network, seed in zip(networks, seeds, strict=True)
    ]
    training.fit(
        runs,
        inputs.validation,
        program,
        keep_all=networks[0].role == 'surrogate',
        batch_size=plan.evaluation.batch_size,
        console=workdir.console,
    )


def _initial_classifier(network: plan_lib.Network, inputs: inputs_lib.Inputs) -> models.Classifier:
    """The classifier before training: the network that it starts from if there is one, otherwise fresh values.

    Fresh values depend on the role, name and seed but not on the training, so surrogates with the same seed start alike.
    """
    info = inputs.splits.info
    if network.start:
        return storage.load_in_all_processes(network.start.network, network.start.epoch, image_shape=info.image_shape)
    # Another word would change the first variables of every network.
    key = rng.key_for(inputs.plan.seed, f'initialise {network.role} {network.model}', network.seed)
    shared = {'num_classes': info.num_classes, 'mean': info.mean, 'std': info.std}
    return models.initialize(network.module(info.num_classes), key, info.image_shape, **shared)


@processes.on_first
def _write_description(network: plan_lib.Network, inputs: inputs_lib.Inputs) -> None:
    """Writes the description and the definition of a network if one is missing; an existing definition must be the same."""
    inputs.workdir.check_definition(network)
    folder = inputs.workdir.network(network)
    if inputs.workdir.is_defined(network) and (folder / description.FILE).exists():
        return
    info, classifier = inputs.splits.info, opening.template(network, inputs.splits.info)
    origin = {'training': network.training, 'seed': network.seed, 'data': inputs.plan.data.get('name')}
    architecture = network.spec
    if network.start:  # an export uses the naming of the weights that the training started from
        start = storage.read_network(network.start.network)
        architecture, origin['start'] = start.architecture, network.start.sha256
        origin['naming'] = start.origin.get('naming')
    described = storage.Network.of(
        classifier,
        architecture=architecture,
        image_shape=info.image_shape,
        class_names=info.class_names,
        origin=origin,
    )
    description.write(folder, described)
    inputs.workdir.define(network)


def _report_accuracy(network: plan_lib.Network, inputs: inputs_lib.Inputs) -> None:
    """Reports the natural accuracy of an imported network once, since nothing else reveals a wrong normalization."""
    if inputs.workdir.is_defined(network):
        return
    console = inputs.workdir.console
    classifier = inputs.classifier(network, network.last_epoch)
    accuracy = training.accuracy(classifier, inputs.validation, **inputs.batching)
    console.info(f'{network.title}: {network.start.network}, validation_accuracy {accuracy:.4g}')
    if accuracy < 2 / classifier.num_classes:
        console.info(
            f'{network.title}: that is near chance; were its weights trained with mean {classifier.mean} and std '
            f'{classifier.std}, and are its classes in the order of the data?'
        )
    inputs.workdir.define(network)
