"""One run in two processes over loopback: killed, signalled and continued, it equals an undisturbed one."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import pytest

from support import processes, tiny_model, tiny_training
from support.train_server import Run, TrainServer
from support.training_runs import assert_equal_states, losses, restore
from thinkprm_jax.checkpoint.training_state import CheckpointStore

pytestmark = pytest.mark.slow

STEPS = 30
RECIPE = {
    "steps": STEPS,
    "data": {
        "train": {"arithmetic": {"examples": 60, "seed": 1}},
        "evaluation": {"arithmetic": {"examples": 12, "split": "test"}},
        "buckets": [256],
        "rows": 8,
    },
    "evaluate_every": 15,
    "mesh": {"data": 2, "fsdp": 2, "tensor": 2},  # one KV head for two tensor devices
    "optimizer": {"learning_rate": 0.003},
    "checkpoint": {"every_steps": 4, "every_seconds": None},
}


@pytest.fixture(scope="module")
def whole(server: TrainServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two processes that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    runs = server.start_together(2, tiny_training.write_recipe(folder, **RECIPE), devices=4)
    said = [run.finish() for run in runs]
    assert "process 0 of 2 (JAX_* variables, coordinator 127.0.0.1:" in said[0]
    assert f"step {STEPS}/{STEPS}" in said[0]
    assert not said[1] or ("example" not in said[1] and "step" not in said[1])  # one process speaks
    return folder / "run"


def run_to(runs: list[Run], folder: Path, step: int) -> None:
    while len(tiny_training.metrics(folder)) < step:
        for run in runs:
            assert run.poll() is None, run.said()
        time.sleep(0.005)


def test_kills_and_signals_in_one_process_change_nothing(server: TrainServer, whole: Path, tmp_path: Path) -> None:
    recipe, folder = tiny_training.write_recipe(tmp_path, **RECIPE), tmp_path / "run"
    for lost in (1, 0):
        runs = server.start_together(2, recipe, devices=4)
        run_to(runs, folder, len(tiny_training.metrics(folder)) + 5)
        runs[lost].kill()
        killed = time.monotonic()
        assert runs[1 - lost].wait(timeout=30) == 1
        print(f"the other ended {time.monotonic() - killed:.2f} s later: {runs[1 - lost].said()}")
        last_line = runs[1 - lost].said().rpartition("thinkprm: error: ")[2]
        assert last_line.startswith(f"process {lost} on ")
        # JAX's runtime may write behind it, also on the same line.
        assert "start all of them again to go on from the last checkpoint" in last_line
    # A preemption notice to process 1 only: both save the same step and end with success.
    by_time = ["checkpoint.every_steps=null", "checkpoint.every_seconds=0.05"]  # of process 0's clock
    runs = server.start_together(2, recipe, *by_time, devices=4)
    run_to(runs, folder, len(tiny_training.metrics(folder)) + 3)
    runs[1].kill(signal.SIGTERM)
    said = [run.finish() for run in runs]
    done = len(losses(folder))
    if done < STEPS:  # else it was quicker than the signal
        assert f"a signal to another process: stopped at step {done}; start again" in said[0]
    with CheckpointStore(folder / "checkpoints", read_only=True) as store:
        assert store.latest_step == done
    for run in server.start_together(2, recipe, devices=4):
        run.finish()
    assert_equal_states(restore(whole)[0], restore(folder)[0])
    assert losses(folder) == losses(whole)
    assert [step for step, _ in losses(folder)] == list(range(1, STEPS + 1))


def test_one_process_of_eight_devices_trains_the_same(server: TrainServer, whole: Path, tmp_path: Path) -> None:
    server.start(tiny_training.write_recipe(tmp_path, **RECIPE), devices=8).finish()
    alone, together = (tiny_training.metrics(run) for run in (tmp_path / "run", whole))
    for ours, theirs in zip(alone, together, strict=True):
        for name in ("loss", "held_out_loss"):
            assert ours.get(name) == pytest.approx(theirs.get(name), abs=1e-5)
    ours, theirs = restore(tmp_path / "run")[0].params, restore(whole)[0].params
    difference = max(float(np.abs(np.asarray(ours[name]) - np.asarray(theirs[name])).max()) for name in ours)
    print(f"largest difference of a weight after {STEPS} steps: {difference:.1e}")
    assert difference < 1e-4


def test_adapters_on_pretrained_weights(server: TrainServer, tmp_path: Path) -> None:
    """Two processes read their pieces of the base from its files, lose each other, and read them again."""
    base = tiny_model.save_folder(tmp_path / "base")
    changes = {
        **RECIPE,
        "steps": 8,
        "model": {"pretrained": str(base), "dtype": "float32"},
        "lora": {"rank": 2, "alpha": 4.0},
        "checkpoint": {"every_steps": 2, "every_seconds": None},
        "evaluate_every": 8,
    }
    recipes = [tiny_training.write_recipe(make(tmp_path / name), **changes) for name in ("alone", "together")]
    alone, together = tmp_path / "alone" / "run", tmp_path / "together" / "run"
    server.start(recipes[0], devices=8).finish()
    runs = server.start_together(2, recipes[1], devices=4)
    run_to(runs, together, 5)
    runs[0].kill()
    assert runs[1].wait(timeout=30) == 1
    said = [run.finish() for run in server.start_together(2, recipes[1], devices=4)]
    assert "going on from step" in said[0]
    np.testing.assert_allclose(losses(together), losses(alone), atol=1e-5)


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_processes_with_different_recipes_are_refused(server: TrainServer, tmp_path: Path) -> None:
    recipe = tiny_training.write_recipe(tmp_path, **RECIPE)
    address = processes.free_address()
    runs = [
        server.start(
            recipe,
            f"seed={process}",
            devices=4,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(process),
        )
        for process in range(2)
    ]
    assert 2 in [run.wait() for run in runs]
    assert any(run.said().endswith("error: process 1 was given another recipe than process 0") for run in runs)
    assert not (tmp_path / "run").exists()
