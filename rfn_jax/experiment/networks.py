"""Stage 1: train the targets, the validation targets and the surrogates."""

from collections.abc import Sequence

from rfn_jax import training
from rfn_jax.core import errors, files, rng
from rfn_jax.experiment import context, plan, saved


def train(ctx: context.Context, only: Sequence[str] = ()) -> None:
    """Trains every network of the plan that is not trained yet, and tells the accuracy of those that were imported.

    A surrogate keeps the checkpoints of all epochs; what each network is goes into its `classifier.json`. Surrogates of one
    seed see the same examples in the same order whatever their training, so that trainings are compared pair by pair.

    Args:
      ctx: The experiment.
      only: Folders of the networks to train, or folders around them, such as `'targets'` or `'surrogates/resnet18-rfn'`, so
        that several processes can share the work; by default all.

    Raises:
      InputError: The data or the batch size do not fit, or there is no such folder.
      RunError: A training diverged or could not be saved.
    """
    for network in chosen(ctx.plan, only):
        if network.recipe is None:
            _tell_accuracy(ctx, network)
            continue
        saved.describe(ctx, network)
        keep_all = network.role == 'surrogate'
        with ctx.store(network) as store:
            if training.needed_epochs(network.recipe, keep_all) <= set(store.epochs()):
                continue  # without compiling its initial values
        purpose = f'train {network.role} {network.model} {network.seed}'
        training.fit(
            ctx.fresh(network),
            ctx.splits.train,
            ctx.splits.validation,
            network.recipe,
            seed=rng.seed_for(ctx.plan.seed, purpose),
            directory=ctx.workdir / network.folder,
            keep_all=keep_all,
            batch_size=ctx.plan.evaluation.batch_size,
            name=f'train {network.title}',
            console=ctx.console,
            mesh=ctx.mesh,
        )


def chosen(experiment: plan.Plan, only: Sequence[str]) -> list[plan.Network]:
    """The networks in some folders; all networks of the experiment if none are named.

    Raises:
      InputError: There is no such folder.
    """

    def lies_in(network, folder):
        return f'{network.folder}/'.startswith(f'{folder.rstrip("/")}/')

    for folder in only:
        if not any(lies_in(network, folder) for network in experiment.networks):
            raise errors.unknown_name('network', folder, [network.folder for network in experiment.networks])
    return [n for n in experiment.networks if not only or any(lies_in(n, folder) for folder in only)]


def _tell_accuracy(ctx: context.Context, network: plan.Network) -> None:
    """Tells the natural accuracy of imported weights once: a wrong normalisation shows in nothing else."""
    path = ctx.workdir / network.folder / 'imported.json'
    if path.exists():
        return
    classifier = ctx.trained(network, network.last_epoch)
    accuracy = training.accuracy(classifier, ctx.splits.validation, **ctx.batching)
    ctx.console.info(f'{network.title}: imported from {network.weights}, validation_accuracy {accuracy:.4g}')
    if accuracy < 2 / classifier.num_classes:
        ctx.console.info(
            f'{network.title}: that is near chance; are mean {classifier.mean} and std {classifier.std} those that its '
            'weights were trained with, and the order of the classes that of the data?'
        )
    files.write_json(path, {'weights': network.weights, 'validation_accuracy': accuracy})
