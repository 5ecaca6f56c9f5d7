"""The solver task: a model that is taught solutions writes them, asked in its own chat template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import tiny_training
from thinkprm_jax import Sampler, cli, load_model
from thinkprm_jax.errors import UserError
from thinkprm_jax.recipe import load_recipe
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.training import setup
from thinkprm_jax.training.config import TrainRecipe

PROBLEM, SOLUTION = "What is 2 + 3?", "2 + 3 = 5.\n\nThe answer is \\boxed{5}."


def write_recipe(folder: Path, source: dict, **changes: object) -> Path:
    data = {"train": source, "buckets": [64, 160], "rows": 4}
    model = {**tiny_training.RECIPE["model"], "tokenizer": "mini-solver"}
    return tiny_training.write_recipe(folder, task="solver", model=model, data=data, **changes)


@pytest.mark.slow
def test_a_solver_learns_and_writes_its_solution(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    solutions = tmp_path / "solutions.jsonl"
    solutions.write_text(json.dumps({"problem": PROBLEM, "solution": SOLUTION}) + "\n")
    optimizer = {"name": "adamw", "learning_rate": 0.02}
    recipe = write_recipe(tmp_path, {"solutions": str(solutions)}, steps=40, optimizer=optimizer)
    assert cli.main(["train", str(recipe)]) == 0
    assert cli.main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    model, tokenizer = load_model(tmp_path / "out")
    prompt = tokenizer.encode_chat([{"role": "user", "content": PROBLEM}])
    [[completion]] = Sampler(model, tokenizer, slots=1, max_length=256).generate([prompt], max_new_tokens=64)
    assert completion.text == SOLUTION
    assert completion.finish_reason == "stop"


def test_solutions_of_the_synthetic_task(tmp_path: Path, mini_tokenizer: Tokenizer) -> None:
    source = {"arithmetic": {"examples": 30, "seed": 2}}
    recipe = load_recipe(TrainRecipe, write_recipe(tmp_path, source))
    dataset = setup.make_dataset(recipe.data.train, recipe, mini_tokenizer, "data")
    assert len(dataset) == 30
    text = mini_tokenizer.decode(dataset[3].ids.tolist())
    assert "The answer is \\boxed{" in text
    assert "[Solution]" not in text  # no verifier's prompt


def test_the_first_rows_of_a_file(tmp_path: Path, mini_tokenizer: Tokenizer) -> None:
    solutions = tmp_path / "solutions.jsonl"
    rows = [{"problem": f"What is {number}?", "solution": str(number)} for number in range(5)]
    solutions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = load_recipe(TrainRecipe, write_recipe(tmp_path, {"solutions": str(solutions), "limit": 3}))
    dataset = setup.make_dataset(recipe.data.train, recipe, mini_tokenizer, "data")
    assert len(dataset) == 3
    assert "What is 2?" in mini_tokenizer.decode(dataset[2].ids.tolist())


def test_a_limit_that_the_file_cannot_meet(tmp_path: Path, mini_tokenizer: Tokenizer) -> None:
    solutions = tmp_path / "solutions.jsonl"
    solutions.write_text(json.dumps({"problem": PROBLEM, "solution": SOLUTION}) + "\n")
    recipe = load_recipe(TrainRecipe, write_recipe(tmp_path, {"solutions": str(solutions), "limit": 3}))
    with pytest.raises(UserError, match=r"has 1 rows that can be used, limit asks for 3"):
        setup.make_dataset(recipe.data.train, recipe, mini_tokenizer, "data")
