"""Checkpoints of a training run, by Orbax v1: asynchronous, atomic, the last few kept.

A checkpoint holds the whole run at one step: the state's arrays, and a JSON record of the data position and the
resolved recipe. It is whole or none (:mod:`thinkprm_jax.checkpoint.places` says how, on a disk and in a bucket);
what a killed run left half-written is never read and is removed at the next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint import v1 as ocp

from thinkprm_jax.checkpoint.orbax_messages import quiet, reason
from thinkprm_jax.checkpoint.places import checkpoint_folder, delete, named_steps
from thinkprm_jax.errors import UserError
from thinkprm_jax.storage import Location


class CheckpointStore:
    """The ``checkpoints`` folder of a run. Close it (or use ``with``) to be sure that the last save is on disk."""

    def __init__(
        self, folder: str | Location, keep: int = 3, keep_every: int | None = None, read_only: bool = False
    ) -> None:
        """
        Args:
          folder: of this machine or at gs://.
          keep: the last so many stay. keep_every: so do those of a step that is a multiple of this.
          read_only: leaves what a run may be writing there at this moment alone.
        """
        quiet()
        self._folder = checkpoint_folder(folder)
        self._keep, self._keep_every = keep, keep_every
        self._deleted: set[int] = set()
        self._finishing = ThreadPoolExecutor(1, "checkpoints")
        try:
            self._checkpointer = ocp.training.Checkpointer(
                self._folder,
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),  # the caller does
                preservation_policy=ocp.training.preservation_policies.PreserveAll(),  # we delete
                cleanup_tmp_directories=not read_only,
            )
            steps = self.steps
        except Exception as error:
            raise UserError(f"{self._folder} cannot be read: {reason(error)}") from error
        self._under_way: Future[None] | None = None
        # What Orbax does not list it would pass over in silence, and the run would begin anew.
        # What it does list may be a folder with nothing in it.
        parts = ("state", "record")
        half = {
            step
            for step, path in named_steps(self._folder).items()
            if step not in steps or not all((path / part).exists() for part in parts)
        }
        if half:
            self._finishing.shutdown()
            self._checkpointer.close()
            raise self._not_read(max(half), "it is half a checkpoint")

    @property
    def latest_step(self) -> int | None:
        return max(self.steps, default=None)

    @property
    def steps(self) -> list[int]:
        return [found.step for found in self._checkpointer.checkpoints if found.step not in self._deleted]

    def save(self, step: int, state: Any, record: dict[str, Any]) -> None:
        """Starts a save and returns when the arrays have been copied; waits for a save still under way first.

        Args:
          state: a pytree of arrays. record: JSON values.
        """
        try:
            self._await_save()
            content = {"state": state, "record": record}
            saving = self._checkpointer.save_checkpointables_async(step, content, force=True)
            self._under_way = self._finishing.submit(self._finish, saving)
        except Exception as error:  # of this save, or of the one before, which ran until now
            raise self._not_written(error) from error

    def restore(self, abstract_state: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """The state and record of ``step`` (default: the latest), on the shardings of ``abstract_state``.

        Raises:
          UserError: it is damaged or of other shapes. An older one is never taken in its place.
        """
        step = self.latest_step if step is None else step
        try:
            loaded = self._checkpointer.load_checkpointables(step, {"state": abstract_state, "record": None})
        except Exception as error:  # Orbax and TensorStore raise what they like
            raise self._not_read(step, reason(error)) from error
        return loaded["state"], loaded["record"]

    def wait(self) -> None:
        """Until the save under way is on disk. Raises :class:`UserError` where it cannot be written."""
        try:
            self._await_save()
            self._checkpointer.wait()
        except Exception as error:
            raise self._not_written(error) from error

    def _await_save(self) -> None:
        """Waits for the save under way, and for the deletions after it."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def _finish(self, saving: Any) -> None:
        """In a thread: when a save is whole, those that are too many are deleted. Orbax would do so, too, but what
        a kill left of one in the middle would pass for a checkpoint."""
        saving.result()  # of one that is never asked Orbax keeps a thread and three open files
        old = self.steps[: -self._keep]
        for step in old:
            if self._keep_every is not None and step % self._keep_every == 0:
                continue
            self._deleted.add(step)
            if jax.process_index() == 0:
                delete(self._folder / str(step))

    def _not_read(self, step: int | None, why: str) -> UserError:
        return UserError(
            f"checkpoint {self._folder / str(step)} cannot be read: {why}; "
            "remove that folder to go on from the one before"
        )

    def _not_written(self, error: BaseException) -> UserError:
        """One line for what Orbax and TensorStore raise: OSError, or ValueError with an error number in it."""
        number = re.search(r"os_error_code='(\d+)'", str(error))
        if number is not None:
            why = os.strerror(int(number[1]))
        elif isinstance(error, OSError) and error.strerror:
            why = error.strerror
        else:
            why = f"{type(error).__name__}: {reason(error)}"
        step = self.latest_step
        left = "there is none before it" if step is None else f"the one of step {step} is whole"
        return UserError(f"a checkpoint in {self._folder} cannot be written: {why}; {left}")

    def close(self) -> None:
        """Raises as :meth:`wait` does."""
        try:
            self.wait()
        finally:
            self._finishing.shutdown()
            self._checkpointer.close()

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A failure under way has been told; closing would tell of a failed save once more.
        with contextlib.suppress(*([] if kind is None else [Exception])):
            self.close()


def weights_fingerprint(weights: Mapping[str, jax.Array], mesh: Mesh) -> str:
    """A hash of the exact bits of arrays by name, computed where they are: no host ever holds one.

    Of each array: the sum of bit pattern times an odd number that follows from the place, modulo 2^32. Such a sum
    does not depend on its order, so it is the same on every mesh; a single changed bit changes it.
    """

    # Array by array: in one program arrays of a shape share their places, which are then held, twice the weights.
    sum_of = jax.jit(_sum_of_bits, out_shardings=NamedSharding(mesh, PartitionSpec()))
    sums = jax.device_get({name: sum_of(array) for name, array in weights.items()})
    parts = [[name, list(array.shape), array.dtype.name, int(sums[name])] for name, array in weights.items()]
    return hashlib.blake2b(json.dumps(sorted(parts)).encode(), digest_size=16).hexdigest()


def _sum_of_bits(array: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(array, f"uint{array.dtype.itemsize * 8}").astype(jnp.uint32)
    place, stride = jnp.uint32(0), 1
    for axis in reversed(range(array.ndim)):
        place += jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= array.shape[axis]
    return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)
