"""One Orbax checkpoint per epoch, with checksums of our own; only a few of them keep the state of the optimizer.

Orbax silently restores flipped bytes in array files, and raises many types of errors for other damage. Each checkpoint
therefore carries the SHA-256 of its arrays, and any failure to restore it is reported as one clear error.
"""

import contextlib
import os
from collections.abc import Collection

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from rfn_jax import models
from rfn_jax.core import digests, errors, io
from rfn_jax.training import state as state_lib

ITEMS = ('variables', 'optimizer')  # the trees of a checkpoint


class CheckpointStore:
    """The checkpoints of one network: `<directory>/<epoch>/{variables,optimizer,meta}`.

    Reading changes nothing on disk. To save, use it as a context manager, or call `wait` and `close`. With several processes,
    one of them uses it.

    Args:
      directory: Where they are stored; created when the first checkpoint is saved.
      keep_all: Whether saving keeps every epoch (surrogates) or only the latest two (targets).
    """

    def __init__(self, directory: os.PathLike[str] | str, *, keep_all: bool = True):
        self.directory = io.absolute(directory)
        self._keep_all = keep_all
        self._without_optimizer: set[int] = set()  # epochs, kept so that a bucket is not queried again and again
        self._manager: ocp.CheckpointManager | None = None  # created only to save: it may write and delete

    def __enter__(self) -> 'CheckpointStore':
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        if exception_type is None:
            self.wait()
        self.close()

    def epochs(self) -> list[int]:
        """Returns the epochs whose checkpoints are finished, in order.

        Raises:
          RunError: The directory cannot be read.
        """
        return sorted(_guard(f'read {self.directory}', lambda: ocp.utils.checkpoint_steps(self.directory)))

    def save(self, epoch: int, state: state_lib.TrainState) -> None:
        """Saves a state in the background.

        Args:
          epoch: Number of the epoch.
          state: The state, on the devices of this process.

        Raises:
          RunError: This checkpoint, or an earlier one that was still being written, could not be saved.
        """
        # Copy to the host: the next step donates the buffers while Orbax is still writing.
        variables = jax.tree.map(np.array, state.variables)
        optimizer = jax.tree.map(np.array, {'step': state.step, 'opt_state': state.opt_state})
        trees = dict(zip(ITEMS, (variables, optimizer), strict=True))
        meta = {
            'epoch': epoch,
            'leaves': {name: _describe_leaves(tree) for name, tree in trees.items()},
            'sha256': {name: digests.of_arrays(tree) for name, tree in trees.items()},
        }
        items = ocp.args.Composite(
            **{name: ocp.args.StandardSave(tree) for name, tree in trees.items()}, meta=ocp.args.JsonSave(meta)
        )
        self._without_optimizer.discard(epoch)
        if self._manager is None:
            self._manager = self._make_manager()
        # An error may come from the previous save, which ran in the background.
        what = f'save checkpoints in {self.directory}'
        # Forced, because Orbax would skip an epoch older than the latest one.
        if not _guard(what, lambda: self._manager.save(epoch, args=items, force=True)):
            raise errors.RunError(f'could not {what}: Orbax skipped epoch {epoch}')

    def wait(self) -> None:
        """Waits until all saved checkpoints are on disk.

        Raises:
          RunError: A checkpoint could not be saved.
        """
        if self._manager is not None:
            _guard(f'save checkpoints in {self.directory}', self._manager.wait_until_finished)

    def resumable_epochs(self) -> list[int]:
        """Returns the epochs whose checkpoints hold the state of the optimizer, in order.

        Raises:
          RunError: The directory cannot be read.
        """
        return [
            epoch for epoch in self.epochs() if epoch not in self._without_optimizer and self._marker(epoch).exists()
        ]

    def delete_optimizers(self, *, keep: Collection[int]) -> None:
        """Deletes the state of the optimizer in all finished checkpoints except those of the epochs in `keep`.

        Raises:
          RunError: The directory cannot be read.
        """
        for epoch in set(self.epochs()) - set(keep) - self._without_optimizer:
            optimizer = self._path(epoch) / 'optimizer'
            with contextlib.suppress(OSError):  # retried after the next epoch
                if optimizer.exists():
                    # The marker goes first, so that a partially deleted state is not mistaken for a complete one.
                    self._marker(epoch).unlink(missing_ok=True)
                    optimizer.rmtree()
                self._without_optimizer.add(epoch)

    def restore(self, epoch: int, template: state_lib.TrainState) -> state_lib.TrainState:
        """Restores the state saved after `epoch`, as arrays on the host.

        Args:
          epoch: One of `epochs()`.
          template: A state (or its shapes) of the same model and optimizer.

        Raises:
          InputError: The checkpoint belongs to another model or optimizer.
          RunError: The checkpoint is missing or damaged, or holds only the variables.
        """
        optimizer = {'step': template.step, 'opt_state': template.opt_state}
        saved = self._restore(epoch, variables=template.variables, optimizer=optimizer)
        return state_lib.TrainState(**saved['optimizer'], **saved['variables'])

    def restore_classifier(self, epoch: int, template: models.Classifier) -> models.Classifier:
        """Restores the classifier saved after `epoch`.

        Args:
          epoch: One of `epochs()`.
          template: A classifier of the same architecture, whose variables are replaced.

        Raises:
          InputError: The checkpoint belongs to another model.
          RunError: The checkpoint is missing or damaged.
        """
        variables = {'batch_stats': {}, **template.variables}
        saved = self._restore(epoch, variables=variables)['variables']
        return template.replace(variables={name: saved[name] for name in template.variables})

    def check_classifier(self, epoch: int, template: models.Classifier) -> None:
        """Checks the names, types and shapes of the variables saved after `epoch` against a template.

        Raises:
          InputError: The checkpoint belongs to another model.
          RunError: The checkpoint is missing or damaged.
        """
        self._check(self._meta(epoch), epoch, variables={'batch_stats': {}, **template.variables})

    def digest(self, epoch: int) -> str:
        """Returns the SHA-256 of the variables saved after `epoch`, as recorded when they were saved.

        Raises:
          RunError: The checkpoint is missing or damaged.
        """
        return self._meta(epoch)['sha256']['variables']

    def set_aside(self, epoch: int) -> epath.Path:
        """Moves one checkpoint out of the way and returns its new path.

        Raises:
          RunError: It cannot be moved.
        """
        aside = self.directory.parent / f'damaged_epoch{epoch}'

        def move():
            aside.rmtree(missing_ok=True)
            self._path(epoch).rename(aside)

        _guard(f'move {self._path(epoch)} to {aside}', move)
        return aside

    def close(self) -> None:
        """Releases the directory; a save that failed was reported by `save` or `wait`."""
        if self._manager is not None:
            with contextlib.suppress(Exception):
                self._manager.close()

    def _make_manager(self) -> ocp.CheckpointManager:
        policy = None if self._keep_all else ocp.checkpoint_managers.LatestN(2)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy, create=False, multiprocessing_options=_this_process()
        )
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            return ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise errors.RunError(f'cannot use {self.directory} for checkpoints: {io.reason(error)}') from error

    def _path(self, epoch: int) -> epath.Path:
        return self.directory / str(epoch)

    def _marker(self, epoch: int) -> epath.Path:
        """Returns the file whose presence marks the state of the optimizer as available."""
        return self._path(epoch) / 'optimizer' / '_METADATA'

    def _meta(self, epoch: int) -> dict:
        def read():
            meta = ocp.JsonCheckpointHandler().restore(self._path(epoch) / 'meta')
            if not _is_meta(meta):
                raise ValueError(f'meta must hold the leaves and the SHA-256 of {" and ".join(ITEMS)}')
            return meta

        return _guard(f'read checkpoint {self._path(epoch)}', read)

    def _check(self, meta: dict, epoch: int, **templates) -> None:
        for name, template in templates.items():
            saved, expected = meta['leaves'][name], _describe_leaves(template)
            for leaf in sorted(saved.keys() | expected.keys()):
                if saved.get(leaf) != expected.get(leaf):
                    raise errors.InputError(
                        f'checkpoint {self._path(epoch)} belongs to another model or optimizer: {name}{leaf} is '
                        f'{saved.get(leaf, "missing")} there and {expected.get(leaf, "missing")} here'
                    )

    def _restore(self, epoch: int, **templates) -> dict:
        meta = self._meta(epoch)
        self._check(meta, epoch, **templates)

        def read():
            shapes = {
                name: jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
                for name, template in templates.items()
            }
            restored = {}
            for name, shape in shapes.items():
                options = {'multiprocessing_options': _this_process()}
                handler = ocp.StandardCheckpointHandler(**options)
                with ocp.Checkpointer(handler, **options) as checkpointer:
                    arguments = ocp.args.StandardRestore(shape)
                    restored[name] = checkpointer.restore(self._path(epoch) / name, args=arguments)
                if digests.of_arrays(restored[name]) != meta['sha256'][name]:
                    raise ValueError(f'the SHA-256 of its {name} is not the one recorded when it was saved')
            return restored

        return _guard(f'read checkpoint {self._path(epoch)}', read)


def _this_process() -> ocp.options.MultiprocessingOptions:
    """The options with which Orbax does not wait for other processes."""
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})


def _guard(what: str, work):
    """Runs `work` and turns whatever Orbax raises into one clear error."""
    try:
        return work()
    except Exception as error:
        reason = ' '.join(str(error).split('Traceback')[0].split()) or 'no reason given'
        if len(reason) > 240:  # Orbax puts what it was doing first and the cause last
            reason = f'{reason[:60]} ... {reason[-170:]}'
        raise errors.RunError(f'could not {what}: {type(error).__name__}: {reason}') from error


def _is_meta(meta: object) -> bool:
    """Returns whether the metadata read from a checkpoint have the form that `CheckpointStore.save` writes."""
    if not isinstance(meta, dict) or not all(isinstance(meta.get(entry), dict) for entry in ('leaves', 'sha256')):
        return False
    return all(isinstance(meta['leaves'].get(n), dict) and isinstance(meta['sha256'].get(n), str) for n in ITEMS)


def _describe_leaves(tree) -> dict[str, str]:
    """Returns the type and shape of each leaf by its path."""
    return {
        jax.tree_util.keystr(path): f'{np.dtype(leaf.dtype).name}{list(leaf.shape)}'
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
