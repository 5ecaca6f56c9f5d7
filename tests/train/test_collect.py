"""`thinkprm collect` as a program: end to end with the bundled model, killed, refused, filtered anew."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import processes
from thinkprm_jax import cli
from thinkprm_jax.checkpoint.huggingface import BUNDLED
from thinkprm_jax.data.chains import read_chains

RECIPE: dict[str, Any] = {
    "source": {"arithmetic": {"examples": 16, "seed": 5, "split": "unseen"}},
    "teacher": {
        "model": "mini",
        "prompt": "verification",
        "chains": 2,
        "temperature": 1.5,
        "max_tokens": 160,
        "max_length": 384,
        "slots": 4,
    },
    "filter": {"target": None, "balance": False},
    "wave": 8,
}
FILES = ("chains.jsonl", "decisions.jsonl", "generations.jsonl", "lengths.png", "recipe.yaml", "report.json")


def write(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "in.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "output": str(folder / "run"), **changes}), encoding="utf-8")
    return path


def start(recipe: Path, cache: Path) -> subprocess.Popen[str]:
    """The program as a process of its own; `cache` keeps compiled programs from one start to the next."""
    environment = processes.environment(THINKPRM_JAX_CACHE=str(cache))
    command = [sys.executable, "train/collect.py", str(recipe)]
    return subprocess.Popen(command, cwd=processes.ROOT, env=environment, text=True, stderr=subprocess.PIPE)


def contents(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(run folder, compile cache) of a run that nobody disturbed."""
    folder, cache = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("cache")
    process = start(write(folder), cache)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return folder / "run", cache


@pytest.mark.slow
def test_everything_is_there_and_can_be_trained_on(finished):
    run, _ = finished
    assert sorted(path.name for path in run.iterdir()) == sorted(FILES)
    report = json.loads((run / "report.json").read_text())
    assert report["generations"]["chains"] == 32
    assert report["kept"]["chains"] + sum(report["dropped"].values()) == 32
    chains = read_chains(run / "chains.jsonl")
    assert len(chains) == report["kept"]["chains"] > 5
    assert {chain.correct for chain in chains} == {True, False}


def stored(run: Path) -> int:
    """Chains on disk; one that waited for its turn stands in both files."""
    found = set()
    for path in (run / "generations.jsonl", run / "generations.jsonl.waiting"):
        for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:
            row = json.loads(line)
            row = row.get("row", row)
            found.add((row["prefix"], row["chain"]))
    return len(found)


def stop_when(process: subprocess.Popen[str], run: Path, lines: int, how: signal.Signals) -> None:
    """A signal at the first moment at which so many chains are stored."""
    limit = time.monotonic() + 120
    while stored(run) < lines and process.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(how)
    process.wait(timeout=60)


@pytest.mark.slow
def test_stopped_and_killed_at_any_moment_it_goes_on_and_ends_with_the_same_files(finished, tmp_path):
    whole, cache = finished
    recipe, run = write(tmp_path), tmp_path / "run"
    stops = ((signal.SIGTERM, random.randint(1, 8)), (signal.SIGKILL, random.randint(12, 28)))
    for how, goal in stops:
        process = start(recipe, cache)
        stop_when(process, run, goal, how)
        assert stored(run) >= goal
        assert process.stderr is not None
        last = process.stderr.read().strip().splitlines()[-1:]
        assert process.returncode == (143 if how == signal.SIGTERM else -signal.SIGKILL)
        assert how == signal.SIGKILL or last == ["thinkprm collect: stopped"]
    with open(run / "generations.jsonl", "ab") as file:
        file.write(b'{"prefix": ')  # a half-written line
    before = (run / "generations.jsonl").read_bytes().split(b"\n")[:-1]
    process = start(recipe, cache)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "chains are there already" in said
    assert (run / "generations.jsonl").read_bytes().split(b"\n")[: len(before)] == before
    ours, theirs = contents(run), contents(whole)
    assert ours.pop("recipe.yaml") != theirs.pop("recipe.yaml")  # another output
    assert ours == theirs


