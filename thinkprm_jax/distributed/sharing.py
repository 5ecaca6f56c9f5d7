"""Another program's mesh as one of ours: any names of axes, all of its devices or some."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.sharding import AxisType, Mesh

from thinkprm_jax.distributed.mesh import MESH_AXES
from thinkprm_jax.errors import UserError

# What others call the axes of ours (Tunix, MaxText, EasyDeL, Levanter, sglang-jax, torch's device meshes).
_NAMES = {
    "data": ("data", "dp", "batch", "replica", "replicas", "ddp", "data_parallel"),
    "fsdp": ("fsdp", "zero", "shard", "dp_shard", "fully_sharded"),
    "tensor": ("tensor", "tp", "model", "mp", "tensor_parallel", "model_parallel"),
}
_GUESSES = {name: ours for ours, names in _NAMES.items() for name in names}


def share_mesh(mesh: Mesh, axes: Mapping[str, str] | None = None, take: Mapping[str, int] | None = None) -> Mesh:
    """A mesh of ours on the devices of another one, so that a verifier runs where a policy is trained. It is the
    same mesh for whoever asks again, and no array is moved; one with our axes comes back as it is.

    Example:

        import jax
        policy_mesh = jax.make_mesh((1, 1), ("dp", "tp"), devices=jax.devices()[:1])
        prm = ThinkPRM("mini", mesh=share_mesh(policy_mesh))

    Args:
      mesh: of any axes.
      axes: its axis -> ``"data"``, ``"fsdp"`` or ``"tensor"`` (:func:`make_mesh`); several may go to one. What is
        left out is guessed: ``dp`` is data, ``tp`` and ``model`` are tensor, and so on.
      take: its axis -> how many of its devices along it, the first ones; the others are left to the policy.
    Raises:
      UserError: an axis of more than one device has a name that tells nothing, or there is no such axis or size.
    """
    axes, take = dict(axes or {}), dict(take or {})
    for what, names in (("axes", list(axes)), ("take", list(take))):
        for name in names:
            if name not in mesh.axis_names:
                raise UserError(f"{what}: the mesh has no axis {name!r} (it has: {', '.join(mesh.axis_names)})")
    devices = mesh.devices
    for place, name in enumerate(mesh.axis_names):
        count = take[name] if name in take else devices.shape[place]
        if not 1 <= count <= devices.shape[place]:
            raise UserError(f"take: {count} of the {devices.shape[place]} devices along {name!r}")
        devices = devices.take(range(count), axis=place)
    places: dict[str, list[int]] = {name: [] for name in MESH_AXES}
    for place, name in enumerate(mesh.axis_names):
        target = axes.get(name, _GUESSES.get(name.lower()))
        if target is None and devices.shape[place] > 1:
            raise UserError(
                f"the mesh's axis {name!r} has a name that tells nothing: "
                f'say axes={{{name!r}: "data"}}, or "fsdp" or "tensor"'
            )
        if target is not None and target not in MESH_AXES:
            raise UserError(f"axes: {name!r} is {target!r}, it must be one of {', '.join(MESH_AXES)}")
        places[target or "data"].append(place)
    order = [place for name in MESH_AXES for place in places[name]]
    sizes = [int(np.prod([devices.shape[place] for place in places[name]])) for name in MESH_AXES]
    return Mesh(devices.transpose(order).reshape(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def our_mesh(mesh: Mesh | None) -> Mesh | None:
    """The same for whoever takes a mesh: one of ours, or another one by its names.

    Raises:
      UserError: as of :func:`share_mesh`, which takes what is to be said.
    """
    is_ours = mesh is None or (mesh.axis_names == MESH_AXES and set(mesh.axis_types) == {AxisType.Auto})
    return mesh if is_ours or mesh is None else share_mesh(mesh)
