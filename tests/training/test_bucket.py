"""Runs that live in a bucket: killed at random moments, continued on another mesh, they end as one on a disk."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support import object_stores, tiny_training
from support.object_stores import Fault, Store
from support.train_server import Run, TrainServer
from support.training_runs import assert_equal_states, losses, make_trainer, restore
from thinkprm_jax.checkpoint.places import COMMITTED
from thinkprm_jax.checkpoint.training_state import CheckpointStore
from thinkprm_jax.errors import UserError
from thinkprm_jax.recipe import load_recipe
from thinkprm_jax.records.files import has_lines, read_line_file
from thinkprm_jax.storage import Location, location
from thinkprm_jax.train.export import export
from thinkprm_jax.training.config import TrainRecipe
from thinkprm_jax.training.metrics import MetricsLog
from thinkprm_jax.training.setup import open_run

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("BUCKET_KILLS", "4"))  # measured with 20: docs/pods.md
STEPS = 30
RECIPE = {
    "steps": STEPS,
    "data": {"train": {"arithmetic": {"examples": 60, "seed": 1}}, "buckets": [256], "rows": 4},
    "optimizer": {"learning_rate": 0.01, "schedule": "cosine"},
    "checkpoint": {"every_steps": 3, "every_seconds": None, "keep": 2, "keep_every": 12},
}
KEPT = ["12", "24", "27", "30"]


@pytest.fixture(scope="module")
def bucket() -> Iterator[Store]:
    with object_stores.store("gs") as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.variables.items():
            patch.setenv(name, value)
        yield found


@pytest.fixture(scope="module")
def whole(server: TrainServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on a disk that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    server.start(tiny_training.write_recipe(folder, **RECIPE)).finish()
    return folder / "run"


@pytest.fixture
def run(bucket: Store, request: pytest.FixtureRequest) -> Location:
    bucket.faults.clear()
    return location(f"{bucket.url}/{request.node.name}")


def start(
    server: TrainServer, bucket: Store, folder: Path, run: Location, *overrides: str, devices: int = 1
) -> Run:
    recipe = tiny_training.write_recipe(folder, **RECIPE)
    return server.start(recipe, f"output={run}", *overrides, devices=devices, **bucket.variables)


def figures(run: Location) -> list[tuple[int, float]]:
    place = run / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in read_line_file(place)] if has_lines(place) else []
    except UserError:  # a start is dropping what it does again
        return []
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def names(run: Location) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def state_of(run: Location, whole: Path) -> tuple:
    with CheckpointStore(run / "checkpoints", read_only=True) as store:
        return store.restore(make_trainer(whole).abstract_state())


def assert_equal(run: Location, whole: Path) -> None:
    """Bit for bit: weights, optimizer, position in the data, and the history of the loss."""
    (ours, our_record), (theirs, their_record) = state_of(run, whole), restore(whole)
    assert_equal_states(ours, theirs)
    assert our_record["data"] == their_record["data"]
    assert figures(run) == losses(whole)
    assert names(run) == KEPT


def test_killed_at_random_moments_it_ends_with_the_same_bits(
    server: TrainServer, bucket: Store, whole: Path, tmp_path: Path, run: Location
) -> None:
    seed = random.randrange(10**6)
    draw = random.Random(seed)
    print(f"seed {seed}")
    for kill in range(KILLS):
        # Moments are requests of the store: most fall into a save, some into the start.
        before = len(bucket.requests)
        until = before + draw.randint(1, 60 if draw.random() < 0.3 else 400)
        process = start(server, bucket, tmp_path, run)
        while len(bucket.requests) < until and process.poll() is None:
            time.sleep(0.002)
        time.sleep(draw.uniform(0.0, 0.05))
        process.kill()
        status = process.wait()
        assert status in (-9, 0), process.said()
        print(f"kill {kill}: {len(bucket.requests) - before} requests, status {status}, {names(run)}")
    start(server, bucket, tmp_path, run).finish()
    assert_equal(run, whole)


def test_processes_lose_one_another_and_the_mesh_changes(
    server: TrainServer, bucket: Store, whole: Path, tmp_path: Path, run: Location
) -> None:
    recipe = tiny_training.write_recipe(tmp_path, **RECIPE)
    for lost, mesh in ((1, "mesh={data: 4}"), (0, "mesh={data: 2, fsdp: 2}")):
        runs = server.start_together(2, recipe, f"output={run}", mesh, devices=2, **bucket.variables)
        ends = len(figures(run)) + 6
        while len(figures(run)) < ends:
            assert all(process.poll() is None for process in runs), [process.said() for process in runs]
            time.sleep(0.05)
        runs[lost].kill()
        assert runs[1 - lost].wait(timeout=60) == 1
    said = start(server, bucket, tmp_path, run).finish()
    assert "going on from step" in said
    assert [step for step, _ in figures(run)] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([loss for _, loss in figures(run)], [loss for _, loss in losses(whole)], atol=1e-4)
    assert names(run) == KEPT


def test_what_is_not_committed_is_none(
    server: TrainServer, bucket: Store, whole: Path, tmp_path: Path, run: Location
) -> None:
    start(server, bucket, tmp_path, run, "checkpoint.keep_every=null").finish()
    assert names(run) == ["27", "30"]
    (run / "checkpoints" / "30" / COMMITTED).unlink()
    state, record = state_of(run, whole)  # 30 may be under way
    assert int(state.step) == 27
    assert names(run) == ["27", "30"]
    out = location(f"{bucket.url}/exported")
    assert export(run, out) == 27
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in out.iterdir()}
    with CheckpointStore(run / "checkpoints") as store:
        assert names(run) == ["27"]
        store.save(30, state, record)
        store.wait()
        for damaged in (run / "checkpoints" / "30" / "record").files():
            damaged.unlink()
    with pytest.raises(UserError, match=r"checkpoint gs://.*/30 cannot be read: it is half a checkpoint; "):
        CheckpointStore(run / "checkpoints")


def test_a_store_that_stumbles_and_one_that_is_gone(
    server: TrainServer, bucket: Store, whole: Path, tmp_path: Path, run: Location
) -> None:
    bucket.faults += [Fault("POST", status=503, times=3), Fault("POST", "state", cut="request", times=2)]
    bucket.faults += [Fault("GET", status=503, times=3), Fault("", seconds=0.2, times=20)]
    start(server, bucket, tmp_path, run).finish()
    assert_equal(run, whole)


def test_metrics_of_a_bucket_have_every_line_once(bucket: Store, run: Location) -> None:
    place = run / "metrics.jsonl"
    log = MetricsLog(place)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": step / 3})
    assert not has_lines(place)
    log.flush()
    assert [step for step, _ in figures(run)] == [1, 2, 3]
    log.write({"step": 4, "loss": 4.0})  # killed before it is written
    log = MetricsLog(place, resumed_step=2)
    assert [step for step, _ in figures(run)] == [1, 2]
    log.write({"step": 3, "loss": 1.0})
    log.close()
    assert figures(run) == [(1, 0.3333333), (2, 0.6666667), (3, 1.0)]
    assert [path.name for path in run.iterdir()] == ["metrics.jsonl"]
    MetricsLog(place).close()
    assert figures(run) == []


@pytest.mark.parametrize("url", ["s3://bucket/run", "memory://run"])
def test_stores_without_checkpoints_are_refused_before_anything_is_done(tmp_path: Path, url: str) -> None:
    recipe = load_recipe(TrainRecipe, tiny_training.write_recipe(tmp_path, **RECIPE), [f"output={url}"])
    with pytest.raises(
        UserError, match=rf"{url}: a training run can live at gs:// or on a path of this machine; "
    ):
        open_run(recipe)
