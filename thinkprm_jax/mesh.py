"""The device mesh and the one table from logical axes to mesh axes.

Axes of the mesh: ``data`` (batch rows; parameters are copied), ``fsdp`` (batch rows; parameters are split and
gathered when used) and ``tensor`` (heads, feed-forward and vocabulary are split). They are Auto axes: arrays
carry shardings, XLA's partitioner inserts the collectives, and code says only what it wants kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from thinkprm_jax.errors import UserError

MESH_AXES = ("data", "fsdp", "tensor")

# Logical axis -> mesh axes. `embed` is the dimension that fsdp splits; `heads` and `kv_heads` are split by whole
# heads, and kv_heads are copied where there are fewer of them than tensor devices.
LOGICAL_AXES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
}


def make_mesh(data: int = 1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of data x fsdp x tensor devices; at most one of the sizes may be -1: whatever is left.

    Raises:
      UserError: a size is neither positive nor -1, or the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [data, fsdp, tensor]
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(
            "mesh: data, fsdp and tensor must be positive, or one of them -1, "
            f"not data={data} fsdp={fsdp} tensor={tensor}"
        )
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = max(len(devices) // known, 1)
    if math.prod(sizes) != len(devices):
        raise UserError(
            f"mesh: data={sizes[0]} x fsdp={sizes[1]} x tensor={sizes[2]} needs {math.prod(sizes)} devices, "
            f"there are {len(devices)}"
        )
    return Mesh(np.asarray(devices).reshape(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def partition_spec(mesh: Mesh, axes: Sequence[str | None], counts: Mapping[str, int]) -> PartitionSpec:
    """How an array with logical ``axes`` is split over ``mesh``.

    Args:
      axes: one logical name (or None: copied) per dimension.
      counts: how many indivisible units a logical axis has (heads, not columns); an axis whose units the mesh
        axes do not divide is copied instead of split.
    """
    entries: list[Any] = []
    for axis in axes:
        names = LOGICAL_AXES[axis] if axis is not None else ()
        names = tuple(name for name in names if mesh.shape[name] > 1)
        size = math.prod(mesh.shape[name] for name in names)
        if not names or counts.get(axis or "", size) % size:
            entries.append(None)
        else:
            entries.append(names if len(names) > 1 else names[0])
    return PartitionSpec(*entries)


def axis_counts(config: Any) -> dict[str, int]:
    """The indivisible units of each logical axis of a :class:`~thinkprm_jax.model.config.ModelConfig`."""
    return {
        "embed": config.hidden_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "mlp": config.intermediate_size,
        "vocab": config.vocab_size,
    }


def named_sharding(mesh: Mesh, axes: Sequence[str | None], counts: Mapping[str, int]) -> NamedSharding:
    """:func:`partition_spec` as a sharding."""
    return NamedSharding(mesh, partition_spec(mesh, axes, counts))
