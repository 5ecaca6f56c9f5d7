"""One door: a name becomes a folder once, and every way in gives the same verifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import prm_folders, tiny_model
from thinkprm_jax import ThinkPRM, cli, load_verifier
from thinkprm_jax.checkpoint import weights
from thinkprm_jax.records.schema import FINGERPRINTS
from thinkprm_jax.search.models import load_models
from thinkprm_jax.search.problems import load_tasks
from thinkprm_jax.search.recipe import SearchRecipe

SOLUTION = {"problem": "2 + 3 + 4?", "steps": ["2 + 3 = 5.", "5 + 4 = 9."]}


@pytest.fixture
def looked_for(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every name that was turned into a folder."""
    names: list[str] = []
    resolve = weights.resolve_folder
    monkeypatch.setattr(weights, "resolve_folder", lambda name: (names.append(str(name)), resolve(name))[1])
    return names


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model.save_folder(tmp_path_factory.mktemp("models") / "thinkprm-tiny"))


@pytest.fixture(scope="module")
def qwen_prm(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("qwen_prm")
    prm_folders.qwen_prm(folder)
    return str(folder)


def score(folder: Path, *options: str) -> list[dict[str, Any]]:
    """What `thinkprm score` writes of the solution."""
    (folder / "in.jsonl").write_text(json.dumps(SOLUTION) + "\n")
    out = folder / "out.jsonl"
    out.unlink(missing_ok=True)
    assert cli.main(["score", str(folder / "in.jsonl"), "--output", str(out), "--quiet", *options]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_a_class_and_the_door_look_for_a_model_once(model, qwen_prm, looked_for):
    ThinkPRM(model, slots=1, max_length=128)
    assert looked_for == [model]
    load_verifier(qwen_prm, max_length=128)
    assert looked_for == [model, qwen_prm]


def test_a_program_looks_for_a_model_once(model, looked_for, tmp_path):
    score(tmp_path, "--model", model, "--slots", "1", "--max-length", "512", "--max-gen-tokens", "4")
    assert looked_for == [model]


def test_a_search_looks_for_each_model_once(model, looked_for):
    recipe = SearchRecipe(
        n=1, max_tokens=16, system_prompt=None, model_path="mini-solver", prm_path=model, num_samples=1,
        dataset_name="arithmetic", max_verification_length=256, slots=1, prm_slots=1, dtype="float32",
    )  # fmt: skip
    load_models(recipe, load_tasks(recipe), say=lambda line: None)
    assert sorted(looked_for) == sorted(["mini-solver", model])


def test_the_class_and_the_program_give_the_same_verdict(model, tmp_path):
    common = {"max_length": 512, "max_gen_tokens": 8, "slots": 2}
    options = [word for name, value in common.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    for more, words in (({}, []), ({"n": 2}, ["--n", "2"])):
        prm = ThinkPRM(model, **common, **more)
        [result] = prm.predict_correctness_batch([SOLUTION["problem"]], [SOLUTION["steps"]])
        [row] = score(tmp_path, "--model", model, *options, *words)
        assert [chain["output"] for chain in row["verdict"]["chains"]] == result["outputs"]
        assert row["verdict"]["prefix_score"] == pytest.approx(result["prefix_score"], abs=1e-6)
        for name in FINGERPRINTS:  # of what is written only: reading them costs a moment
            assert row["verifier"].pop(name)
        assert row["verifier"] == prm.settings.stamp
        assert row["verifier"]["temperature"] == (0.0 if not more else 0.6)


@pytest.mark.parametrize("kind", ["math_shepherd", "rlhflow", "qwen_prm", "skywork_prm"])
def test_score_takes_a_verifier_without_chains(kind, tmp_path, capsys):
    folder = tmp_path / kind
    folder.mkdir()
    getattr(prm_folders, kind)(folder)
    [row] = score(tmp_path, "--model", str(folder), "--verifier", kind, "--max-length", "512")
    assert set(row["verdict"]) == {"prefix_score", "step_scores", "step_labels", "contradictory"}
    assert row["verdict"]["prefix_score"] == row["verdict"]["step_scores"][-1]
    assert row["verifier"]["kind"] == kind
    prm = load_verifier(folder, kind=kind, max_length=512)
    [result] = prm.predict_correctness_batch([SOLUTION["problem"]], [SOLUTION["steps"]])
    assert row["verdict"]["step_scores"] == pytest.approx(result["step_scores"][0])


@pytest.mark.parametrize(("prompt", "steps"), [("single", 0), ("index", 2)])
def test_score_takes_a_judge(model, tmp_path, capsys, prompt, steps):
    (tmp_path / "in.jsonl").write_text(json.dumps(SOLUTION) + "\n")
    arguments = ["--model", model, "--verifier", "judge", "--judge-prompt", prompt, "--force-decision"]
    arguments += ["--max-length", "768", "--max-gen-tokens", "4", "--slots", "1"]
    assert (
        cli.main(["score", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl"), *arguments]) == 0
    )
    [row] = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert row["verifier"]["judge_prompt"] == prompt
    assert len(row["verdict"]["chains"]) == 1
    assert len(row["verdict"]["step_labels"]) in (0, steps)
    if not row["verdict"]["step_labels"]:  # a line for people, of a verdict that says nothing of steps
        assert capsys.readouterr().out.split("\t")[2] in ("correct", "incorrect")


def test_an_output_of_an_older_version_goes_on(model, tmp_path):
    """Rows that say nothing of their kind, and of the settings only those that there were."""
    options = ["--model", model, "--max-length", "512", "--max-gen-tokens", "4", "--slots", "1"]
    [row] = score(tmp_path, *options)
    old = ("model", "n", "rounds", "temperature", "seed", "max_length", "max_gen_tokens", "decision_temperature")
    row["verifier"] = {name: row["verifier"][name] for name in (*old, "dtype")}
    row.pop("thinkprm_format", None)
    row["verdict"]["prefix_score"] = 0.123  # shows that it was not computed again
    out = tmp_path / "old.jsonl"
    out.write_text(json.dumps(row) + "\n")
    given = ["score", str(tmp_path / "in.jsonl"), "--output", str(out), "--quiet", *options]
    assert cli.main(given) == 0
    assert json.loads(out.read_text()) == row
    assert cli.main([*given, "--seed", "1"]) == 2  # other settings are still other settings
