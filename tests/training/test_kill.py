"""Runs that are killed, find a full disk, or find other data: nothing is lost, and nothing else is taken."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from pathlib import Path

import jax
import pytest

from support import tiny_training
from support.train_server import TrainServer
from support.training_runs import assert_equal_runs, restore
from thinkprm_jax.checkpoint.huggingface import read_config
from thinkprm_jax.checkpoint.training_state import CheckpointStore
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.errors import UserError
from thinkprm_jax.recipe import load_recipe
from thinkprm_jax.training import setup
from thinkprm_jax.training.config import TrainRecipe

pytestmark = pytest.mark.slow

KILLS = 20
STEPS = 100
RECIPE = {
    "steps": STEPS,
    "data": {"train": {"arithmetic": {"examples": 60, "seed": 1}}, "buckets": [256], "rows": 2},
    "optimizer": {"learning_rate": 0.01, "schedule": "cosine"},
    "checkpoint": {"every_steps": 3, "every_seconds": None, "keep": 2, "keep_every": 40},
}
ROOM = 150_000  # bytes of a file on the full disk: more than the tokenizer's, less than a checkpoint's


@pytest.fixture(scope="module")
def whole(server: TrainServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    server.start(tiny_training.write_recipe(folder, **RECIPE)).finish()
    return folder / "run"


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("*"))


def run_to(server: TrainServer, recipe: Path, run: Path, step: int) -> None:
    """Kills a run that has come so far."""
    process = server.start(recipe)
    while len(tiny_training.metrics(run)) < step:
        assert process.poll() is None, process.said()
        time.sleep(0.005)
    process.kill()
    process.wait()


def test_killed_at_twenty_random_moments_it_ends_with_the_same_bits(
    server: TrainServer, whole: Path, tmp_path: Path
) -> None:
    recipe, run = tiny_training.write_recipe(tmp_path, **RECIPE), tmp_path / "run"
    seed = random.randrange(10**6)
    draw = random.Random(seed)
    print(f"seed {seed}")
    for kill in range(KILLS):
        # Some kills fall into the start, most between and into steps and saves of the run.
        before = len(tiny_training.metrics(run))
        starting = draw.random() < 0.3 or before > STEPS - 15
        latest = time.monotonic() + (draw.uniform(0.0, 1.5) if starting else 60.0)
        target = before + draw.randint(1, 5)
        process = server.start(recipe)
        while len(tiny_training.metrics(run)) < target and time.monotonic() < latest:
            assert process.poll() is None, f"it ended before kill {kill}: {process.said()}"
            time.sleep(0.002)
        time.sleep(draw.uniform(0.0, 0.03))
        process.kill()
        assert process.wait() == -9
        print(f"kill {kill}: line {before} to {len(tiny_training.metrics(run))}, {checkpoints(run)}")
    server.start(recipe).finish()
    assert_equal_runs(whole, run, STEPS)
    assert checkpoints(run) == ["100", "40", "80", "98"]  # what kills left half-written has gone


def test_the_policy_keeps_the_last_ones_and_every_nth(whole: Path) -> None:
    assert checkpoints(whole) == ["100", "40", "80", "98"]
    assert int(restore(whole, 40)[0].step) == 40


def test_a_full_disk_is_one_line_and_costs_nothing(server: TrainServer, whole: Path, tmp_path: Path) -> None:
    recipe, run = tiny_training.write_recipe(tmp_path, **RECIPE), tmp_path / "run"
    run_to(server, recipe, run, 10)
    step = max(int(name) for name in checkpoints(run) if name.isdigit())
    process = server.start(recipe, file_size=ROOM)
    assert process.wait() == 2, process.said()
    place = f"a checkpoint in {run / 'checkpoints'} cannot be written"
    assert f"error: {place}: File too large; the one of step {step} is whole" in process.said()
    assert "Traceback" not in process.said()
    assert int(restore(run, step)[0].step) == step
    server.start(recipe).finish()
    assert_equal_runs(whole, run, STEPS)


def test_a_disk_full_of_metrics(server: TrainServer, whole: Path, tmp_path: Path) -> None:
    """Once while a line is written, once at the start, when the lines of later steps are dropped."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    recipe = tiny_training.write_recipe(tmp_path, **RECIPE)
    for step in ("98", "100"):
        shutil.rmtree(run / "checkpoints" / step)
    filler = json.dumps({"step": 0, "text": "x" * 1000}) + "\n"
    (run / "metrics.jsonl").write_text(filler * (ROOM // len(filler)), encoding="utf-8")
    process = server.start(recipe, file_size=ROOM)
    assert process.wait() == 2, process.said()
    assert re.search(r"error: the metrics of step 8\d: File too large$", process.said()), process.said()
    (run / "metrics.jsonl").write_text(filler * (ROOM // len(filler) + 1), encoding="utf-8")
    process = server.start(recipe, file_size=ROOM)
    assert process.wait() == 2, process.said()
    assert process.said().endswith(f"error: {run}/metrics.jsonl: cannot be written: File too large")


@pytest.mark.parametrize(
    ("room", "names"), [(200, "{run}/recipe.yaml: cannot be written: "), (20_000, "{run}/model: ")]
)
def test_a_disk_full_at_the_start(server: TrainServer, tmp_path: Path, room: int, names: str) -> None:
    process = server.start(tiny_training.write_recipe(tmp_path, **RECIPE), file_size=room)
    assert process.wait() == 2, process.said()
    assert process.said().startswith(f"thinkprm train: error: {names.format(run=tmp_path / 'run')}")
    assert "File too large" in process.said()
    assert "Traceback" not in process.said()


def test_other_data_is_refused(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    recipe = load_recipe(TrainRecipe, run / "recipe.yaml", [f"output={run}"])
    config, tokenizer = setup.read_model(recipe.model)
    trainer = setup.make_trainer(recipe, config, STEPS, make_mesh(devices=jax.devices()[:1]))
    with CheckpointStore(run / "checkpoints", read_only=True) as store:
        dataset = setup.make_dataset(recipe.data.train, recipe, tokenizer, "training data")
        setup.start_or_resume(recipe, trainer, dataset, store)
        other = load_recipe(TrainRecipe, run / "recipe.yaml", ["data.train.arithmetic.seed=2"])
        dataset = setup.make_dataset(other.data.train, recipe, tokenizer, "training data")
        with pytest.raises(UserError, match=r"the checkpoint of step 100 in .* was made on other data"):
            setup.start_or_resume(recipe, trainer, dataset, store)


def test_half_written_checkpoints_are_not_taken(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(whole / "checkpoints", folder)
    half = folder / f"{STEPS + 4}.orbax-checkpoint-tmp"
    shutil.copytree(folder / str(STEPS), half)
    shutil.rmtree(half / "state" / "d")
    recipe = load_recipe(TrainRecipe, whole / "recipe.yaml")
    trainer = setup.make_trainer(recipe, read_config(whole / "model"), STEPS, make_mesh(devices=jax.devices()[:1]))
    abstract = trainer.abstract_state()
    with CheckpointStore(folder, read_only=True) as store:
        assert store.latest_step == STEPS
    assert half.exists()  # another process may be writing it
    with CheckpointStore(folder) as store:
        state, record = store.restore(abstract)
        assert int(state.step) == STEPS
        assert record["recipe"]["steps"] == STEPS
        store.save(STEPS + 4, state, record)
    assert not half.exists()
    # A checkpoint that was whole and is damaged is named, never skipped in silence.
    for file in (folder / str(STEPS + 4) / "state").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:100])
    with (
        CheckpointStore(folder) as store,
        pytest.raises(UserError, match=rf"checkpoint .*/{STEPS + 4} cannot be read: .*; remove that folder"),
    ):
        store.restore(abstract)
    # Nor is half of one.
    shutil.rmtree(folder / str(STEPS + 4))
    (folder / str(STEPS + 4)).mkdir()
    with pytest.raises(UserError, match=rf"checkpoint .*/{STEPS + 4} cannot be read: it is half a checkpoint; "):
        CheckpointStore(folder)
