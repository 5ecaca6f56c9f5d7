"""What a run says: metrics.jsonl, TensorBoard and W&B over several starts, rates, and the progress lines."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from support import tiny_training
from thinkprm_jax.errors import UserError
from thinkprm_jax.training.config import TrackingConfig
from thinkprm_jax.training.flops import StepFlops, attended_pairs
from thinkprm_jax.training.goodput import Goodput
from thinkprm_jax.training.metrics import MetricsLog, Rates
from thinkprm_jax.training.trackers import check_packages, open_trackers


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


class Recorder(types.ModuleType):
    """Stands for tensorboardX and wandb: every event file, and every row that W&B got."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.files: list[tuple[dict[str, Any], list[tuple[str, float, int]]]] = []
        self.inits: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        recorder = self

        class SummaryWriter:
            def __init__(self, folder: str, **options: Any) -> None:
                Path(folder).mkdir(parents=True, exist_ok=True)
                self.points: list[tuple[str, float, int]] = []
                recorder.files.append((options, self.points))

            def add_scalar(self, name: str, value: float, step: int, walltime: float | None) -> None:
                self.points.append((name, value, step))

            def close(self) -> None: ...

        self.SummaryWriter = SummaryWriter

    def init(self, **options: Any) -> Recorder:
        self.inits.append(options)
        return self

    def define_metric(self, *_: Any, **__: Any) -> None: ...

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def finish(self) -> None: ...


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "tensorboardX", recorder)
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    return recorder


def test_a_continued_run_has_every_line_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3, 4):
        log.write({"step": step, "loss": step / 3})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 5, "lo')  # killed while writing
    log = MetricsLog(tmp_path / "metrics.jsonl", resumed_step=2)
    log.write({"step": 3, "loss": 1.0})
    log.close()
    assert lines(tmp_path) == [
        {"step": 1, "loss": 0.3333333},
        {"step": 2, "loss": 0.6666667},
        {"step": 3, "loss": 1},
    ]


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write({"step": 1, "verdict_auroc": math.nan, "loss": math.inf, "left_out": 3})
    log.close()
    assert lines(tmp_path) == [{"step": 1, "verdict_auroc": None, "loss": None, "left_out": 3}]


def test_trackers_over_two_starts(tmp_path: Path, recorder: Recorder) -> None:
    tracking = TrackingConfig(tensorboard=True, wandb_project="prm")
    trackers = open_trackers(tmp_path, tracking, {"seed": 1})
    for step in (1, 2, 3):
        trackers.write({"step": step, "time": 1e9 + step, "loss": 1 / step})
    trackers.write({"step": 3, "time": 2e9, "held_out_loss": 0.5, "verdict_auroc": math.nan})
    trackers.close()  # the last checkpoint was at step 2, and step 3's verdicts were still to come
    trackers = open_trackers(tmp_path, tracking, {"seed": 1}, resumed_step=2)
    trackers.write({"step": 3, "time": 3e9, "loss": 1 / 3})
    trackers.write({"step": 3, "time": 3e9, "held_out_loss": 0.5})
    trackers.write({"step": 3, "time": 3e9, "verdict_f1": 0.75})
    trackers.write({"step": 4, "time": 4e9, "loss": 1 / 4})
    trackers.close()

    (first, before), (second, after) = recorder.files
    assert "purge_step" not in first
    assert second["purge_step"] == 3  # of the first file TensorBoard shows steps 1 and 2 only
    assert before == [("loss", 1.0, 1), ("loss", 1 / 2, 2), ("loss", 1 / 3, 3), ("held_out_loss", 0.5, 3)]
    assert after == [("loss", 1 / 3, 3), ("held_out_loss", 0.5, 3), ("verdict_f1", 0.75, 3), ("loss", 1 / 4, 4)]

    assert recorder.rows == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 1 / 2},
        {"step": 3, "loss": 1 / 3},
        {"step": 3, "held_out_loss": 0.5},
        {"step": 3, "verdict_f1": 0.75},
        {"step": 4, "loss": 1 / 4},
    ]
    assert len({options["id"] for options in recorder.inits}) == 1
    assert recorder.inits[0]["config"] == {"seed": 1}

    open_trackers(tmp_path, tracking, {}).close()  # from step 0 again: another run
    assert len({options["id"] for options in recorder.inits}) == 2


