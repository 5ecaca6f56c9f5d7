"""Where the figures of a run go beside metrics.jsonl: TensorBoard, Weights & Biases.

Every tracker has three methods: ``write`` takes named values with the ``step`` they belong to, ``flush`` comes
before a checkpoint, ``close`` ends it. A run that goes on from a checkpoint writes the steps after it once more,
and no tracker shows them twice.
"""

from __future__ import annotations

import importlib
import json
import math
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.files import write_json
from thinkprm_jax.storage import Location, ObjectPath
from thinkprm_jax.training.config import TrackingConfig
from thinkprm_jax.training.metrics import MetricsLog

_NO_FIGURES = ("step", "time")
_SECONDS_BETWEEN = 2.0  # writes of one object; stores slow down who writes one more often than once a second


class Tracker(Protocol):
    def write(self, values: dict[str, Any]) -> None:
        """Named numbers, ``step`` among them."""

    def flush(self) -> None:
        """What has been written has left the process."""

    def close(self) -> None: ...


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = list(trackers)

    def write(self, values: dict[str, Any]) -> None:
        for tracker in self._trackers:
            tracker.write(values)

    def flush(self) -> None:
        for tracker in self._trackers:
            tracker.flush()

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()


def open_trackers(
    folder: Location,
    tracking: TrackingConfig,
    recipe: Mapping[str, Any],
    resumed_step: int = 0,
    first: bool = True,
) -> Trackers:
    """What the recipe asks for, metrics.jsonl always.

    Args:
      folder: of the run. recipe: the resolved one, as JSON values. resumed_step: where the run goes on; 0: new.
      first: whether this is the process that logs; the others' trackers do nothing.
    Raises:
      UserError: a package is missing; names what installs it.
    """
    if not first:
        return Trackers()
    # What may be refused comes first: a refused start changes no file.
    beside: list[Tracker] = []
    if tracking.wandb_project is not None:
        beside.append(WandbTracker(folder, tracking.wandb_project, recipe, resumed_step))
    if tracking.tensorboard:
        beside.append(TensorBoardTracker(folder / "tensorboard", resumed_step))
    return Trackers([MetricsLog(folder / "metrics.jsonl", resumed_step), *beside])


def check_packages(tracking: TrackingConfig) -> None:
    """UserError where a tracker's package is missing; for the start of a run, before anything is loaded."""
    if tracking.tensorboard:
        _package("tensorboardX", "tracking.tensorboard", "tracking")
    if tracking.wandb_project is not None:
        _package("wandb", "tracking.wandb_project", "wandb")


class TensorBoardTracker:
    """Event files, one more for each start of the run. Of a step that was written twice TensorBoard shows the
    later value: the file of a continued run says from which step on the earlier files do not count."""

    def __init__(self, folder: Location, resumed_step: int = 0) -> None:
        package = _package("tensorboardX", "tracking.tensorboard", "tracking")
        purge = {"purge_step": resumed_step + 1} if folder.exists() else {}
        suffix = f".from{resumed_step}"  # the package's own name is the second it starts in
        self._writer = package.SummaryWriter(str(folder), flush_secs=30, filename_suffix=suffix, **purge)

    def write(self, values: dict[str, Any]) -> None:
        for name, value in _figures(values).items():
            self._writer.add_scalar(name, value, values["step"], walltime=values.get("time"))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbTracker:
    """One W&B run for all starts of a run: its id stands in wandb.json, beside the checkpoints.

    A continued run does the steps after its checkpoint again, with equal results; what an earlier start has sent
    is not sent twice. How far that is stands in wandb.json, too; in a bucket some two seconds late.
    """

    def __init__(self, folder: Location, project: str, recipe: Mapping[str, Any], resumed_step: int = 0) -> None:
        package = _package("wandb", "tracking.wandb_project", "wandb")
        self._file, self._written = folder / "wandb.json", 0.0
        known = json.loads(self._file.read_text(encoding="utf-8")) if resumed_step and self._file.exists() else {}
        self._id = known.get("id") or secrets.token_hex(8)
        self._step, self._names = known.get("step", 0), set(known.get("names", ()))
        try:
            self._run = package.init(
                project=project,
                id=self._id,
                name=folder.name,
                dir=tempfile.mkdtemp(prefix="wandb-") if isinstance(folder, ObjectPath) else str(folder),
                config=dict(recipe),
                resume="allow",
            )
        except Exception as error:  # no login, no network: wandb raises several kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"tracking.wandb_project: W&B does not start: {reason}") from error
        self._run.define_metric("*", step_metric="step")  # a step may have several lines

    def write(self, values: dict[str, Any]) -> None:
        step, figures = values["step"], _figures(values)
        if step == self._step:
            figures = {name: value for name, value in figures.items() if name not in self._names}
        if step < self._step or not figures:
            return
        self._run.log({"step": step, **figures})
        self._names = set(figures) | (self._names if step == self._step else set())
        self._step = step
        if not isinstance(self._file, ObjectPath) or time.monotonic() - self._written >= _SECONDS_BETWEEN:
            self.flush()

    def flush(self) -> None:
        write_json(self._file, {"id": self._id, "step": self._step, "names": sorted(self._names)})
        self._written = time.monotonic()

    def close(self) -> None:
        self.flush()
        self._run.finish()


def _figures(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers: one that is none (an AUROC of one class) has no place in a curve."""
    numbers = {name: value for name, value in values.items() if name not in _NO_FIGURES}
    return {
        name: float(value)
        for name, value in numbers.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }


def _package(name: str, field: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f'{field} needs the package {name}: pip install "thinkprm-jax[{extra}]" ({error})'
        ) from None
