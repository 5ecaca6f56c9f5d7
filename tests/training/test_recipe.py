"""Recipes: what is refused, and in which words; the recipes that ship; a run keeps its recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import processes, tiny_training
from thinkprm_jax import cli
from thinkprm_jax.errors import UserError
from thinkprm_jax.recipe import differences, dump_recipe, load_recipe, to_dict
from thinkprm_jax.training import setup
from thinkprm_jax.training.config import LORA_TARGETS, TrainRecipe

GOOD = """\
output: runs/x
steps: 10
model:
  pretrained: some/model
data:
  train:
    chains: a.jsonl
  buckets: [8, 16]
  rows: 4
optimizer:
  learning_rate: 1e-4
"""


def load(tmp_path: Path, text: str, *overrides: str) -> TrainRecipe:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(TrainRecipe, path, overrides)


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text, *overrides)
    message = str(caught.value).replace(str(tmp_path / "r.yaml"), "r.yaml")
    assert "\n" not in message
    return message


def test_a_recipe_and_its_defaults(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD)
    assert recipe.optimizer.learning_rate == 1e-4  # which YAML 1.1 calls a text
    assert recipe.data.buckets == (8, 16)
    assert (recipe.epochs, recipe.model.dtype, recipe.optimizer.name) == (None, "bfloat16", "adamw")
    again = load(tmp_path, dump_recipe(recipe))
    assert again == recipe
    assert to_dict(again) == to_dict(recipe)


def test_a_check_of_several_fields_names_the_override(tmp_path: Path) -> None:
    assert refusal(tmp_path, GOOD, "seed=-1").startswith("recipe override seed=-1: seed is -1")
    assert refusal(tmp_path, GOOD, "seed=-1", "steps=3").startswith("recipe override seed=-1: seed is -1")
    assert refusal(tmp_path, GOOD, "data.rows=0").startswith("recipe override data.rows=0: data: rows must be")
    assert refusal(tmp_path, GOOD + "seed: -1\n", "steps=3").startswith("recipe r.yaml, line 1: seed is -1")
    assert refusal(tmp_path, GOOD, "data={rows: 0}").startswith("recipe override data={rows: 0}: data")


def test_overrides(tmp_path: Path) -> None:
    overrides = ("optimizer.learning_rate=2e-3", "data.buckets=[4, 8]", "steps=", "epochs=2", "mesh.fsdp=2")
    recipe = load(tmp_path, GOOD, *overrides)
    assert (recipe.optimizer.learning_rate, recipe.data.buckets) == (2e-3, (4, 8))
    assert (recipe.steps, recipe.epochs, recipe.mesh.fsdp) == (None, 2, 2)
    assert differences(recipe, load(tmp_path, GOOD)).keys() == {
        "optimizer.learning_rate", "data.buckets", "steps", "epochs", "mesh.fsdp",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  learning_rate: 1e-4", "  learning_rte: 1e-4",
         "r.yaml, line 11: unknown field optimizer.learning_rte; did you mean optimizer.learning_rate?"),
        ("steps: 10", "step: 10", "r.yaml, line 2: unknown field step; did you mean steps?"),
        ("steps: 10", "steps: ten", "r.yaml, line 2: steps must be a whole number, not 'ten'"),
        ("steps: 10", "steps: 1.5", "r.yaml, line 2: steps must be a whole number, not 1.5"),
        ("steps: 10", "steps: true", "r.yaml, line 2: steps must be a whole number, not True"),
        ("steps: 10", "steps: [10]", "r.yaml, line 2: steps must be a whole number, not a list"),
        ("steps: 10", "steps: 10\nsteps: 11", "r.yaml, line 3: steps is given twice with different values"),
        ("steps: 10", "steps: 2026-13-01", "r.yaml, line 2: '2026-13-01' cannot be read as a value"),
        ("steps: 10", "steps: !x 10", "r.yaml, line 2: '10' cannot be read as a value"),
        ("steps: 10", "[a]: 10", "r.yaml, line 2: a field's name must be a word"),
        ("steps: 10", "steps: {", "r.yaml, line 4: "),
        ("1e-4", "fast", "r.yaml, line 11: optimizer.learning_rate must be a number, not 'fast'"),
        ("[8, 16]", "[8, x]", "r.yaml, line 8: data.buckets[1] must be a whole number, not 'x'"),
        ("[8, 16]", "8", "r.yaml, line 8: data.buckets must be a list, each item a whole number, not 8"),
        ("  rows: 4", "  rows: 4\n  shuffle: 1", "r.yaml, line 10: data.shuffle must be true or false, not 1"),
        ("some/model", "7", "r.yaml, line 4: model.pretrained must be a text, not 7"),
        ("model:\n  pretrained: some/model", "model: some/model",
         "r.yaml, line 3: model must be a table of fields, not 'some/model'"),
        ("output: runs/x\n", "", "r.yaml, line 1: output is missing"),
        ("1e-4", "1e-4\n  name: muoon",
         "r.yaml, line 12: optimizer.name must be one of adamw, muon, not 'muoon'; did you mean muon?"),
        # Combinations
        ("steps: 10\n", "", "r.yaml, line 1: give one of steps and epochs"),
        ("steps: 10", "steps: 10\nepochs: 1", "r.yaml, line 1: give one of steps and epochs"),
        ("  rows: 4", "  rows: 4\n  tokens: 64", "r.yaml, line 5: data: give one of rows and tokens"),
        ("  rows: 4", "  tokens: 15", "r.yaml, line 5: data: tokens must be at least the longest bucket, 16"),
        ("[8, 16]", "[16, 8]", "r.yaml, line 5: data: buckets must be lengths in rising order"),
        ("    chains: a.jsonl", "    chains: a.jsonl\n    arithmetic: {examples: 1}",
         "r.yaml, line 6: data.train: give one of arithmetic, chains, prm800k, solutions and mixture"),
        ("  pretrained: some/model", "  dtype: float32",
         "r.yaml, line 3: model: give one of pretrained and scratch"),
        ("1e-4", "1e-4\n  adam_learning_rate: 1e-3",
         "r.yaml, line 10: optimizer: adam_learning_rate is for muon only"),
        ("1e-4", "1e-4\n  warmup_steps: 2\n  warmup_ratio: 0.1",
         "r.yaml, line 10: optimizer: give one of warmup_steps and warmup_ratio"),
        ("1e-4", "1e-4\n  warmup_ratio: 1",
         "r.yaml, line 10: optimizer: warmup_ratio must be at least 0 and below 1"),
        ("steps: 10", "steps: 10\nevaluate_every: 5", "r.yaml, line 1: evaluate_every needs data.evaluation"),
        ("steps: 10", "steps: 10\nmicro_batches: 3",
         "r.yaml, line 1: micro_batches 3 does not divide the 4 rows of bucket 8"),
        # Sizes
        ("steps: 10", "steps: 0", "r.yaml, line 1: steps must be at least 1, not 0"),
        ("  rows: 4", "  rows: 0", "r.yaml, line 5: data: rows must be at least 1, not 0"),
        ("1e-4", ".nan", "r.yaml, line 11: optimizer.learning_rate must be a number, not nan"),
        ("1e-4", "1e-4\n  b2: 1.0", "r.yaml, line 10: optimizer: b2 must be below 1"),
        ("1e-4", "1e-4\n  clip_norm: 0",
         "r.yaml, line 10: optimizer: clip_norm must be positive, or null for no clipping, not 0.0"),
        ("  rows: 4", "  rows: 4\n  packing: true",
         "r.yaml, line 5: data: packing needs a single bucket: the length of every row"),
        ("  rows: 4", "  rows: 4\n  examples: 2", "r.yaml, line 5: data: examples is for packing only"),
        ("chains: a.jsonl", "prm800k: a.jsonl",
         "r.yaml, line 1: prm800k holds no chains; it needs task: discriminative"),
        ("steps: 10", "steps: 10\nlora: {targets: [q_poj]}",
         "r.yaml, line 3: lora: targets: q_poj is none of " + ", ".join(LORA_TARGETS)),
        ("steps: 10", "steps: 10\nlora: {dropout: 1.0}", "r.yaml, line 3: lora: dropout must be below 1, not 1.0"),
        ("  learning_rate: 1e-4", "  name: muon\n  learning_rate: 1e-4\nlora: {rank: 8}",
         "r.yaml, line 1: lora needs optimizer.name: adamw"),
        ("steps: 10", "steps: 10\nverdicts: {every: 5}",
         "r.yaml, line 1: verdicts needs the generative task and data.evaluation"),
        ("steps: 10", "steps: 10\ntask: solver",
         "r.yaml, line 1: chains are no solutions; task: solver needs solutions or arithmetic"),
        ("chains: a.jsonl", "solutions: a.jsonl", "r.yaml, line 1: solutions are for task: solver"),
        ("chains: a.jsonl", "arithmetic: {examples: 9}\n    limit: 3",
         "r.yaml, line 6: data.train: limit is for files; arithmetic has examples"),
        ("steps: 10", "steps: 10\nsystem_prompt: Be brief.", "r.yaml, line 1: system_prompt is for task: solver"),
        ("chains: a.jsonl", "arithmetic: {examples: 9, form: {answers: 2}}",
         "r.yaml, line 7: data.train.arithmetic.form: answers and rounds are shares, at most 1"),
        ("steps: 10", "steps: 10\nmesh: {fsdp: 0}",
         "r.yaml, line 3: mesh: fsdp must be at least 1, or -1 for whatever is left"),
        ("steps: 10", "steps: 10\ncheckpoint: {keep: 0}",
         "r.yaml, line 3: checkpoint: keep must be at least 1, not 0"),
    ],
)  # fmt: skip
def test_refusals_name_file_and_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    found = refusal(tmp_path, GOOD.replace(old, new))
    assert found == f"recipe {message}" or (message.endswith(": ") and found.startswith(f"recipe {message}"))


def test_refusals_of_overrides_and_files(tmp_path: Path) -> None:
    assert refusal(tmp_path, GOOD, "optimizer.lr=1") == (
        "recipe override optimizer.lr=1: unknown field optimizer.lr; there are: "
        "name, learning_rate, adam_learning_rate, b1, b2, eps, momentum, weight_decay, clip_norm, schedule, "
        "warmup_steps, warmup_ratio, decay_from, final_factor"
    )
    assert refusal(tmp_path, GOOD, "steps=x") == "recipe override steps=x: steps must be a whole number, not 'x'"
    assert "write field=value" in refusal(tmp_path, GOOD, "steps")
    assert refusal(tmp_path, "", "steps=3") == "recipe r.yaml: output is missing"
    assert refusal(tmp_path, "- a\n", "steps=3") == "recipe r.yaml, line 1: the recipe must be a table of fields"
    with pytest.raises(UserError, match=r"recipe .*none\.yaml: No such file"):
        load_recipe(TrainRecipe, tmp_path / "none.yaml")


def test_the_program_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "r.yaml").write_text(GOOD.replace("steps", "stepz"), encoding="utf-8")
    assert cli.main(["train", str(tmp_path / "r.yaml")]) == 2
    assert capsys.readouterr().err == (
        f"thinkprm train: error: recipe {tmp_path}/r.yaml, line 2: unknown field stepz; did you mean steps?\n"
    )


@pytest.mark.parametrize("path", sorted((processes.ROOT / "configs/train").glob("*.yaml")), ids=lambda p: p.stem)
def test_recipes_that_ship(path: Path) -> None:
    recipe = load_recipe(TrainRecipe, path)
    assert recipe.output.startswith("runs/")
    for bucket in recipe.data.buckets:
        assert recipe.data.rows_of(bucket) % recipe.micro_batches == 0


def test_a_run_keeps_its_recipe_once_it_has_a_checkpoint(tmp_path: Path) -> None:
    path = tiny_training.write_recipe(tmp_path)
    folder = setup.open_run(load_recipe(TrainRecipe, path))
    changed = load_recipe(TrainRecipe, path, ["optimizer.learning_rate=0.02", "seed=3"])
    setup.open_run(changed)  # nothing has been computed yet
    (folder / "checkpoints" / "4").mkdir(parents=True)
    setup.open_run(changed)
    with pytest.raises(UserError, match="holds a run of another recipe") as caught:
        setup.open_run(load_recipe(TrainRecipe, path))
    assert "optimizer.learning_rate (0.02 there, 0.01 now)" in str(caught.value)
    assert "seed (3 there, 0 now)" in str(caught.value)
    # What does not touch the weights may change.
    free = ["log_every=7", "checkpoint.keep=1", "data.prefetch=2", "mesh.data=2", "evaluate_every=5"]
    evaluation = "data.evaluation={arithmetic: {examples: 4}}"
    setup.open_run(load_recipe(TrainRecipe, path, ["optimizer.learning_rate=0.02", "seed=3", *free, evaluation]))
    assert load_recipe(TrainRecipe, folder / "recipe.yaml").log_every == 7


def test_a_mesh_that_does_not_fit_the_devices(tmp_path: Path) -> None:
    recipe = load_recipe(TrainRecipe, tiny_training.write_recipe(tmp_path, mesh={"data": 3, "fsdp": 2}))
    with pytest.raises(UserError, match=r"mesh: data=3 x fsdp=2 x tensor=1 needs 6 devices, there are \d+"):
        setup.make_run_mesh(recipe)


def test_a_store_without_checkpoints_holds_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(TrainRecipe, tiny_training.write_recipe(tmp_path), ["output=s3://bucket/run"])
    with pytest.raises(UserError, match="s3://bucket/run: a training run can live at gs:// or on a path of this"):
        setup.open_run(recipe)
    assert not (tmp_path / "s3:").exists()
