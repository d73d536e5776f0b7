"""Stage 3: craft the adversarial sets on the test images."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from etils import epath

from rfn_jax import data, storage, transfer
from rfn_jax.core import errors, processes, rng
from rfn_jax.experiment import inputs as inputs_lib
from rfn_jax.experiment import plan as plan_lib
from rfn_jax.experiment import selection
from rfn_jax.experiment import workdir as workdir_lib


@dataclasses.dataclass(frozen=True)
class Job:
    """One adversarial set of an experiment.

    Attributes:
      network: The surrogate.
      crafted: The columns that describe it in the result tables.
      attack: The attack.
      directory: Where it is stored.
      origin: What its images are made from.
    """

    network: plan_lib.Network
    crafted: transfer.Crafted
    attack: plan_lib.Attack
    directory: epath.Path
    origin: dict

    def images(self, examples: data.ImageDataset) -> np.ndarray:
        """The adversarial images of the given examples, uint8 `[N, H, W, C]`, read from disk.

        Raises:
          InputError: Images are missing, or were made from something else.
        """

        def read() -> np.ndarray:
            stored = storage.load_if_made_from(self.directory, self.origin)
            images = None if stored is None else stored.images_for(examples.ids)
            if images is None:
                raise errors.InputError(
                    f'{self.directory} holds no adversarial set for this config, these weights and these examples; craft '
                    'it first (rfn-jax craft)'
                )
            return images

        return processes.arrays_from_first(read, like=examples.images)

    @processes.on_first
    def crafted_ids(self) -> list[int]:
        """The ids of the examples whose adversarial images are stored."""
        stored = storage.load_if_made_from(self.directory, self.origin)
        return [] if stored is None else stored.ids.tolist()

    @processes.on_first
    def add(self, crafted: storage.AdversarialSet) -> None:
        """Stores adversarial images, beside those that are stored already.

        Raises:
          RunError: They could not be written.
        """
        stored = storage.load_if_made_from(self.directory, self.origin)
        storage.save_adversarial_set(crafted if stored is None else stored.merge(crafted), self.directory)

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f'{self.crafted.attack} on {self.network.model}-{self.crafted.training} seed {self.network.seed}'


def jobs(inputs: inputs_lib.Inputs, stopping_epochs: Mapping[tuple[str, str], int]) -> Iterator[Job]:
    """All adversarial sets of the experiment, ordered by surrogate, training, seed and attack.

    Args:
      inputs: The inputs of the experiment.
      stopping_epochs: For each surrogate and each early-stopped training, the epoch whose checkpoint is attacked.

    Raises:
      InputError: A network has not been trained.
    """
    plan, workdir = inputs.plan, inputs.workdir
    for network in plan.of_role('surrogate'):
        for training in plan.trainings_of(network):
            epoch = stopping_epochs.get((network.model, training), network.last_epoch)
            for name, entry in plan.attacks.items():
                limits = entry.attack.limits
                crafted = transfer.Crafted(
                    surrogate=network.model,
                    training=training,
                    seed=network.seed,
                    epoch=epoch,
                    attack=name,
                    eps=limits.eps,
                    norm=limits.norm,
                )
                origin = {
                    **dataclasses.asdict(crafted),
                    'attack_options': entry.options,
                    'experiment_seed': plan.seed,
                    'weights_sha256': inputs.digest(network, epoch),
                    'source': inputs.splits.test.source,
                }
                if entry.attack.needs_pool:
                    origin['pool_sha256'] = inputs_lib.pool_sha256(inputs.pool)
                yield Job(network, crafted, entry, workdir.adversarial(network, training, name), origin)


def craft(plan: plan_lib.Plan, workdir: workdir_lib.Workdir) -> None:
    """Crafts the adversarial sets that are missing, or that were made from something else.

    Examples that are missing from a set are added to it; those already in it are kept.

    Raises:
      InputError: A network has not been trained, no early-stopping epoch was chosen, or no test image is eligible.
      RunError: A checkpoint cannot be read, or a file cannot be written.
    """
    inputs = inputs_lib.Inputs(plan, workdir)
    # Before anything is written: every set can be made, and every target is trained.
    all_jobs = list(jobs(inputs, selection.stopping_epochs(inputs) if plan.early_stopping else {}))
    for target in plan.of_role('target'):
        inputs.digest(target, target.last_epoch)
    workdir.record_config()
    workdir.define_imported(plan)
    examples = inputs.choose_test_examples()
    for job in all_jobs:
        missing = examples.take(~np.isin(examples.ids, job.crafted_ids()))
        if len(missing):
            job.add(_craft(job, missing, inputs))
        _clear_finished_batches(job, missing)  # also those of a run that was stopped after it saved the set


def _craft(job: Job, examples: data.ImageDataset, inputs: inputs_lib.Inputs) -> storage.AdversarialSet:
    batch_size = min(inputs.plan.evaluation.batch_size, len(examples))
    surrogate = inputs.classifier(job.network, job.crafted.epoch)
    key = rng.key_for(inputs.plan.seed, f'craft {job.crafted.attack} {job.network.model}', job.network.seed)
    with inputs.workdir.console.task(f'craft {job.title}', -(-len(examples) // batch_size)) as advance:
        images = transfer.craft_images(
            job.attack.attack,
            surrogate,
            examples,
            key,
            **inputs.batching,
            pool=inputs.pool if job.attack.attack.needs_pool else None,
            finished_batches=_finished_batches(job, examples),
            advance=advance,
        )
    return storage.AdversarialSet(images, examples.ids, examples.labels, job.origin)


@processes.on_first
def _clear_finished_batches(job: Job, examples: data.ImageDataset) -> None:
    _finished_batches(job, examples).clear()


def _finished_batches(job: Job, examples: data.ImageDataset) -> storage.FinishedBatches:
    return storage.FinishedBatches(job.directory / 'batches', {**job.origin, 'ids': examples.ids.tolist()})
