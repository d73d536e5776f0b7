"""One Orbax checkpoint an epoch, with checksums of our own.

Orbax restores flipped bytes in array files without a word, and raises errors of many types for other damage. Each
checkpoint therefore carries the SHA-256 of its arrays, and whatever goes wrong at a restore becomes one clear error.
"""

import contextlib
import os
import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from rfn_jax import models
from rfn_jax.core import errors, files
from rfn_jax.training import state as state_lib


class CheckpointStore:
    """The checkpoints of one training run: `<directory>/<epoch>/{variables,optimiser,meta}`.

    Use it as a context manager, or call `close`.

    Args:
      directory: Where they lie; made when the first is saved.
      keep_all: Whether to keep every epoch (surrogates) or the latest two (targets).
    """

    def __init__(self, directory: os.PathLike | str, *, keep_all: bool):
        self.directory = pathlib.Path(directory).absolute()
        managers = ocp.checkpoint_managers
        policy = None if keep_all else managers.LatestN(2)
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, create=False)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise errors.RunError(f'cannot use {self.directory} for checkpoints: {error.strerror or error}') from error

    def __enter__(self) -> 'CheckpointStore':
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        if exception_type is None:
            self.wait()
        self.close()

    def epochs(self) -> list[int]:
        """The epochs whose checkpoints are finished, in order."""
        return sorted(self._manager.all_steps())

    def save(self, epoch: int, state: state_lib.TrainState) -> None:
        """Saves a state in the background.

        Raises:
          RunError: This checkpoint, or an earlier one that was still being written, could not be saved.
        """
        # Copies on the host: the next step donates the buffers while Orbax is still writing.
        variables = jax.tree.map(np.array, state.variables)
        optimiser = jax.tree.map(np.array, {'step': state.step, 'opt_state': state.opt_state})
        meta = {'epoch': epoch, 'sha256': {'variables': files.array_digest(variables)}}
        meta['sha256']['optimiser'] = files.array_digest(optimiser)
        items = ocp.args.Composite(
            variables=ocp.args.StandardSave(variables),
            optimiser=ocp.args.StandardSave(optimiser),
            meta=ocp.args.JsonSave(meta),
        )
        # An error may be that of the save before, which ran in the background.
        _guarded(f'save checkpoints in {self.directory}', lambda: self._manager.save(epoch, args=items))

    def wait(self) -> None:
        """Waits until everything is on disk.

        Raises:
          RunError: A checkpoint could not be saved.
        """
        _guarded(f'save checkpoints in {self.directory}', self._manager.wait_until_finished)

    def restore(self, epoch: int, template: state_lib.TrainState) -> state_lib.TrainState:
        """The state saved after `epoch`, as arrays on the host.

        Args:
          epoch: A number of `epochs()`.
          template: A state (or its shapes) of the same model and optimiser.

        Raises:
          RunError: The checkpoint is missing, damaged or of another model.
        """
        optimiser = {'step': template.step, 'opt_state': template.opt_state}
        saved = self._restore(epoch, variables=template.variables, optimiser=optimiser)
        return state_lib.TrainState(**saved['optimiser'], **saved['variables'])

    def restore_classifier(self, epoch: int, template: models.Classifier) -> models.Classifier:
        """The classifier saved after `epoch`.

        Args:
          epoch: A number of `epochs()`.
          template: A classifier of the same architecture, whose variables are replaced.

        Raises:
          RunError: The checkpoint is missing, damaged or of another model.
        """
        variables = {'batch_stats': {}, **template.variables}
        saved = self._restore(epoch, variables=variables)['variables']
        return template.replace(variables={name: saved[name] for name in template.variables})

    def digest(self, epoch: int) -> str:
        """The SHA-256 of the variables saved after `epoch`, as noted when they were saved."""
        items = ocp.args.Composite(meta=ocp.args.JsonRestore())
        what = f'read checkpoint {self.directory / str(epoch)}'
        return _guarded(what, lambda: self._manager.restore(epoch, args=items).meta['sha256']['variables'])

    def delete(self, epoch: int) -> None:
        """Deletes one checkpoint."""
        self._manager.delete(epoch)

    def close(self) -> None:
        """Lets go of the directory; a save that failed was reported by `save` or `wait`."""
        with contextlib.suppress(Exception):
            self._manager.close()

    def _restore(self, epoch: int, **templates) -> dict:
        def read():
            shapes = {
                name: jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
                for name, template in templates.items()
            }
            arguments = {name: ocp.args.StandardRestore(shape) for name, shape in shapes.items()}
            restored = self._manager.restore(epoch, args=ocp.args.Composite(meta=ocp.args.JsonRestore(), **arguments))
            for name, shape in shapes.items():
                _check_shapes(restored[name], shape)
                if files.array_digest(restored[name]) != restored['meta']['sha256'][name]:
                    raise ValueError(f'the SHA-256 of its {name} is not the one that was saved')
            return {name: restored[name] for name in templates}

        return _guarded(f'read checkpoint {self.directory / str(epoch)}', read)


def _guarded(what: str, work):
    """Runs `work`, and turns whatever Orbax raises into one clear error."""
    try:
        return work()
    except Exception as error:
        reason = ' '.join(str(error).split('Traceback')[0].split()) or 'no reason given'
        if len(reason) > 240:  # Orbax puts what it did first and the cause last
            reason = f'{reason[:60]} ... {reason[-170:]}'
        raise errors.RunError(f'could not {what}: {type(error).__name__}: {reason}') from error


def _check_shapes(restored, template) -> None:
    """Raises ValueError unless two trees have the same structure, shapes and types; Orbax does not ask for all of it."""
    found, wanted = (
        {
            jax.tree_util.keystr(path): (leaf.shape, leaf.dtype)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (restored, template)
    )
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(f'it is of another model: {name} is {found.get(name)} there, {wanted.get(name)} here')
