"""The inputs of the stages: the data, the targets and the eligible examples of an experiment, each read when first used."""

import functools
from collections.abc import Mapping

import numpy as np

from rfn_jax import data, models, training, transfer
from rfn_jax.core import digests, errors, io, processes
from rfn_jax.experiment import plan as plan_lib
from rfn_jax.experiment import workdir as workdir_lib


class Inputs:
    """The inputs of a stage.

    Args:
      plan: The experiment.
      workdir: Its work directory.

    Raises:
      InputError: This process has other data than the first one.
    """

    def __init__(self, plan: plan_lib.Plan, workdir: workdir_lib.Workdir):
        self.plan, self.workdir = plan, workdir
        self._digests: dict[tuple[str, int], str] = {}
        if processes.are_several():
            _check_same(self.splits)

    @functools.cached_property
    def splits(self) -> data.Splits:
        """The data; the images are not read yet."""
        return open_data(self.plan)

    @functools.cached_property
    def train(self) -> data.ImageDataset:
        """All training images."""
        return data.in_memory(self.splits.train, self.splits.info)

    @functools.cached_property
    def validation(self) -> data.Source:
        """All validation images, in memory unless they are large."""
        return self._in_memory_unless_large(self.splits.validation)

    @functools.cached_property
    def test(self) -> data.Source:
        """All test images, in memory unless they are large."""
        return self._in_memory_unless_large(self.splits.test)

    @functools.cached_property
    def pool(self) -> data.ImageDataset:
        """The test images that attacks such as `admix` mix in."""
        return self.read(self.test, transfer.pool_positions(self.test.ids))

    def read(self, source: data.Source, positions: np.ndarray) -> data.ImageDataset:
        """Some examples of a split, read into memory."""
        return data.in_memory(source, self.splits.info, positions)

    @functools.cached_property
    def targets(self) -> dict[str, models.Classifier]:
        """The targets after their last epoch, by name; raises like `Workdir.classifiers`."""
        return self._classifiers('target')

    @functools.cached_property
    def validation_targets(self) -> dict[str, models.Classifier]:
        """The validation targets after their last epoch, by name; raises like `Workdir.classifiers`."""
        return self._classifiers('validation_target')

    @property
    def batching(self) -> dict:
        """The arguments `batch_size` and `mesh` for attacks and predictions."""
        return {'batch_size': self.plan.evaluation.batch_size, 'mesh': self.workdir.mesh}

    def classifier(self, network: plan_lib.Network, epoch: int) -> models.Classifier:
        """The classifier of a network after an epoch; raises like `Workdir.classifiers`."""
        return self.workdir.classifier(network, epoch, self.splits.info.image_shape)

    def digest(self, network: plan_lib.Network, epoch: int) -> str:
        """The hash of a network after an epoch, read only once; see `Workdir.digest`."""
        key = (network.folder, epoch)
        if key not in self._digests:
            self._digests[key] = self.workdir.digest(network, epoch)
        return self._digests[key]

    def choose_test_examples(self) -> data.ImageDataset:
        """The eligible test images: the first ones that all targets classify correctly, recorded in `test_examples.json`.

        Raises:
          InputError: No image is eligible, or a target has not been trained.
          RunError: A checkpoint cannot be read, or the file cannot be written.
        """
        origin = self._test_origin()
        ids = self._recorded_ids(origin)
        if ids is None:
            evaluation = self.plan.evaluation
            positions = self.eligible(self.targets, self.test, evaluation.examples, balanced=evaluation.balanced)
            ids = self.test.ids[positions].tolist()
            processes.on_first(io.write_json)(self.workdir.result('test_examples.json'), {'origin': origin, 'ids': ids})
        return self._test_examples(ids)

    def test_examples(self) -> data.ImageDataset:
        """The eligible test images that the adversarial sets were crafted on.

        Raises:
          InputError: None have been chosen for these targets.
        """
        ids = self._recorded_ids(self._test_origin())
        if ids is None:
            raise errors.InputError(
                f'{self.workdir.result("test_examples.json")} holds no test examples for these targets; run rfn-jax craft '
                'first'
            )
        return self._test_examples(ids)

    def eligible(
        self, classifiers: Mapping[str, models.Classifier], source: data.Source, at_most: int, *, balanced: bool = False
    ) -> np.ndarray:
        """The positions of the eligible examples of a split; raises like `transfer.eligible_positions`."""
        natural = training.predict_all(classifiers, source, **self.batching)
        return transfer.eligible_positions(
            natural.labels, natural.classes, at_most=at_most, source=source.source, balanced=balanced
        )

    def _in_memory_unless_large(self, source: data.Source) -> data.Source:
        info = self.splits.info
        return source if data.is_large(source, info) else data.in_memory(source, info)

    def _classifiers(self, role: str) -> dict[str, models.Classifier]:
        return {network.model: self.classifier(network, network.last_epoch) for network in self.plan.of_role(role)}

    def _test_origin(self) -> dict:
        """What the choice of the test examples depends on."""
        targets = self.plan.of_role('target')
        return {
            'data': {name: value for name, value in self.plan.data.items() if name not in data.LOCATIONS},
            'examples': self.plan.evaluation.examples,
            'balanced': self.plan.evaluation.balanced,
            'targets': {network.model: self.digest(network, network.last_epoch) for network in targets},
            'source': self.splits.test.source,
        }

    @processes.on_first
    def _recorded_ids(self, origin: dict) -> list[int] | None:
        """The ids of the test examples in `test_examples.json`; None if it is missing, damaged, or of another origin."""
        try:
            record = io.read_json_object(self.workdir.result('test_examples.json'))
        except errors.InputError:
            return None
        ids = record.get('ids')
        valid = isinstance(ids, list) and ids and all(type(i) is int for i in ids) and np.isin(ids, self.test.ids).all()
        return ids if valid and record.get('origin') == origin else None

    def _test_examples(self, ids: list[int]) -> data.ImageDataset:
        position = {number: index for index, number in enumerate(self.test.ids.tolist())}
        return self.read(self.test, np.asarray([position[number] for number in ids]))


def _check_same(splits: data.Splits) -> None:
    """Checks that all processes have the same data, before any of them works with it."""
    examples = (splits.train, splits.validation, splits.test)
    digest = digests.of_plain([[split.source, digests.of_arrays([split.ids])] for split in examples])
    processes.check_same('the data', digest)


def open_data(plan: plan_lib.Plan) -> data.Splits:
    """The data of an experiment; the images are not read yet.

    Raises:
      InputError: The data are missing, or an option is wrong.
    """
    return data.SOURCES.make_from(plan.data)


def pool_sha256(pool: data.ImageDataset) -> str:
    """The hash of the ids and the source of the images that an attack mixes in."""
    return digests.of_plain([pool.source, pool.ids.tolist()])
