"""Placement on a mesh over all devices.

The mesh has the axes `'data'` and `'fsdp'`, and batches are sharded along both. States are replicated, or sharded as well if
they are large: over all devices, or along `'fsdp'` alone, with a copy for each position along `'data'`. On one device, the
same code runs without communication.
"""

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rfn_jax.core import numerics

DATA_AXIS, FSDP_AXIS = AXES = ('data', 'fsdp')
SMALLEST_SHARDED = numerics.SMALL  # so that the arrays that norms join are whole on every device


def data_mesh(devices=None, *, fsdp: int = 1) -> Mesh:
    """Returns a mesh with the axes `'data'` and `'fsdp'`.

    Args:
      devices: The devices; by default, all of them. Those of a host, and those of a slice, are next to each other.
      fsdp: Size of the axis `'fsdp'`, along which devices are consecutive: a divisor of their number. With no more than a
        slice has, only gradients go from one slice to another.
    """
    devices = np.asarray(jax.devices() if devices is None else devices)
    return Mesh(devices.reshape(-1, fsdp), AXES, axis_types=(AxisType.Auto, AxisType.Auto))


def local_mesh(mesh: Mesh) -> Mesh:
    """Returns the mesh over those devices of a mesh that belong to this process, on which it works without the others."""
    return data_mesh([device for device in mesh.devices.flat if device.process_index == jax.process_index()])


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a value that every device holds in full."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a value whose first axis is sharded over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of several batches in one array: its second axis is sharded over the devices."""
    return NamedSharding(mesh, PartitionSpec(None, AXES))


def of_state(tree, mesh: Mesh, *, shard: bool):
    """Returns the shardings of a training state: replicated, or sharded as in fully sharded data parallelism.

    Each array is sharded along the last axis whose size is a multiple of the number of devices that share a copy. Arrays
    without such an axis are replicated, and so are small ones, such as those of normalizations: to shard them would save
    little memory and send thousands of tiny messages. Parameters must be gathered where they are used, with
    `jax.lax.with_sharding_constraint(params, replicated(mesh))`; otherwise XLA may shard the activations instead.

    Args:
      tree: Pytree of arrays or `jax.ShapeDtypeStruct`s.
      mesh: The mesh. The devices along its axis `'fsdp'` share a copy of the arrays; if there is only one, all devices do.
      shard: Whether to shard the arrays.

    Returns:
      A pytree of `NamedSharding` with the structure of `tree`.
    """
    shared_by = (FSDP_AXIS,) if mesh.shape[FSDP_AXIS] > 1 else AXES
    count = math.prod(mesh.shape[axis] for axis in shared_by)

    def of_leaf(leaf):
        spec = [None] * len(leaf.shape)
        axes = [axis for axis, size in enumerate(leaf.shape) if size and size % count == 0]
        if shard and axes and count > 1 and math.prod(leaf.shape) >= SMALLEST_SHARDED:
            spec[axes[-1]] = shared_by
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(of_leaf, tree)


def place(tree, shardings):
    """Returns a copy of `tree` on the devices of `shardings` (one sharding, or a pytree of them) that is safe to donate.

    `jax.device_put` may alias its argument; going through the host makes a copy, so donating the result does not affect the
    caller's arrays. With several processes, each holds all of `tree`. Typed keys are not supported; states hold none.
    """
    if jax.tree.structure(shardings) != jax.tree.structure(tree):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(lambda leaf, placed: _put(np.array(leaf), placed), tree, shardings)


def replicate(tree, mesh: Mesh):
    """Returns a copy of `tree` on every device of the mesh that is safe to donate; see `place`."""
    return place(tree, replicated(mesh))


def replicate_key(key: jax.Array, mesh: Mesh) -> jax.Array:
    """Puts a typed key on every device of the mesh, across all processes."""
    return jax.random.wrap_key_data(replicate(jax.random.key_data(key), mesh))


def shard_batch(batch, mesh: Mesh):
    """Puts a host batch (a pytree of arrays with the same first axis) on the mesh, sharded over its devices.

    Raises:
      ValueError: The first axis is not a multiple of the number of devices.
    """
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(batch)}
    if any(size % mesh.size for size in sizes):
        raise ValueError(f'a batch of {sorted(sizes)} examples does not divide evenly over {mesh.size} devices')
    return jax.tree.map(lambda leaf: _put(np.asarray(leaf), batch_sharding(mesh)), batch)


def to_local(tree, mesh: Mesh):
    """Returns a pytree of arrays, on the mesh or anywhere in this process, as arrays that its devices hold in full."""
    placed = replicated(local_mesh(mesh))
    if all(getattr(leaf, 'is_fully_addressable', True) for leaf in jax.tree.leaves(tree)):
        return jax.device_put(tree, placed)

    def of_leaf(leaf: jax.Array) -> jax.Array:
        return jax.make_array_from_single_device_arrays(leaf.shape, placed, [s.data for s in leaf.addressable_shards])

    return jax.tree.map(of_leaf, jax.jit(_identity, out_shardings=replicated(mesh))(tree))


def _identity(tree):
    return tree


def _put(array: np.ndarray, placed: NamedSharding) -> jax.Array:
    """Puts an array on the devices of all processes, each of which has all of it; `jax.device_put` would compare them."""
    if placed.is_fully_addressable:
        return jax.device_put(array, placed)
    return jax.make_array_from_callback(array.shape, placed, lambda index: array[index])


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
