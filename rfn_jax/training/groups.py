"""m-sharpness: each group of m examples of the batch gets its own perturbation.

A group consists of m consecutive examples of the *global* batch, so that the result depends on m and not on the number of
devices. The devices form a grid of groups by members: with G groups and D devices, each of gcd(G, D) rows of devices
processes G / gcd(G, D) groups, one after another, and the devices of a row share the examples of a group. If each device
holds whole groups (m divides B / D), nothing is communicated until the gradients are averaged: one all-reduce per step.

Axes: `B` examples of the batch, `G` groups, `m` examples of a group.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MEMBERS = PartitionSpec('member')


def mean_over_groups(
    work: Callable[..., Any], shared: Any, images: jax.Array, labels: jax.Array, *, group_size: int, mesh: Mesh
) -> Any:
    """Computes the mean of `work(shared, images, labels, group_index)` over all groups.

    Args:
      work: Function of the values that all groups share, of the images `[m, H, W, C]` and labels `[m, ...]` of a group, and
        of the index of the group in the batch; returns a pytree of floating-point arrays.
      shared: Pytree of arrays.
      images: `[B, H, W, C]`.
      labels: int32 `[B]`, or probabilities `[B, K]`.
      group_size: m, a divisor of B.
      mesh: Mesh with the axis `'data'`, along which the batch is sharded; its size divides B.

    Returns:
      The result of `work`, averaged over the groups.
    """
    groups = len(labels) // group_size
    rows = math.gcd(groups, mesh.size)
    grid = Mesh(
        np.asarray(mesh.devices).reshape(rows, -1), ('group', 'member'), axis_types=(AxisType.Auto, AxisType.Auto)
    )

    def one_row(shared, images, labels):
        count = len(labels) // group_size
        first = jax.lax.axis_index('group') * count
        grouped = tuple(x.reshape(count, group_size, *x.shape[1:]) for x in (images, labels))

        def body(total, group):
            index, *examples = group
            return jax.tree.map(jnp.add, total, work(shared, *shard_over_members(examples), index)), None

        shapes = jax.eval_shape(work, shared, *(x[0] for x in grouped), first)
        total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        total, _ = jax.lax.scan(body, total, (first + jnp.arange(count), *grouped))
        return jax.tree.map(lambda leaf: leaf / groups, jax.lax.psum(total, 'group'))

    sharded, whole = PartitionSpec('group'), PartitionSpec()
    # Without the check of varying values, a gradient with respect to shared parameters remains that of the row.
    return jax.shard_map(
        one_row, mesh=grid, in_specs=(whole, sharded, sharded), out_specs=whole, axis_names={'group'}, check_vma=False
    )(shared, images, labels)


def shard_over_members(examples: Any) -> Any:
    """Shards examples of a group along their first axis over the devices that share it; only inside `mean_over_groups`."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.lax.with_sharding_constraint(examples, NamedSharding(mesh, MEMBERS))