@pytest.fixture
def copied(finished, tmp_path):
    """A recipe whose run is done, with a teacher that is not there any more."""
    recipe = write(tmp_path, teacher={**RECIPE["teacher"], "model": str(tmp_path / "teacher")})
    shutil.copytree(finished[0], tmp_path / "run")
    text = (tmp_path / "run" / "recipe.yaml").read_text()
    (tmp_path / "run" / "recipe.yaml").write_text(text.replace("model: mini", f"model: {tmp_path / 'teacher'}"))
    lines = (tmp_path / "run" / "generations.jsonl").read_text()
    teacher = json.dumps(str(tmp_path / "teacher"))
    (tmp_path / "run" / "generations.jsonl").write_text(lines.replace('"model": "mini"', f'"model": {teacher}'))
    (tmp_path / "teacher").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(BUNDLED["mini"]) / name, tmp_path / "teacher")
    return recipe


def collect(*arguments: object) -> int:
    return cli.main(["collect", *map(str, arguments)])


@pytest.mark.slow
def test_filters_run_again_without_the_teacher(copied, finished):
    run = copied.parent / "run"
    assert collect(copied) == 0
    assert (run / "chains.jsonl").read_bytes() == (finished[0] / "chains.jsonl").read_bytes()
    kept = {}
    for labels in ("process", "outcome", "none"):
        assert collect(copied, f"filter.labels={labels}") == 0
        kept[labels] = set((run / "chains.jsonl").read_text().splitlines())
    assert kept["process"] <= kept["outcome"] < kept["none"]


@pytest.mark.slow
def test_a_target_ends_the_run_at_the_wave_that_reaches_it(copied):
    report = copied.parent / "run" / "report.json"
    assert collect(copied, "filter.target=3") == 0
    figures = json.loads(report.read_text())
    assert figures["prefixes_used"] == 8  # one wave of two
    assert figures["kept"]["chains"] == 3


@pytest.mark.slow
def test_too_few_chains_are_status_1(copied, capsys):
    assert collect(copied, "filter.target=1000") == 1
    assert "of the 1,000 wanted: the source is used up" in capsys.readouterr().err


def test_generations_made_elsewhere_are_filtered(tmp_path, capsys):
    rows = [json.loads(line) for line in (processes.ROOT / "thinkprm_jax" / "bundled" / "examples.jsonl").open()][
        :3
    ]
    box = "Step {}: The step is \\boxed{{correct}}"
    for row in rows:
        row["traj_gt_labels"] = ["+"] * len(row["steps"])
        row["prefix_steps"] = row["steps"]
        good = "\n\n".join(box.format(number) for number in range(1, len(row["steps"]) + 1))
        row["generations"] = [good, "no verdict at all", good.replace("{correct", "{incorrect")]
    file = tmp_path / "made.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "output": str(tmp_path / "run"),
                "tokenizer": "mini",
                "source": {"generations": {"files": [str(file)]}, "limit": 2},
                "filter": {"balance": False, "target": None},
            }
        )
    )
    assert collect(recipe) == 0
    assert len(read_chains(tmp_path / "run" / "chains.jsonl")) == 2
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["source"] == {"rows": 3, "prefixes": 3, "dropped": {"beyond the limit": 1}}
    assert report["dropped"]["no verdict"] == 2
    assert "chains.jsonl: 2 chains" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["teacher.chains=4"], "holds a run of another recipe: teacher.chains (2 there, 4 now)"),
        (["seed=1"], "another recipe: seed (0 there, 1 now)"),
        (["source.arithmetic.examples=9"], "another recipe: source.arithmetic.examples (16 there, 9 now)"),
        (["source.limit=2"], "has more rows than the input"),
        (["teacher.chians=4"], "did you mean teacher.chains?"),
        (["source.arithmetic=", "source.prm800k.files=[none.jsonl]"], "none.jsonl: No such file"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(copied, capsys, overrides, said):
    before = contents(copied.parent / "run")
    assert collect(copied, *overrides) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    after = contents(copied.parent / "run")
    assert {name: data for name, data in after.items() if name != "recipe.yaml"} == {
        name: data for name, data in before.items() if name != "recipe.yaml"
    }


def test_help_names_what_there_is(capsys):
    with pytest.raises(SystemExit):
        collect("--help")
    assert "configs/collect/arithmetic.yaml" in capsys.readouterr().out


def test_a_mesh_that_the_devices_do_not_make_is_refused(tmp_path, capsys):
    assert collect(write(tmp_path), "mesh.tensor=3") == 2
    assert "needs 3 devices" in capsys.readouterr().err
