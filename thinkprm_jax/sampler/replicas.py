"""Data replicas: copies of a model on disjoint parts of a mesh, each with a decode loop of its own.

A mesh of ``data`` devices (times ``fsdp`` and ``tensor``) could run one program over all of them. Chains end when
they like, though, and in one program every device would wait for the last of all. So a sampler cuts the mesh
along ``data``: every part is a :class:`.Worker` with a thread, a cache and programs of its own, and all are fed
from the sampler's one queue. Between parts nothing is exchanged, so no part ever waits for another.

    parts      sub-meshes [1, fsdp, tensor]
    functions  a part's programs; parts of one device share what is traced, and compile it for their device
    views      the shards of the weights that a part holds, as arrays of that part: nothing is copied

A mesh over several processes is not cut: there every process has to start the same programs.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from thinkprm_jax.distributed.mesh import MESH_AXES
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.parameters import parameter_shardings
from thinkprm_jax.model.products import Products
from thinkprm_jax.sampler.device import DeviceFunctions, device_functions


def cut_mesh(mesh: Mesh | None) -> list[Mesh | None]:
    """The parts of a mesh along ``data``; the mesh alone where there is one part, or where other processes have
    devices of it."""
    if mesh is None or mesh.shape["data"] == 1 or mesh.is_multi_process:
        return [mesh]
    rows = np.split(mesh.devices, mesh.shape["data"])
    return [Mesh(row, MESH_AXES, axis_types=mesh.axis_types) for row in rows]


def needs_turns(mesh: Mesh | None) -> bool:
    """Whether two samplers on this mesh must take turns: where a program's devices exchange data, two programs
    that start in another order on each of them wait for each other for ever."""
    return any(part is not None and part.size > 1 for part in cut_mesh(mesh))


def part_functions(
    graph: nnx.GraphDef, parts: Sequence[Mesh | None], chunk: int, products: Products
) -> list[DeviceFunctions]:
    """The programs of each part."""
    if len(parts) == 1:
        return [device_functions(graph, parts[0], chunk, products)]
    return [
        device_functions(graph, part, chunk, products)
        if part is None or part.size > 1
        else device_functions(graph, None, chunk, products).on(part.devices.item())
        for part in parts
    ]


class PartViews:
    """A model's weights as each part of the mesh has them.

    Views live as long as all of the weights they are of: they never keep memory of weights that others have let
    go of.

    Args:
      model: its architecture. parts: of the mesh.
    """

    def __init__(self, model: Decoder, parts: Sequence[Mesh | None]) -> None:
        self._parts = parts
        self._expected: list[Mapping[str, Sharding]] = [
            {} if part is None or len(parts) == 1 else parameter_shardings(model.config, part, model.quantization)
            for part in parts
        ]
        self._snapshot: weakref.ref[nnx.State] | None = None
        self._sources: list[weakref.ref[Any]] = []
        self._views: list[nnx.State] = []

    def of(self, snapshot: nnx.State) -> Sequence[nnx.State]:
        """For each part the parameters to compute with."""
        if len(self._parts) == 1:
            return [snapshot]
        if self._snapshot is not None and self._snapshot() is snapshot and self._views:
            return self._views
        values = jax.tree.leaves(snapshot)
        same = len(values) == len(self._sources) and all(
            seen() is value for seen, value in zip(self._sources, values, strict=True)
        )
        if not (same and self._views):
            self._views = [self._view(snapshot, number) for number in range(len(self._parts))]
            forget = _forgetting(weakref.ref(self))
            self._sources = [weakref.ref(value, forget) for value in values]
        self._snapshot = weakref.ref(snapshot)
        return self._views

    def forget(self) -> None:
        self._views, self._sources, self._snapshot = [], [], None

    def _view(self, snapshot: nnx.State, number: int) -> nnx.State:
        flat = [
            (path, variable.replace(self._part_of(".".join(map(str, path)), variable.get_raw_value(), number)))
            for path, variable in nnx.to_flat_state(snapshot)
        ]
        return nnx.from_flat_state(flat)

    def _part_of(self, path: str, value: Any, number: int) -> Any:
        part = self._parts[number]
        if part is None or not isinstance(value, jax.Array):
            return value
        target = self._sharding(path, value, number)
        devices = list(part.devices.flat)
        if value.sharding.device_set.issuperset(devices):
            held = value.sharding.devices_indices_map(value.shape)
            wanted = target.devices_indices_map(value.shape)
            if all(held[device] == wanted[device] for device in devices):
                shards = {shard.device: shard.data for shard in value.addressable_shards}
                if len(devices) == 1:
                    return shards[devices[0]]
                pieces = [shards[device] for device in devices]
                return jax.make_array_from_single_device_arrays(value.shape, target, pieces)
        # It lies elsewhere, or is split over the parts: each gets what it needs.
        return jax.device_put(value, target)

    def _sharding(self, path: str, value: jax.Array, number: int) -> Sharding:
        """Where a part has a parameter: split as now, where its mesh has our axes; else as our models are."""
        part = self._parts[number]
        assert part is not None
        if part.size == 1:
            return SingleDeviceSharding(part.devices.item())
        spec = getattr(value.sharding, "spec", None)
        known = isinstance(value.sharding, NamedSharding) and value.sharding.mesh.axis_names == MESH_AXES
        if known and spec is not None:
            return NamedSharding(part, spec)
        return self._expected[number].get(path, NamedSharding(part, PartitionSpec()))


def _forgetting(views: weakref.ref[PartViews]) -> Any:
    def forget(_: weakref.ref[Any]) -> None:
        found = views()
        if found is not None:
            found.forget()

    return forget
