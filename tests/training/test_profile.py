"""`profile.steps`: the steps that are asked for stand in a trace that xprof opens, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import tiny_training
from support.train_server import TrainServer
from thinkprm_jax.errors import UserError
from thinkprm_jax.recipe import load_recipe
from thinkprm_jax.training.config import TrainRecipe

SHORT = {"steps": 6, "data": {"train": {"arithmetic": {"examples": 60}}, "buckets": [256], "rows": 2}}


@pytest.mark.slow
def test_a_run_leaves_a_trace_of_the_steps(server: TrainServer, tmp_path: Path) -> None:
    recipe = tiny_training.write_recipe(tmp_path, **SHORT)
    server.start(recipe, "profile.steps=3..4").finish()
    (trace,) = (tmp_path / "run" / "profile").glob("plugins/profile/*/*.xplane.pb")
    content = trace.read_bytes()
    assert content.count(b"step_num") >= 1
    assert b"_train_step" in content  # what the device ran
    assert len(tiny_training.metrics(tmp_path / "run")) == 6


@pytest.mark.parametrize("steps", ["3", "0..2", "4..3", "a..b", "3-4"])
def test_what_are_no_steps_is_refused(tmp_path: Path, steps: str) -> None:
    with pytest.raises(UserError, match=r"profile: steps must be FIRST\.\.LAST, such as 10\.\.12, not"):
        load_recipe(TrainRecipe, tiny_training.write_recipe(tmp_path), [f"profile.steps='{steps}'"])
