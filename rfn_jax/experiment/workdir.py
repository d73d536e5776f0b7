"""The work directory of an experiment: where its files are, and the networks in it.

config.json, environment.json, layout.json     the last config, the environment of the first stage, the layout version
targets/, validation_targets/, surrogates/     network directories, each with its definition.json
adversarial/<surrogate>/<attack>/              adversarial sets
results/                                       tables
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from etils import epath
from jax.sharding import Mesh

from rfn_jax import models, storage
from rfn_jax.core import console as console_lib
from rfn_jax.core import errors, io, processes
from rfn_jax.experiment import definitions, layout
from rfn_jax.experiment import plan as plan_lib


@dataclasses.dataclass(frozen=True)
class Workdir:
    """A work directory, and the devices on which its stages run.

    Attributes:
      directory: The directory.
      console: Where to report progress.
      mesh: The devices.
      config: The config that the directory is used with now, with its files pinned.
    """

    directory: epath.Path
    console: console_lib.Console
    mesh: Mesh
    config: Mapping

    @processes.on_first
    def record_config(self) -> None:
        """Records the config as the one that the directory was last used with.

        A stage calls this once it knows that it can run, and before it writes anything: a stage that is refused leaves the
        directory unchanged.

        Raises:
          InputError: The directory cannot be written.
        """
        layout.record_config(self.directory, self.config, self.mesh)

    def result(self, name: str) -> epath.Path:
        """The path of a file in `results/`."""
        return self.directory / 'results' / name

    def adversarial(self, network: plan_lib.Network, training: str, attack: str) -> epath.Path:
        """The directory of the adversarial set that an attack crafts on a surrogate."""
        return self.directory / 'adversarial' / f'{network.model}-{training}-seed{network.seed}' / attack

    def network(self, network: plan_lib.Network) -> epath.Path:
        """The network directory of a network, which is in the work directory if the network is trained here."""
        return self.directory / network.folder if network.recipe else epath.Path(network.start.network)

    def classifiers(
        self, network: plan_lib.Network, epochs: Sequence[int], image_shape: tuple[int, int, int]
    ) -> Iterator[models.Classifier]:
        """Yields the classifiers after the given epochs.

        Raises:
          InputError: An epoch has not been trained yet, or the network was made from another config.
          RunError: A checkpoint cannot be read.
        """
        for epoch in epochs:
            self._check_usable(network)
            with _naming_remedy(network):
                classifier = storage.load_in_all_processes(self.network(network), epoch, image_shape=image_shape)
            yield classifier

    def classifier(self, network: plan_lib.Network, epoch: int, image_shape: tuple[int, int, int]) -> models.Classifier:
        """The classifier after one epoch; raises like `classifiers`."""
        (classifier,) = self.classifiers(network, [epoch], image_shape)
        return classifier

    @processes.on_first
    def digest(self, network: plan_lib.Network, epoch: int) -> str:
        """The hash of everything that determines the logits after an epoch: architecture, normalization and variables.

        Raises like `classifiers`.
        """
        self._check_usable(network)
        with _naming_remedy(network):
            store, _ = storage.open_checkpoint(self.network(network), epoch)
            return storage.read_network(self.network(network)).sha256(store.digest(epoch))

    @processes.on_first
    def is_defined(self, network: plan_lib.Network) -> bool:
        """Whether the network has a definition; its training may not be finished."""
        return self._definition(network).exists()

    @processes.on_first
    def define(self, network: plan_lib.Network) -> None:
        """Writes the definition of a network, before the network is trained or first used.

        Raises:
          RunError: The definition cannot be written.
        """
        io.write_json(self._definition(network), dict(network.definition))

    @processes.on_first
    def define_imported(self, plan: plan_lib.Plan) -> None:
        """Writes the missing definitions of imported networks; raises like `define`."""
        for network in plan.networks:
            if network.recipe is None and not self.is_defined(network):
                self.define(network)

    @processes.on_first
    def check_definition(self, network: plan_lib.Network) -> None:
        """Checks that a network, if it exists, was made from the same model, data and recipe.

        Raises:
          InputError: The definitions differ, with the keys and both values; or the existing definition is damaged.
        """
        if not self.is_defined(network):
            return
        path = self._definition(network)
        try:
            existing = io.read_json_object(path)
        except errors.InputError as error:
            action = 'train the network again' if network.recipe else 'record again which network is used'
            raise errors.InputError(f'{error}; restore it, or delete {path.parent} to {action}') from error
        different = definitions.differences(existing, network.definition)
        if different:
            more = f' (and {len(different) - 5} more)' if len(different) > 5 else ''
            raise errors.InputError(
                f'{path.parent} was made from another config: {"; ".join(different[:5])}{more}; choose another --workdir, or '
                'another name for the network'
            )

    def _definition(self, network: plan_lib.Network) -> epath.Path:
        return self.directory / network.folder / 'definition.json'

    def _check_usable(self, network: plan_lib.Network) -> None:
        if network.recipe and not self.is_defined(network):
            raise errors.InputError(f'{network.title} is not trained yet; train it first (rfn-jax train)')
        self.check_definition(network)


@contextlib.contextmanager
def _naming_remedy(network: plan_lib.Network) -> Iterator[None]:
    """Adds the remedy to the error for a damaged checkpoint."""
    try:
        yield
    except errors.RunError as error:
        action = 'run rfn-jax train' if network.recipe else 'import the network again'
        raise errors.RunError(f'{error}; to make it again, delete that folder and {action}') from error
