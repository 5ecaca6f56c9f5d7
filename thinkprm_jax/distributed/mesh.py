"""Starting several processes, the device mesh, and the one table from logical axes to mesh axes.

Axes of the mesh: ``data`` (batch rows; parameters are copied), ``fsdp`` (batch rows; parameters are split and
gathered when used) and ``tensor`` (heads, feed-forward and vocabulary are split). They are Auto axes: arrays
carry shardings, XLA's partitioner inserts the collectives, and code says only what it wants kept.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from thinkprm_jax.distributed.rendezvous import Launch, ProcessGroup, find_launch, rendezvous
from thinkprm_jax.errors import UserError

logger = logging.getLogger(__name__)

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


class Processes:
    """The processes of this run, from :func:`start_processes`. As a context it ends them together: cleanly, or,
    where this one fails, at once (no collective operation would finish without it)."""

    def __init__(self, description: str, launch: Launch | None = None, group: ProcessGroup | None = None) -> None:
        self.description = description
        self._launch, self._group = launch, group

    @property
    def count(self) -> int:
        return jax.process_count()

    @property
    def first(self) -> bool:
        """Whether this is process 0, which speaks and writes for all."""
        return jax.process_index() == 0

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not jax.distributed.is_initialized():
            return
        if kind is None:
            if self._group is not None:
                self._group.leave()
            jax.distributed.shutdown()
            return
        if self._group is not None:
            known = isinstance(error, (UserError, KeyboardInterrupt))
            if not known:
                time.sleep(2.0)  # if another process ended first, that is the cause: the watch says so and ends us
            self._group.break_off(str(error) if known else kind.__name__)
        # JAX would now wait for the others, and abort after that; they have been told.
        status = 2 if isinstance(error, UserError) else 130 if isinstance(error, KeyboardInterrupt) else 1
        atexit.register(_end, status)


def _end(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def start_processes(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    start_timeout: float = 300.0,
    heartbeat_timeout: int = 100,
) -> Processes:
    """Joins the processes of a run into one JAX system. Call it before anything touches a device.

    In this order: the arguments and the variables JAX_COORDINATOR_ADDRESS (`host:port` of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID; a SLURM step with several tasks (one process each, one for a GPU or one
    for a host); a TPU slice of several hosts. Where none of them is there, nothing happens: one process.

    Args:
      start_timeout: seconds for all processes to come.
      heartbeat_timeout: seconds without a sign of life after which JAX gives a process up. Outside TPU slices an
        ended process is noticed at once; see :mod:`thinkprm_jax.distributed.rendezvous`.
    Raises:
      UserError: half a description, an id given twice, the coordinator or some process did not come in time.
    """
    if jax.distributed.is_initialized():
        return Processes("JAX's processes were joined before")
    launch = find_launch(coordinator, processes, process)
    options: dict[str, Any] = {
        "initialization_timeout": math.ceil(start_timeout),
        "heartbeat_timeout_seconds": heartbeat_timeout,
        "shutdown_timeout_seconds": 60,
    }
    # JAX's preemption service takes SIGTERM away from the whole process, also where nobody asks the service; the
    # training loop agrees on a step by itself.
    with contextlib.suppress(AttributeError):
        jax.config.update("jax_enable_preemption_service", False)
    if launch is not None:
        group = ProcessGroup(launch, rendezvous(launch, start_timeout))
        jax.distributed.initialize(
            launch.address,
            launch.processes,
            launch.process,
            local_device_ids=launch.local_devices,
            cluster_detection_method="deactivate",
            **options,
        )
        return Processes(
            f"process {launch.process} of {launch.processes} ({launch.source}, coordinator {launch.address})",
            launch,
            group,
        )
    if _may_be_tpu_slice():
        try:
            jax.distributed.initialize(**options)
        except ValueError:  # JAX found no description of a slice: one host
            return Processes("one process")
        except RuntimeError as error:
            raise UserError(f"the hosts of the TPU slice: {error}") from None
        return Processes(f"process {jax.process_index()} of {jax.process_count()} (TPU slice)")
    return Processes("one process")


def _may_be_tpu_slice() -> bool:
    """Whether this is a Cloud TPU host, which JAX can ask for the other hosts of its slice."""
    if "tpu" not in os.environ.get("JAX_PLATFORMS", "tpu") or importlib.util.find_spec("libtpu") is None:
        return False
    if any(os.environ.get(name) for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")):
        return True
    # A machine of Compute Engine knows its slice by its metadata server.
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev").glob("vfio/[0-9]*")]
    return bool(chips) and "TPU_SKIP_MDS_QUERY" not in os.environ


def make_mesh(data: int = 1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of data x fsdp x tensor devices; at most one of the sizes may be -1: whatever is left.

    Example:

        mesh = make_mesh(data=-1)  # all devices
        prm = ThinkPRM("mini", mesh=mesh, slots=8 * mesh.size)

    Args:
      data: copies of the model, each with its part of a batch. fsdp: devices that share one copy's parameters and
        its part of the batch. tensor: devices that share the heads and the feed-forward width.
      devices: these, in this order; None: all devices of all processes, neighbours of the interconnect in order of
        tensor, fsdp, data (the traffic falls in that order).
    Raises:
      UserError: a size is neither positive nor -1, or the sizes do not multiply to the number of devices.
    """
    arrange = devices is None
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
    placed = _by_topology(sizes, devices) if arrange else np.asarray(devices).reshape(sizes)
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def _by_topology(sizes: Sequence[int], devices: Sequence[jax.Device]) -> np.ndarray:
    """Devices [data, fsdp, tensor] so that inner axes use the fastest links. On several TPU slices, which only the
    data centre's network joins, `data` (else `fsdp`) runs over the slices."""
    if devices[0].platform == "cpu":
        return np.asarray(devices).reshape(sizes)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    for axis in (0, 1):
        if sizes[axis] % slices == 0:
            outer = [slices if i == axis else 1 for i in range(3)]
            inner = [size // over for size, over in zip(sizes, outer, strict=True)]
            return mesh_utils.create_hybrid_device_mesh(inner, outer, devices, allow_split_physical_axes=True)
    raise UserError(
        f"mesh: data={sizes[0]} or fsdp={sizes[1]} must be a multiple of the {slices} slices of the devices"
    )


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


class DecoderSizes(Protocol):
    """What of a :class:`~thinkprm_jax.model.config.ModelConfig` says how its arrays may be split."""

    @property
    def hidden_size(self) -> int: ...

    @property
    def num_heads(self) -> int: ...

    @property
    def num_kv_heads(self) -> int: ...

    @property
    def intermediate_size(self) -> int: ...

    @property
    def vocab_size(self) -> int: ...


def axis_counts(config: DecoderSizes) -> dict[str, int]:
    """The indivisible units of each logical axis."""
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
