"""`thinkprm miniature` on models with random weights: figures without sense, in the right places."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from support import tiny_model
from thinkprm_jax import cli
from thinkprm_jax.infer import miniature as program
from thinkprm_jax.miniature import study as miniature

SIZE = miniature.MiniatureSize(
    problems=2, samples=2, beams=(2,), width=2, cases=3, chains=(1, 2), rounds=(1, 2),
    max_tokens=16, max_length=512, compute_length=512, max_gen_tokens=8,
)  # fmt: skip
STAGES = [
    "solutions", "best_of_n/one", "best_of_n/two", "beam_search/one/2", "beam_search/two/2", "dvts/one/2",
    "dvts/two/2", "case_solutions", "verifier_compute/one", "verifier_compute/two",
]  # fmt: skip
ROWS = ("completions.jsonl", "verdicts.jsonl", "n=2.jsonl", "rounds=1.jsonl", "rounds=2.jsonl", "cases.jsonl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("miniature")


@pytest.fixture(scope="module")
def models(folder) -> list[str]:
    paths = [tiny_model.save_folder(folder / name, seed) for seed, name in enumerate(("solver", "one", "two"))]
    return ["--generator", str(paths[0]), "--verifiers", *map(str, paths[1:])]


@pytest.fixture
def run(folder, models, monkeypatch, capsys):
    """Runs the program in this process; returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(folder)
    monkeypatch.setitem(miniature.SIZES, "quick", SIZE)

    def call(*arguments: str, given: list[str] | None = None) -> tuple[int, str, str]:
        status = cli.main(["miniature", "--quick", *(models if given is None else given), *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def finished(run, folder) -> Path:
    """The folder of a whole run; made once."""
    output = folder / "runs/miniature_quick"
    if not (output / "results.json").exists():
        status, _, err = run()
        assert status == 0, err
    return output


@pytest.fixture
def copied(finished, tmp_path, monkeypatch) -> Path:
    """A copy of it that may be changed. Pictures are not drawn again: that would be most of the time."""
    shutil.copytree(finished, tmp_path / "runs/miniature_quick")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("thinkprm_jax.views.plots._render", lambda *figure: b"")
    return tmp_path / "runs/miniature_quick"


def contents(output: Path) -> dict[str, bytes]:
    """Folder and name -> bytes, of all rows."""
    found = (path for path in output.rglob("*") if path.name in ROWS)
    return {str(path.relative_to(output)): path.read_bytes() for path in found}


def read_results(output: Path) -> dict[str, Any]:
    return json.loads((output / "results.json").read_text())


@pytest.mark.slow
def test_every_figure_has_its_n_interval_seed_and_command(finished) -> None:
    results = read_results(finished)
    commands = {stage["command"] for stage in results["stages"]}
    for figure in results["figures"]:
        assert {"question", "figure", "value", "low", "high", "n", "seed", "command"} <= set(figure)
        assert figure["command"] in commands | {results["command"]} or "evaluate selection" in figure["command"]
    accuracies = [figure for figure in results["figures"] if figure["figure"] == "accuracy"]
    points = {(f["search"], f["verifier"], f["N"]) for f in accuracies}
    searches = {("best-of-N", 1), ("best-of-N", 2), ("beam search", 2), ("DVTS", 2)}
    assert points == {(search, verifier, n) for search, n in searches for verifier in ("one", "two")}
    assert {f["n"] for f in accuracies if f["method"] == "majority"} == {2}
    compute = {(f["verifier"], f["setting"]) for f in results["figures"] if f["question"] == "verifier compute"}
    settings = ("n=1", "n=2", "rounds=1", "rounds=2")
    assert compute == {(verifier, setting) for verifier in ("one", "two") for setting in settings}
    calibrated = {(f["verifier"], f["truth"]) for f in results["figures"] if f["question"] == "calibration"}
    assert len(calibrated) == 4


@pytest.mark.slow
def test_both_ways_to_spend_compute_begin_in_one_point(finished) -> None:
    figures = [figure for figure in read_results(finished)["figures"] if figure["question"] == "verifier compute"]
    chains, rounds = (
        [figure["value"] for figure in figures if figure["setting"] == setting and "over" not in figure]
        for setting in ("n=1", "rounds=1")
    )
    defined = [place for place, value in enumerate(chains) if value is not None]
    assert defined
    assert [chains[place] for place in defined] == pytest.approx([rounds[place] for place in defined], abs=1e-4)


@pytest.mark.slow
def test_the_page_has_the_tables_the_pictures_and_the_commands(finished) -> None:
    page, results = (finished / "results.md").read_text(), read_results(finished)
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", page)
    assert pictures == ["accuracy_by_n.svg", "verifier_compute.svg", "calibration.svg"]
    for picture in pictures:
        assert "<svg" in (finished / picture).read_text()
        assert (finished / picture).with_suffix(".png").stat().st_size > 1000
    assert results["command"] in page
    assert all(stage["command"] in page for stage in results["stages"])
    assert [stage["folder"].removeprefix("runs/miniature_quick/") for stage in results["stages"]] == STAGES


@pytest.mark.slow
def test_the_verifiers_judge_the_same_solutions(finished) -> None:
    names = ("solutions", "best_of_n/one", "best_of_n/two")
    written = [completions((finished / name / "completions.jsonl").read_bytes()) for name in names]
    assert written[0] == written[1] == written[2]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["best_of_n/two", "case_solutions", "verifier_compute/one"])
def test_the_command_of_a_stage_finds_it_done(run, copied, stage) -> None:
    before = contents(copied)
    (command,) = (row["command"] for row in read_results(copied)["stages"] if row["folder"].endswith(stage))
    assert cli.main(shlex.split(command)[1:]) == 0
    assert contents(copied) == before


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_what_is_missing(run, copied) -> None:
    before, results = contents(copied), read_results(copied)
    cut = copied / "dvts/one/2/completions.jsonl"
    cut.write_bytes(cut.read_bytes().splitlines(keepends=True)[0])
    (copied / "verifier_compute/two/rounds=2.jsonl").unlink()
    status, out, err = run()
    assert status == 0
    assert "VERIFIER COMPUTE" in out
    assert err.count("memory of a device") == 1  # of all searches, one had to load something
    assert set(contents(copied)) == set(before)
    assert completions(cut.read_bytes()) == completions(before["dvts/one/2/completions.jsonl"])
    untouched = [name for name in before if not name.startswith(("dvts/one", "verifier_compute/two"))]
    assert all(contents(copied)[name] == before[name] for name in untouched)
    assert [row["stage"] for row in read_results(copied)["stages"]] == [row["stage"] for row in results["stages"]]


def completions(text: bytes) -> list[list[str]]:
    return [json.loads(line)["completions"] for line in text.splitlines()]


@pytest.mark.parametrize(
    "arguments", ["", "--quick", "--problems 5 --seed 3", "--quick --verifiers a=mini mini-weak"]
)
def test_the_printed_command_asks_for_the_same(tmp_path, monkeypatch, arguments) -> None:
    monkeypatch.chdir(tmp_path)
    asked = program.make_plan(program.parse(arguments.split()))
    words = shlex.split(asked.command)
    assert words[:2] == ["thinkprm", "miniature"]
    assert program.make_plan(program.parse(words[2:])) == asked


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        (["--problems", "0"], None, "--problems is 0, it must be at least 1"),
        ([], ["--verifiers", "nowhere/a", "elsewhere/a"], "--verifiers elsewhere/a: each verifier needs a name"),
        ([], ["--verifiers", "nowhere/at-all/really"], "nowhere/at-all/really"),
        (["--problems", "1"], None, "has more rows than the input"),
    ],
)
def test_what_cannot_work_is_one_line(run, finished, arguments, given, message) -> None:
    status, out, err = run(*arguments, given=given)
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]
