"""`--mesh`: which devices a program uses, as people write it, and the mesh of them.

    data=2,tensor=4    two copies of the model, each split over four devices
    data=-1            as many copies as there are devices
    auto               as few devices a copy as it needs memory, as many copies as that leaves

A program that judges or searches is one process with the devices of its own machine: several processes share the
work by shards, not by devices. Training has meshes over processes (:func:`.make_mesh`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from thinkprm_jax.errors import UserError

if TYPE_CHECKING:
    import jax
    from jax.sharding import Mesh

    from thinkprm_jax.distributed.mesh import DecoderSizes

AUTO = "auto"
OPTION = "--mesh"
_AXES = ("data", "fsdp", "tensor")  # MESH_AXES, which would load JAX


def parse_mesh(text: str, rest: bool = False) -> dict[str, int]:
    """``fsdp=4,tensor=4`` -> sizes; axes that are not named are 1.

    Args:
      rest: one size may be -1, whatever is left.
    Raises:
      UserError: one line that names what is wrong.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = (piece.strip() for piece in part.partition("="))
        if name not in _AXES:
            near = difflib.get_close_matches(name, _AXES, n=1, cutoff=0)[0]
            raise UserError(f"{OPTION} {text}: there is no axis {name!r}; did you mean {near}?")
        if name in sizes:
            raise UserError(f"{OPTION} {text}: {name} is given twice")
        if not (rest and size == "-1") and not (size.isdecimal() and size.isascii() and 0 < int(size) < 2**31):
            needs = "a positive number, or -1 for whatever is left" if rest else "a positive number"
            raise UserError(f"{OPTION} {text}: {name} needs {needs}, not {size!r}")
        sizes[name] = int(size)
    if list(sizes.values()).count(-1) > 1:
        raise UserError(f"{OPTION} {text}: one of the sizes may be -1, not two")
    return {name: sizes.get(name, 1) for name in _AXES}


def check_mesh(text: str | None) -> None:
    """UserError where the text can mean nothing; no device is looked at."""
    if text is not None and text != AUTO:
        parse_mesh(text, rest=True)


def local_mesh(sizes: Mapping[str, int], said: str, devices: Sequence[jax.Device] | None = None) -> Mesh | None:
    """The mesh of these sizes on the first of this process's devices; None: one device, the default one.

    Args:
      said: what the user wrote, for messages. devices: to take them from; None: all of this process.
    Raises:
      UserError: there are not so many.
    """
    import jax

    from thinkprm_jax.distributed.mesh import make_mesh

    there = jax.local_devices() if devices is None else list(devices)
    sizes = dict(sizes)
    known = math.prod(size for size in sizes.values() if size != -1)
    sizes = {name: max(len(there) // known, 1) if size == -1 else size for name, size in sizes.items()}
    wanted = math.prod(sizes.values())
    if wanted > len(there):
        raise UserError(f"{said} needs {wanted} devices, this process has {len(there)}")
    if wanted == 1 and there[0] == jax.local_devices()[0]:
        return None
    whole = devices is None and wanted == jax.device_count()
    return make_mesh(**sizes, devices=None if whole else there[:wanted])


def check_heads(mesh: Mesh | None, config: DecoderSizes, name: str, said: str) -> None:
    """UserError where a model's heads are not divided by the devices that are to share them."""
    tensor = 1 if mesh is None else mesh.shape["tensor"]
    if config.num_heads % tensor:
        raise UserError(f"{said}: the {config.num_heads} heads of {name} are no multiple of tensor={tensor}")


def automatic_mesh(
    slots_on: Callable[[Mesh | None], int], wanted: int, heads: Sequence[int]
) -> tuple[Mesh | None, int]:
    """The mesh of all devices of this process with as few of them a copy as its memory needs: so few that a copy
    has all the slots that are wanted, or, where none has, those with which all copies together have most.

    Args:
      slots_on: slots of a copy that has a mesh for itself, at most ``wanted``; UserError where it does not fit.
      heads: of the models of a copy.
    Returns: (the mesh, slots of a copy).
    Raises:
      UserError: that of ``slots_on``, where it does not fit even with all of them.
    """
    import jax

    count = jax.local_device_count()
    best, refused = (0, 0, 0), None
    for tensor in range(1, count + 1):
        if count % tensor or any(number % tensor for number in heads):
            continue
        try:
            slots = slots_on(local_mesh({"data": 1, "fsdp": 1, "tensor": tensor}, AUTO))
        except UserError as error:
            refused = error
            continue
        best = max(best, (slots * count // tensor, -tensor, slots))
        if slots >= wanted:
            best = (slots * count // tensor, -tensor, slots)
            break
    _, tensor, slots = best
    if not slots:
        assert refused is not None  # one device is always tried
        raise refused
    return local_mesh({"data": -1, "fsdp": 1, "tensor": -tensor}, AUTO), slots


def replicas(mesh: Mesh | None) -> int:
    """Copies of the model on a mesh."""
    return 1 if mesh is None else int(mesh.shape["data"])


def show_mesh(mesh: Mesh | None) -> str:
    """For people: ``data=2,tensor=4``."""
    if mesh is None:
        return "one device"
    return ",".join(f"{name}={size}" for name, size in mesh.shape.items() if size > 1) or "one device"
