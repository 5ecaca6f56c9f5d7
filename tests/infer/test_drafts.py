"""Programs with drafts forced on: what they write is what they write without, and forced phrases cost less. And
the rows of their samplers follow the work."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import tiny_model
from thinkprm_jax import cli
from thinkprm_jax.sampler import Sampler, slots
from thinkprm_jax.sampler.scheduler import Worker

ROW = {"problem": "2 + 3 + 4? 2 + 3 + 4?", "steps": ["2 + 3 = 5", "2 + 3 = 5 and 5 + 4 = 9"], "label": -1}
LIMITS = ["--max-gen-tokens", "24", "--max-length", "512"]
SEARCH = {
    "approach": "best_of_n", "n": 2, "system_prompt": None, "dataset_name": "arithmetic", "num_samples": 1,
    "max_tokens": 24, "max_verification_length": 512, "max_verification_tokens": 12, "temperature": 1.0,
}  # fmt: skip
COLLECT = {
    "source": {"arithmetic": {"examples": 1, "seed": 5, "split": "unseen"}},
    "teacher": {"prompt": "verification", "chains": 2, "temperature": 1.0, "max_tokens": 24, "max_length": 384},
    "filter": {"labels": "none", "target": None, "balance": False},
}
QUESTION = "\nThen is it all correct?"  # with what closes the thinking and the line twelve tokens


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny_model.save_folder(tmp_path_factory.mktemp("model") / "tiny", layers=1))


def arguments(program: str, model: str, drafts: int) -> list[str]:
    """Of a program that writes two chains at a time below the folder named after ``drafts``."""
    out = str(drafts)
    Path("in.jsonl").write_text(json.dumps(ROW) + "\n")
    judged = ["in.jsonl", "--model", model, "--n", "2", "--drafts", out, *LIMITS]
    if program == "score":
        return [*judged, "--output", f"{out}/out.jsonl", "--quiet"]
    if program == "evaluate":
        return ["solutions", *judged, "--output-dir", out]
    if program == "search":
        models = {"model_path": model, "prm_path": model, "drafts": drafts, "prm_drafts": drafts}
        recipe = {**SEARCH, **models, "output_dir": out}
    else:
        recipe = {**COLLECT, "teacher": {**COLLECT["teacher"], "model": model, "drafts": drafts}, "output": out}
    Path(f"{program}.yaml").write_text(yaml.safe_dump(recipe))
    return [f"{program}.yaml"]


@dataclasses.dataclass
class Ran:
    """What a program wrote, by file, and the samplers that it made."""

    written: dict[str, list[Any]]
    samplers: list[Sampler]


def run(program: str, model: str, drafts: int) -> Ran:
    made: list[Sampler] = []
    construct = Sampler.__init__

    def noted(self: Sampler, *arguments: Any, **settings: Any) -> None:
        construct(self, *arguments, **settings)
        made.append(self)

    Path(str(drafts)).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "__init__", noted)
        assert cli.main([program, *arguments(program, model, drafts)]) in (0, 1)  # 1: random weights say nothing
    files = sorted(Path(str(drafts)).glob("*.jsonl"))
    return Ran({path.name: [json.loads(line) for line in path.open()] for path in files}, made)


@pytest.fixture(scope="module", params=["score", "evaluate", "search", "collect"])
def both(request, model, tmp_path_factory) -> Iterator[tuple[Ran, Ran]]:
    """A program without drafts and with them, on a model whose rows follow the work as those of a large one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp(request.param))
        patch.setattr(slots, "WORKER_WEIGHT_BYTES", 0)
        patch.setattr(slots, "FOLLOW_WEIGHT_BYTES", 0)
        yield run(request.param, model, 0), run(request.param, model, 7)


def assert_same(found: Any, expected: Any) -> None:
    """Equal, numbers up to what another order of sums makes of them."""
    if isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-5)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
    else:
        assert found == expected


def test_a_program_writes_the_same_with_drafts(both) -> None:
    plain, drafting = both
    assert plain.written
    assert_same(drafting.written, plain.written)


def test_a_program_tries_the_drafts_that_its_settings_name(both) -> None:
    plain, drafting = both
    assert [sampler.stats.wide_steps for sampler in plain.samplers] == [0] * len(plain.samplers)
    assert all(sampler.stats.drafted_tokens > 0 for sampler in drafting.samplers)


def test_the_rows_of_a_program_follow_its_work(both) -> None:
    for sampler in both[0].samplers:
        assert sampler.slots >= 2
        assert sampler.stats.slot_steps <= 2 * sampler.stats.decode_steps


def test_what_a_program_forces_costs_a_step_for_eight_tokens(model, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    calls: list[tuple[int, int, int]] = []  # of the only row: tokens given, tokens it may sample, steps
    controls, absorb = Worker._controls, Worker.absorb

    def noted_controls(self: Worker, choice: Any) -> Any:
        made = controls(self, choice)
        calls.append((int(made.pending_count[0]), int(made.budgets[0]), 0))
        return made

    def noted_absorb(self: Worker, output: Any) -> None:
        calls[-1] = (*calls[-1][:2], int(output.steps))
        absorb(self, output)

    monkeypatch.setattr(Worker, "_controls", noted_controls)
    monkeypatch.setattr(Worker, "absorb", noted_absorb)
    given = arguments("search", model, 7)
    recipe = {**yaml.safe_load(Path(given[0]).read_text()), "slots": 1, "prm_slots": 1}
    Path(given[0]).write_text(yaml.safe_dump({**recipe, "prm_predecision_string": QUESTION}))
    assert cli.main(["search", *given]) == 0
    asked = [(tokens, steps) for tokens, budget, steps in calls if budget == 0]
    assert all(steps == -(-tokens // 8) for tokens, steps in asked)
    assert (13, 2) in asked, asked  # the question, behind the last token that was sampled
