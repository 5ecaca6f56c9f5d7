"""The weights inside a checkpoint of a training run, read one at a time onto the host.

For export: no optimizer state is read, no device is used, and the host never holds more than one parameter, so a
run that needed a pod can be exported on any machine that sees its files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from orbax.checkpoint import v1 as ocp

from thinkprm_jax.checkpoint.orbax_messages import quiet, reason
from thinkprm_jax.checkpoint.places import checkpoint_folder, is_there
from thinkprm_jax.errors import UserError
from thinkprm_jax.storage import Location

Content = TypeVar("Content")


class SavedWeights:
    """One checkpoint of the ``checkpoints`` folder of a run, which may still be training. Use ``with``.

    Attributes:
      step, path: of the checkpoint.
      shapes: of every parameter that was trained, by dotted path.
      record: the JSON values beside the state.
    """

    def __init__(self, folder: str | Location, step: int | None = None) -> None:
        """``step``: default the last one. Raises `UserError`: there is none, or it cannot be read."""
        quiet()
        self._folder = checkpoint_folder(folder)
        partly = ocp.Context()
        partly.pytree.loading.partial_load = True  # one parameter without the others
        try:
            self._checkpointer = ocp.training.Checkpointer(
                self._folder, context=partly, cleanup_tmp_directories=False
            )  # what a running training has half-written is left alone
            steps = [checkpoint.step for checkpoint in self._checkpointer.checkpoints]
        except Exception as error:
            raise UserError(f"{self._folder} cannot be read: {reason(error)}") from error
        try:
            self.step = self._choose(steps, step)
            self.path = self._folder / str(self.step)
            self.shapes = self._read(self._read_shapes)
            self.record = self._read(self._read_record)
        except BaseException:
            self.close()
            raise

    def read(self, name: str) -> np.ndarray:
        """A parameter, float32."""
        shape = self.shapes[name]  # Orbax answers a name that is not there with what it was given
        wanted = np.broadcast_to(np.float32(0), shape)
        state = {"params": {name: wanted}}
        loaded = self._read(lambda: self._checkpointer.load_checkpointables(self.step, {"state": state}))
        array = np.asarray(loaded["state"]["params"][name])
        if not np.isfinite(array).all():
            raise UserError(f"checkpoint {self.path}: {name} holds numbers that are not finite")
        return array

    def _choose(self, steps: Sequence[int], step: int | None) -> int:
        run = self._folder.parent
        if not steps:
            raise UserError(f"{run} has no checkpoint yet")
        if step is not None and step not in steps:
            raise UserError(f"{run} has no checkpoint of step {step}; it has: {', '.join(map(str, steps))}")
        return steps[-1] if step is None else step

    def _read_shapes(self) -> dict[str, tuple[int, ...]]:
        state = self._checkpointer.checkpointables_metadata(self.step).metadata.get("state")
        if state is None:
            raise ValueError("the index of its arrays is missing or damaged")
        return {name: tuple(found.shape) for name, found in state["params"].items()}

    def _read_record(self) -> dict[str, Any]:
        record = self._checkpointer.load_checkpointables(self.step, {"record": None})["record"]
        if not isinstance(record, dict):
            raise ValueError("its record is no object")
        return record

    def _read(self, read: Callable[[], Content]) -> Content:
        try:
            return read()
        except Exception as error:  # Orbax and TensorStore raise what they like
            if not is_there(self.path):
                message = f"checkpoint {self.path} was deleted while it was read: the run keeps only its last ones"
                raise UserError(message) from error
            raise UserError(f"checkpoint {self.path} cannot be read: {reason(error)}") from error

    def close(self) -> None:
        self._checkpointer.close()

    def __enter__(self) -> SavedWeights:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
