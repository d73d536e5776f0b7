"""Placement on a one-axis mesh over all devices.

The mesh has the axis `'data'`: batches are cut along it, and states are replicated, or cut as well where they are large. On
one device the same code runs without communication.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rfn_jax.core import errors

DATA_AXIS = 'data'


def data_mesh(devices=None) -> Mesh:
    """A mesh with the single axis `'data'` over `devices` (all by default)."""
    devices = np.asarray(jax.devices() if devices is None else devices)
    return Mesh(devices.reshape(-1), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def check_one_host() -> None:
    """Checks that this process is the only one: compiled steps run on several hosts, what writes files so far does not.

    Raises:
      InputError: There are several.
    """
    if jax.process_count() > 1:
        raise errors.InputError(
            f'networks are trained and experiments run on one host so far, not on {jax.process_count()}; start one process'
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a value whose first axis is cut over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of several batches in one array: its second axis is cut over the devices."""
    return NamedSharding(mesh, PartitionSpec(None, DATA_AXIS))


def of_state(tree, mesh: Mesh, *, cut: bool):
    """Shardings of a training state: whole on every device, or cut as fully sharded data parallelism does.

    Of each array the last axis whose size is a multiple of the number of devices is cut; arrays without one are whole.
    Parameters must be gathered where they are used, by `jax.lax.with_sharding_constraint(params, replicated(mesh))`, or XLA
    may cut the activations instead.

    Args:
      tree: Pytree of arrays or `jax.ShapeDtypeStruct`s.
      mesh: Mesh with the axis `'data'`.
      cut: Whether to cut.

    Returns:
      A pytree of `NamedSharding` with the structure of `tree`.
    """

    def of_leaf(leaf):
        spec = [None] * len(leaf.shape)
        axes = [axis for axis, size in enumerate(leaf.shape) if size and size % mesh.size == 0]
        if cut and axes and mesh.size > 1:
            spec[axes[-1]] = DATA_AXIS
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(of_leaf, tree)


def place(tree, shardings):
    """A copy of `tree` on the devices of `shardings` (one, or a pytree of them), safe to donate.

    `jax.device_put` may alias its argument; going through the host makes a copy, so that donating the result leaves
    the caller's arrays alone. Typed keys are not supported; states keep none.
    """
    return jax.device_put(jax.tree.map(np.array, tree), shardings)


def replicate(tree, mesh: Mesh):
    """A copy of `tree` on every device of the mesh, safe to donate; see `place`."""
    return place(tree, replicated(mesh))


def replicate_key(key: jax.Array, mesh: Mesh) -> jax.Array:
    """A typed key on every device of the mesh, of all processes."""
    return jax.random.wrap_key_data(replicate(jax.random.key_data(key), mesh))


def shard_batch(batch, mesh: Mesh):
    """Puts a host batch (a pytree of arrays with the same first axis) on the mesh, cut along `'data'`.

    Raises:
      ValueError: The first axis is not a multiple of the number of devices.
    """
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(batch)}
    if any(size % mesh.size for size in sizes):
        raise ValueError(f'a batch of {sorted(sizes)} examples does not divide over {mesh.size} devices')
    return jax.device_put(batch, batch_sharding(mesh))


def local_rows(count: int, mesh: Mesh) -> np.ndarray:
    """Which rows of a batch of `count` the devices of this process hold, in order."""
    held = batch_sharding(mesh).addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[index] for index in held]))


def from_local(local: np.ndarray, placed: NamedSharding, count: int, *, axis: int = 0) -> jax.Array:
    """The global array of which each process gives the rows that `local_rows` names.

    Args:
      local: The rows of this process, along `axis`.
      placed: The sharding of the result.
      count: Rows of the global array.
      axis: The axis that is cut over the devices.
    """
    shape = (*local.shape[:axis], count, *local.shape[axis + 1 :])
    return jax.make_array_from_process_local_data(placed, local, shape)
