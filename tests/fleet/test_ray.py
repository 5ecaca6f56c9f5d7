"""`thinkprm score --engine ray`: on a cluster of this machine, with replicas and programs that are killed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import tiny_model
from thinkprm_jax import ScoreBatch, UserError, cli, verifier_settings
from thinkprm_jax.fleet.cluster import RayOptions, count_replicas
from thinkprm_jax.fleet.ray_engine import RayEngine
from thinkprm_jax.records.inputs import SolutionFile
from thinkprm_jax.verifier.loading import with_fingerprints

SETTINGS = ["--max-gen-tokens", "12", "--max-length", "768", "--slots", "4", "--seed", "3", "--n", "2"]
ON_RAY = ["--engine", "ray", "--replicas", "2"]
ROWS = [{"id": i, "problem": f"{i} + 1?", "steps": [f"{i} + 1 = {i + 1}"] * (1 + i % 3)} for i in range(80)]
MORE = [{"problem": "1 + 1?", "completions": []}, {"problem": "1 + 1?", "completions": ["2", ""]}]
NO_RAY = "Ray is not installed: pip install 'thinkprm-jax[ray]'"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model.save_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, *MORE]))
    return tmp_path


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two processors and no dashboard."""
    ray = pytest.importorskip("ray", reason=NO_RAY)
    os.environ.update(RAY_worker_niceness="0")  # beside other tests its processes would get no turn
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    yield ray
    ray.shutdown()


def command(model: Path, output: str, *more: str) -> list[str]:
    return ["score", "in.jsonl", "--model", str(model), "--output", output, *SETTINGS, *more]


def same(found: Path, expected: Path) -> None:
    """All rows, each once, in order; chains and labels are the same, scores within rounding."""
    texts = [path.read_text().splitlines() for path in (found, expected)]
    assert len(texts[0]) == len(texts[1]) == len(ROWS) + len(MORE)
    for ours, theirs in zip(*([json.loads(line) for line in lines] for lines in texts), strict=True):
        assert ours.keys() == theirs.keys()
        assert (ours.get("id"), ours["verifier"]) == (theirs.get("id"), theirs["verifier"])
        every = [row["verdicts"] if "completions" in row else [row["verdict"]] for row in (ours, theirs)]
        for one, other in zip(*every, strict=True):
            assert one.get("error") == other.get("error")
            assert one.get("step_labels") == other.get("step_labels")
            outputs = [[chain["output"] for chain in each.get("chains", ())] for each in (one, other)]
            assert outputs[0] == outputs[1]
            if "error" not in one:
                assert one["prefix_score"] == pytest.approx(other["prefix_score"], abs=1e-5)


def replicas() -> list[int]:
    """Processes of this machine that hold a model for Ray."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name = (folder / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            if name.startswith(b"ray::MapWorker"):
                found.append(int(folder.name))
    return found


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_every_row_once_though_a_replica_is_killed(cluster, model, files, capsys):
    killed: list[int] = []

    def kill() -> None:
        while count_lines(files / "out.jsonl") < 8:
            time.sleep(0.01)
        killed.append(replicas()[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    status = cli.main(command(model, "out.jsonl", *ON_RAY))
    killer.join(timeout=10)
    assert killed
    assert status == 1  # a completion is empty
    assert "tokens/s" in capsys.readouterr().err
    assert cli.main(command(model, "here.jsonl")) == 1
    same(files / "out.jsonl", files / "here.jsonl")
    # Nothing is missing, so that nothing is loaded or judged.
    before = (files / "out.jsonl").read_bytes()
    assert cli.main(command(model, "out.jsonl", *ON_RAY)) == 1
    assert (files / "out.jsonl").read_bytes() == before


@pytest.mark.slow
def test_parts_of_a_folder_are_those_of_one_process(cluster, model, files):
    for output, more in (("ray/", ON_RAY), ("here/", [])):
        assert cli.main(command(model, output, "--parts", "3", "--quiet", *more)) == 1
    parts = [sorted((files / folder).glob("part-*.jsonl")) for folder in ("ray", "here")]
    assert [part.name for part in parts[0]] == [part.name for part in parts[1]]
    assert len(parts[0]) == 3
    for folder, found in zip(("ray", "here"), parts, strict=True):
        (files / f"{folder}.jsonl").write_text("".join(part.read_text() for part in found))
    same(files / "ray.jsonl", files / "here.jsonl")


@pytest.mark.slow
def test_the_stage_in_a_pipeline_of_the_users_own(cluster, model):
    from ray.data import ActorPoolStrategy, from_items

    settings = {"max_gen_tokens": 12, "max_length": 768, "slots": 4}
    judged = from_items(ROWS[:24], override_num_blocks=4).map_batches(
        ScoreBatch,
        fn_constructor_args=[str(model)],
        fn_constructor_kwargs=settings,
        batch_size=6,
        compute=ActorPoolStrategy(size=1),
    )
    found = {row["id"]: row for row in judged.take_all()}
    expected = ScoreBatch(str(model), **settings)(ROWS[:24])
    assert sorted(found) == list(range(24))
    for row in expected:
        assert found[row["id"]]["prefix_score"] == pytest.approx(row["prefix_score"], abs=1e-5)
        assert list(found[row["id"]]["step_labels"]) == row["step_labels"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RayOptions(gpus=1), "takes 1 CPU, 1 GPU"),
        (RayOptions(cpus=64), "has 2 CPU at most"),
        (RayOptions(replicas=3), "this machine has room for 2"),
    ],
)
def test_replicas_that_find_no_room_are_refused(cluster, options, message):
    with pytest.raises(UserError, match=message):
        count_replicas(cluster, options, grows=False)


@pytest.mark.slow
def test_a_replica_that_finds_another_model_is_refused(cluster, model, files):
    settings = with_fingerprints(verifier_settings(model, kind="thinkprm", max_length=768))
    other = dataclasses.replace(settings, fingerprints={**settings.fingerprints, "weights": "of another model"})
    with (
        SolutionFile("in.jsonl") as rows,
        RayEngine(other, RayOptions(replicas=1)) as engine,
        pytest.raises(UserError, match=f"^{re.escape(str(model))}: is another model on a machine of the cluster"),
    ):
        list(engine.judge(rows, range(8)))


@pytest.mark.slow
def test_a_program_that_is_killed_goes_on(model, files):
    pytest.importorskip("ray", reason=NO_RAY)
    program = [sys.executable, "-m", "thinkprm_jax.cli", *command(model, "out.jsonl", *ON_RAY, "--quiet")]
    process = subprocess.Popen(program)
    end = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < end and count_lines(files / "out.jsonl") < 8:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 8 <= count_lines(files / "out.jsonl") < len(ROWS)
    assert subprocess.run(program, timeout=300).returncode == 1
    assert cli.main(command(model, "here.jsonl")) == 1
    same(files / "out.jsonl", files / "here.jsonl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--replicas", "2"], "--replicas is for --engine ray"),
        ([*ON_RAY, "--replica-gpus", "1.5"], "--replica-gpus is 1.5: above 1 Ray knows whole ones alone"),
        ([*ON_RAY, "--replica-resources", "TPU"], "must be NAME=AMOUNT"),
        ([*ON_RAY, "--replica-resources", "GPU=1"], "CPUs and GPUs have options of their own"),
        (["--engine", "ray", "--replicas", "0"], "--replicas is 0, it must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(model, files, capsys, arguments, message):
    assert cli.main(command(model, "out.jsonl", *arguments)) == 2
    assert message in capsys.readouterr().err
    assert not (files / "out.jsonl").exists()