def test_only_the_first_process_logs(tmp_path: Path) -> None:
    trackers = open_trackers(tmp_path, TrackingConfig(tensorboard=True), {}, first=False)
    trackers.write({"step": 1, "loss": 1.0})
    trackers.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tracking", "package", "extra"),
    [
        (TrackingConfig(tensorboard=True), "tensorboardX", "tracking"),
        (TrackingConfig(wandb_project="prm"), "wandb", "wandb"),
    ],
)
def test_a_missing_package_is_said_at_the_start(tracking, package, extra, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for start in (lambda: check_packages(tracking), lambda: open_trackers(tmp_path, tracking, {})):
        with pytest.raises(
            UserError, match=rf'needs the package {package}: pip install "thinkprm-jax\[{extra}\]"'
        ):
            start()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("tensorboardX") is None, reason="tensorboardX is not installed")
def test_event_files(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    for resumed in (0, 2):
        trackers = open_trackers(tmp_path, TrackingConfig(tensorboard=True), {}, resumed_step=resumed)
        trackers.write({"step": 3, "time": 5.0, "loss": 0.25})
        trackers.close()
    found = []
    for file in sorted((tmp_path / "tensorboard").iterdir(), key=lambda file: file.stat().st_mtime_ns):
        data, events = file.read_bytes(), []
        while data:  # length (8 bytes), its checksum (4), an event, its checksum (4)
            length = int.from_bytes(data[:8], "little")
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
        found.append(events)
    (point,) = (event for event in found[0] if event.HasField("summary"))
    assert (point.step, point.wall_time, point.summary.value[0].tag) == (3, 5.0, "loss")
    assert point.summary.value[0].simple_value == 0.25
    assert not any(event.HasField("session_log") for event in found[0])
    starts = [event.step for event in found[1] if event.session_log.status == event.session_log.START]
    assert set(starts) == {3}


def test_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(time, "time", lambda: clock[0])
    batch = tiny_training.random_batch([17, 3, 9], [2, 1, 3], 16, 64)  # 4 rows of 16 places, 26 of them used
    flops = StepFlops(token=10.0, pair=1.0)
    rates = Rates(flops, peak=1000.0, goodput=Goodput(100.0))
    for _ in range(2):
        rates.add(batch)
    rates.seconds |= {"data": 1.0, "compute": 5.0, "compile": 0.5, "save": 2.0, "evaluate": 30.0}
    clock[0] += 40.0  # 10 of them for training
    assert rates.summary() == pytest.approx(
        {
            "tokens_per_second": 5.2,
            "target_tokens_per_second": 2 * batch.target_tokens / 10,
            "step_seconds": 5.0,
            "data_share": 0.1,
            "compute_share": 0.5,
            "compile_share": 0.05,
            "save_share": 0.2,
            "padding_share": 1 - 26 / 64,
            "mfu": 2 * (10 * 26 + attended_pairs(batch)) / (10 * 1000),
            "goodput": 5 / 40,
            **{f"badput_{part}": share / 40 for part, share in (("data", 1.0), ("save", 2.0), ("evaluate", 30.0))},
            "badput_compile": 0.5 / 40,
            "badput_start": 0.0,
            "badput_lost": 0.0,
        }
    )
    rates.reset()
    clock[0] += 1.0
    assert rates.summary()["tokens_per_second"] == 0
    assert "mfu" not in Rates(flops, None).summary()


def test_goodput_goes_on_over_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    first = Goodput(begun=1000.0)
    clock[0] = 1010.0
    first.first_step()
    first.add({"compute": 20.0, "compile": 5.0})
    clock[0] = 1040.0
    saved = json.loads(json.dumps(first.to_json({"compute": 3.0, "save": 1.0})))
    # Killed some steps later; started again after a minute without a machine.
    clock[0] = 1110.0
    second = Goodput(begun=1100.0, before=saved)
    second.first_step()
    clock[0] = 1200.0
    shares = second.shares({"compute": 70.0, "data": 2.0, "evaluate": 4.0})
    assert {name: round(share * 200) for name, share in shares.items()} == {
        "goodput": 93,  # 20 + 3 + 70 of 200 s
        "badput_start": 20,
        "badput_compile": 5,
        "badput_data": 2,
        "badput_save": 1,
        "badput_evaluate": 4,
        "badput_lost": 60,
    }
