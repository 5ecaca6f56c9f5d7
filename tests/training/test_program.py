"""`thinkprm train` and `thinkprm export` as processes: stopped, continued, exported."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from support import tiny_training
from support.training_runs import assert_equal_runs, make_trainer, restore
from thinkprm_jax import cli
from thinkprm_jax.checkpoint.huggingface import load_model
from thinkprm_jax.checkpoint.training_state import CheckpointStore

pytestmark = pytest.mark.slow

STEPS = tiny_training.STEPS


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    said = tiny_training.finish(tiny_training.start(tiny_training.write_recipe(folder), cache))
    assert f"step {STEPS}/{STEPS}  loss" in said
    assert list(cache.iterdir())  # the next start compiles nothing
    return folder / "run"


def test_a_signal_saves_and_ends_with_success(whole: Path, cache: Path, tmp_path: Path) -> None:
    recipe, run = tiny_training.write_recipe(tmp_path), tmp_path / "run"
    never = "checkpoint.every_steps=1000000"
    process = tiny_training.start(recipe, cache, never)
    while len(tiny_training.metrics(run)) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.003)
    process.send_signal(signal.SIGTERM)
    said = tiny_training.finish(process)
    done = len(tiny_training.metrics(run))
    if done < STEPS:  # else it was quicker than the signal
        assert f"SIGTERM: stopped at step {done}; start again" in " ".join(said.split())
    with CheckpointStore(run / "checkpoints", read_only=True) as store:
        assert store.steps == [done]
    said = tiny_training.finish(tiny_training.start(recipe, cache, never))
    assert f"going on from step {done}" in " ".join(said.split())
    assert_equal_runs(whole, run, STEPS)


def test_export(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "deep" / "exported"
    assert cli.main(["export", str(whole), str(out)]) == 0
    assert capsys.readouterr().out == f"step {STEPS} of {whole} is in {out}\n"

    state, _ = restore(whole)
    tokens = np.random.default_rng(0).integers(0, 256, (2, 40))
    expected = np.asarray(make_trainer(whole).model(state.params)(jnp.asarray(tokens)))
    model, tokenizer = load_model(out)
    np.testing.assert_allclose(model(jnp.asarray(tokens)), expected, atol=1e-5)
    assert tokenizer.encode("Step 1: 2 + 3 = 5") == tokenizer.load(whole / "model").encode("Step 1: 2 + 3 = 5")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    with torch.no_grad():
        np.testing.assert_allclose(theirs(torch.tensor(tokens)).logits.numpy(), expected, atol=1e-4)
    assert theirs.config.eos_token_id == tokenizer.eos_id

    half = tmp_path / "half"
    assert cli.main(["export", str(whole), str(half), "--step", str(STEPS - 4), "--dtype", "bfloat16"]) == 0
    stored = load_model(half)[0].layers[0].mlp.up.kernel[...]
    earlier = restore(whole, STEPS - 4)[0].params["layers.0.mlp.up.kernel"]
    np.testing.assert_array_equal(stored, np.asarray(earlier.astype(jnp.bfloat16).astype(jnp.float32)))
    assert json.loads((half / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_export_refuses_in_one_line(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    young = tmp_path / "young"
    shutil.copytree(whole, young, ignore=lambda folder, names: names if folder.endswith("checkpoints") else [])
    for arguments, message in (
        ([tmp_path, tmp_path / "out"], f"{tmp_path} is no training run: it lacks recipe.yaml or checkpoints"),
        ([whole, tmp_path / "out", "--step", 5], f"{whole} has no checkpoint of step 5; it has: 28, 32, 36"),
        ([young, tmp_path / "out"], f"{young} has no checkpoint yet"),
        ([whole, tmp_path / "file"], f"{tmp_path / 'file'}: is a file, and the output must be a folder"),
    ):
        assert cli.main(["export", *map(str, arguments)]) == 2
        assert capsys.readouterr().err == f"thinkprm export: error: {message}\n"
    assert not (tmp_path / "out").exists()
