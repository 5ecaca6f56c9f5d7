"""The weights inside a checkpoint of a training run, read one at a time onto the host.

For export: no optimizer state is read, no device is used, and the host never holds more than one parameter, so a
run that needed a pod can be exported on any machine that sees its files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from orbax.checkpoint import v1 as ocp

from thinkprm_jax.errors import UserError

Content = TypeVar("Content")


class SavedWeights:
    """One checkpoint of the ``checkpoints`` folder of a run, which may still be training. Use ``with``.

    Attributes:
      step, path: of the checkpoint.
      shapes: of every parameter that was trained, by dotted path.
      record: the JSON values beside the state.
    """

    def __init__(self, folder: Path, step: int | None = None) -> None:
        """``step``: default the last one. Raises `UserError`: there is none, or it cannot be read."""
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax warns that the record is no tree of arrays
        self._folder = folder.absolute()
        partly = ocp.Context()
        partly.pytree.loading.partial_load = True  # one parameter without the others
        self._checkpointer = ocp.training.Checkpointer(
            self._folder, context=partly, cleanup_tmp_directories=False
        )  # what a running training has half-written is left alone
        try:
            self.step = self._choose(step)
            self.path = self._folder / str(self.step)
            state = self._read(lambda: self._checkpointer.checkpointables_metadata(self.step)).metadata["state"]
            if state is None:
                raise UserError(f"checkpoint {self.path} cannot be read: the index of its arrays is damaged")
            self.shapes = {name: tuple(found.shape) for name, found in state["params"].items()}
            self.record: dict[str, Any] = self._load({"record": None})["record"]
        except BaseException:
            self.close()
            raise

    def read(self, name: str) -> np.ndarray:
        """A parameter, float32."""
        shape = self.shapes[name]  # Orbax answers a name that is not there with what it was given
        wanted = np.broadcast_to(np.float32(0), shape)
        array = np.asarray(self._load({"state": {"params": {name: wanted}}})["state"]["params"][name])
        if not np.isfinite(array).all():
            raise UserError(f"checkpoint {self.path}: {name} holds numbers that are not finite")
        return array

    def _choose(self, step: int | None) -> int:
        steps = [checkpoint.step for checkpoint in self._checkpointer.checkpoints]
        run = self._folder.parent
        if not steps:
            raise UserError(f"{run} has no checkpoint yet")
        if step is not None and step not in steps:
            raise UserError(f"{run} has no checkpoint of step {step}; it has: {', '.join(map(str, steps))}")
        return steps[-1] if step is None else step

    def _load(self, wanted: dict[str, Any]) -> dict[str, Any]:
        return self._read(lambda: self._checkpointer.load_checkpointables(self.step, wanted))

    def _read(self, read: Callable[[], Content]) -> Content:
        try:
            return read()
        except Exception as error:  # Orbax and TensorStore raise what they like
            if not self.path.exists():
                message = f"checkpoint {self.path} was deleted while it was read: the run keeps only its last ones"
                raise UserError(message) from error
            raise UserError(
                f"checkpoint {self.path} cannot be read: {' '.join(str(error).split())[:200]}"
            ) from error

    def close(self) -> None:
        self._checkpointer.close()

    def __enter__(self) -> SavedWeights:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
