"""What every stage of an experiment works with."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rfn_jax import attacks, data, models, training, transfer
from rfn_jax.core import console as console_lib
from rfn_jax.core import environment, errors, files, rng, sharding, workdir
from rfn_jax.experiment import plan as plan_lib


@dataclasses.dataclass(frozen=True)
class Context:
    """An experiment in its work directory.

    Attributes:
      plan: What the experiment consists of.
      workdir: The work directory.
      console: Where to tell the progress.
      mesh: The devices.
    """

    plan: plan_lib.Plan
    workdir: pathlib.Path
    console: console_lib.Console
    mesh: Mesh

    @functools.cached_property
    def splits(self) -> data.Splits:
        """The data, read when first needed."""
        return self.plan.load_data()

    @property
    def batching(self) -> dict:
        """The arguments `batch_size` and `mesh` of attacks and predictions."""
        return {'batch_size': self.plan.evaluation.batch_size, 'mesh': self.mesh}

    def fresh(self, network: plan_lib.Network) -> models.Classifier:
        """The classifier before training: imported weights if there are any, else fresh ones.

        Fresh values depend on its role, name and seed, not on its training: surrogates of one seed start alike.

        Raises:
          RunError: Imported weights cannot be read.
        """
        if network.weights:
            return training.load_weights(network.weights, image_shape=self.splits.train.image_shape)
        key = rng.key_for(self.plan.seed, f'initialise {network.role} {network.model}', network.seed)
        return models.initialise(network.module(self.splits.train.num_classes), key, **self._shape)

    def template(self, network: plan_lib.Network) -> models.Classifier:
        """The classifier with shapes in place of values.

        Raises:
          InputError: Imported weights are of another number of classes than the data, or not for such images.
          RunError: Imported weights are damaged.
        """
        if network.weights:
            train = self.splits.train
            try:
                template = training.abstract_weights(network.weights, image_shape=train.image_shape)
            except errors.InputError as error:
                raise errors.InputError(f'{network.title}: {error}') from error
            if template.num_classes != train.num_classes:
                raise errors.InputError(
                    f'{network.title}: the weights in {network.weights} have {template.num_classes} classes, and the data '
                    f'{train.num_classes}'
                )
            return template
        return models.abstract(network.module(self.splits.train.num_classes), **self._shape)

    @functools.cached_property
    def _shape(self) -> dict:
        """What the data set says of a classifier: the normalisation is that of the training images."""
        train = self.splits.train
        mean, std = train.mean_and_std()
        return {'image_shape': train.image_shape, 'num_classes': train.num_classes, 'mean': mean, 'std': std}

    def store(self, network: plan_lib.Network) -> training.CheckpointStore:
        """The checkpoints of a network."""
        if network.recipe is None:
            return training.open_weights(network.weights)
        path = self.workdir / network.folder / 'checkpoints'
        return training.CheckpointStore(path, keep_all=network.role == 'surrogate')

    def trained_at(self, network: plan_lib.Network, epochs: list[int]) -> Iterator[models.Classifier]:
        """The classifiers after each of some epochs, one after another.

        Raises:
          InputError: An epoch has not been trained so far.
          RunError: A checkpoint cannot be read.
        """
        template = self.template(network)
        with self.store(network) as store:
            for epoch in epochs:
                _check_epoch(network, epoch, store)
                try:
                    classifier = store.restore_classifier(epoch, template)
                except errors.RunError as error:
                    again = 'run rfn-jax train' if network.recipe else 'import the weights again'
                    raise errors.RunError(f'{error}; to make it again, delete that folder and {again}') from error
                yield classifier

    def trained(self, network: plan_lib.Network, epoch: int) -> models.Classifier:
        """The classifier after one epoch; raises like `trained_at`."""
        (classifier,) = self.trained_at(network, [epoch])
        return classifier

    @functools.cached_property
    def targets(self) -> dict[str, models.Classifier]:
        """The targets after their last epoch, by name; raises like `trained_at`."""
        return self._trained('target')

    @functools.cached_property
    def validation_targets(self) -> dict[str, models.Classifier]:
        """The validation targets after their last epoch, by name; raises like `trained_at`."""
        return self._trained('validation_target')

    def _trained(self, role: str) -> dict[str, models.Classifier]:
        return {n.model: self.trained(n, n.last_epoch) for n in self.plan.of_role(role)}

    @functools.cached_property
    def test_examples(self) -> data.ImageDataset:
        """The eligible test images: the first ones that all targets classify correctly.

        Raises:
          InputError: There are none, or a target is not trained.
          RunError: A checkpoint cannot be read.
        """
        natural = transfer.predictions(self.targets, self.splits.test, **self.batching)
        return transfer.eligible_examples(self.splits.test, natural, at_most=self.plan.evaluation.examples)

    def digest(self, network: plan_lib.Network, epoch: int) -> str:
        """The hash of the weights of a checkpoint; raises like `trained_at`."""
        with self.store(network) as store:
            _check_epoch(network, epoch, store)
            return store.digest(epoch)

    def crafted(
        self, network: plan_lib.Network, training_name: str, epoch: int, attack_name: str, attack: attacks.Attack
    ) -> transfer.Crafted:
        """What the result tables say of adversarial examples of a surrogate."""
        return transfer.Crafted(
            surrogate=network.model,
            training=training_name,
            seed=network.seed,
            epoch=epoch,
            attack=attack_name,
            eps=attack.limits.eps,
            norm=attack.limits.norm,
            gradient_evaluations=attack.gradient_evaluations,
        )

    def result(self, name: str) -> pathlib.Path:
        """The path of a file in `results/`."""
        return self.workdir / 'results' / name


def _check_epoch(network: plan_lib.Network, epoch: int, store: training.CheckpointStore) -> None:
    if epoch not in store.epochs():
        raise errors.InputError(
            f'{network.title} has no checkpoint of epoch {epoch} in {store.directory}; train it first (rfn-jax train)'
        )


def open_workdir(config: Mapping, directory, console: console_lib.Console) -> Context:
    """Checks a config and binds a work directory to it.

    Args:
      config: Nested mapping of plain values; see `configs/digits.py`.
      directory: The work directory; made if it is not there.
      console: Where to tell the progress.

    Returns:
      The context of all stages. A new directory also gets `environment.json`: versions, platform and devices.

    Raises:
      InputError: The config is wrong, or the directory cannot be written or was made from another config.
    """
    plan = plan_lib.read(config)
    if jax.process_count() > 1:
        raise errors.InputError(f'experiments run on one host so far, not on {jax.process_count()}')
    ctx = Context(plan, pathlib.Path(directory), console, _mesh(plan, console))
    if not workdir.is_bound(directory):
        # What only the data can tell is found out before the directory is bound to a config that cannot run.
        for network in plan.networks:
            template = ctx.template(network)
            if network.recipe:
                _check_training(template, ctx.splits.train.image_shape)
                data.epoch_order(len(ctx.splits.train), network.recipe.batch_size, seed=0, epoch=0)
        _check_attacks(ctx)
    workdir.bind(directory, plan.config)
    if not (ctx.workdir / 'environment.json').exists():
        files.write_json(ctx.workdir / 'environment.json', environment.describe(ctx.mesh))
    return ctx


def _check_training(template: models.Classifier, image_shape: tuple[int, int, int]) -> None:
    """Traces a network in training mode, where auxiliary heads may need larger images than evaluation does."""
    key, images = jax.random.key(0), jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    mutable = ['batch_stats', 'auxiliary_logits']
    jax.eval_shape(
        lambda v, x: template.module.apply(v, x, train=True, mutable=mutable, rngs={'dropout': key}),
        template.variables,
        images,
    )


def _check_attacks(ctx: Context) -> None:
    """Traces every attack on every architecture that it is for, without computing anything: sizes and layers must fit."""
    surrogates = {network.model: ctx.template(network) for network in ctx.plan.of_role('surrogate')}
    images = jax.ShapeDtypeStruct((1, *ctx.splits.train.image_shape), jnp.float32)
    labels = jax.ShapeDtypeStruct((1,), jnp.int32)
    for attack in (*ctx.plan.attacks.values(), ctx.plan.validation_attack):

        def run(surrogate, images, labels, attack=attack):
            more = {'pool': (images, labels)} if attack.needs_pool else {}
            return attack(surrogate, images, labels, jax.random.key(0), **more)

        for surrogate in surrogates.values():
            jax.eval_shape(run, surrogate, images, labels)


def _mesh(plan: plan_lib.Plan, console: console_lib.Console) -> Mesh:
    """The mesh over as many devices as divide every batch."""
    try:
        devices = jax.devices()
    except RuntimeError as error:  # such as a platform in JAX_PLATFORMS that is not there
        raise errors.InputError(f'JAX has no device: {str(error).splitlines()[0]}') from error
    sizes = {network.recipe.batch_size for network in plan.networks if network.recipe}
    used = max(n for n in range(1, len(devices) + 1) if all(size % n == 0 for size in sizes))
    if used < len(devices):
        console.info(f'using {used} of {len(devices)} devices, which divide batch_size {", ".join(map(str, sizes))}')
    return sharding.data_mesh(devices[:used])
