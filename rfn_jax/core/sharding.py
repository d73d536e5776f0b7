"""Placement on a one-axis mesh over all devices.

The mesh has the axis `'data'`: batches are sharded along it, and states are replicated, or sharded as well if they are large.
On one device the same code runs without communication.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rfn_jax.core import errors

DATA_AXIS = 'data'


def data_mesh(devices=None) -> Mesh:
    """Returns a mesh with the single axis `'data'` over `devices` (by default, all of them)."""
    devices = np.asarray(jax.devices() if devices is None else devices)
    return Mesh(devices.reshape(-1), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def check_one_host() -> None:
    """Checks that this is the only process: compiled steps run on several hosts, but the code that writes files does not yet.

    Raises:
      InputError: There are several processes.
    """
    if jax.process_count() > 1:
        raise errors.InputError(
            f'training and experiments run on only one host for now, not on {jax.process_count()}; start one process'
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a value that every device holds in full."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a value whose first axis is sharded over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of several batches in one array: its second axis is sharded over the devices."""
    return NamedSharding(mesh, PartitionSpec(None, DATA_AXIS))


def of_state(tree, mesh: Mesh, *, shard: bool):
    """Returns the shardings of a training state: replicated, or sharded as in fully sharded data parallelism.

    Each array is sharded along the last axis whose size is a multiple of the number of devices; arrays without such an axis
    are replicated. Parameters must be gathered where they are used, with
    `jax.lax.with_sharding_constraint(params, replicated(mesh))`; otherwise XLA may shard the activations instead.

    Args:
      tree: Pytree of arrays or `jax.ShapeDtypeStruct`s.
      mesh: Mesh with the axis `'data'`.
      shard: Whether to shard the arrays.

    Returns:
      A pytree of `NamedSharding` with the structure of `tree`.
    """

    def of_leaf(leaf):
        spec = [None] * len(leaf.shape)
        axes = [axis for axis, size in enumerate(leaf.shape) if size and size % mesh.size == 0]
        if shard and axes and mesh.size > 1:
            spec[axes[-1]] = DATA_AXIS
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(of_leaf, tree)


def place(tree, shardings):
    """Returns a copy of `tree` on the devices of `shardings` (one sharding, or a pytree of them) that is safe to donate.

    `jax.device_put` may alias its argument; going through the host makes a copy, so donating the result does not affect the
    caller's arrays. Typed keys are not supported; states hold none.
    """
    return jax.device_put(jax.tree.map(np.array, tree), shardings)


def replicate(tree, mesh: Mesh):
    """Returns a copy of `tree` on every device of the mesh that is safe to donate; see `place`."""
    return place(tree, replicated(mesh))


def replicate_key(key: jax.Array, mesh: Mesh) -> jax.Array:
    """Puts a typed key on every device of the mesh, across all processes."""
    return jax.random.wrap_key_data(replicate(jax.random.key_data(key), mesh))


def shard_batch(batch, mesh: Mesh):
    """Puts a host batch (a pytree of arrays with the same first axis) on the mesh, sharded along `'data'`.

    Raises:
      ValueError: The first axis is not a multiple of the number of devices.
    """
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(batch)}
    if any(size % mesh.size for size in sizes):
        raise ValueError(f'a batch of {sorted(sizes)} examples does not divide evenly over {mesh.size} devices')
    return jax.device_put(batch, batch_sharding(mesh))


def local_rows(count: int, mesh: Mesh) -> np.ndarray:
    """Returns which rows of a batch of `count` rows the devices of this process hold, in order."""
    held = batch_sharding(mesh).addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[index] for index in held]))


def from_local(local: np.ndarray, placed: NamedSharding, count: int, *, axis: int = 0) -> jax.Array:
    """Builds a global array to which each process contributes the rows given by `local_rows`.

    Args:
      local: The rows of this process, along `axis`.
      placed: The sharding of the result.
      count: Number of rows of the global array.
      axis: The axis that is sharded over the devices.
    """
    shape = (*local.shape[:axis], count, *local.shape[axis + 1 :])
    return jax.make_array_from_process_local_data(placed, local, shape)
