"""`--mesh` in the programs: several devices say what one says."""

from __future__ import annotations

import json

import pytest
import yaml

from support import processes, tiny_model

pytestmark = pytest.mark.slow

# One process for all of it: what one program compiles another one has.
PROGRAM = """
import asyncio, contextlib, io, json, sys
from pathlib import Path
from thinkprm_jax import cli
from thinkprm_jax.infer import serve

work, model = Path(sys.argv[1]), sys.argv[2]
judged = ["--verifier", "thinkprm", "--model", model, "--max-length", "384", "--max-gen-tokens", "8"]
judged += ["--slots", "4"]

def run(*arguments):
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        status = cli.main([*map(str, arguments)])
    assert status == (arguments[0] == "collect"), said.getvalue()  # a random teacher gives nothing to keep
    return said.getvalue()

def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]

found = {"score": [], "evaluate": [], "search": [], "collect": []}
for name, mesh in (("one", []), ("data", ["--mesh", "data=4"]), ("both", ["--mesh", "data=2,tensor=2"])):
    said = run("score", work / "in.jsonl", "--output", work / f"{name}.jsonl", "--quiet", *judged, *mesh)
    found["score"].append(read(work / f"{name}.jsonl"))
    if name == "one":
        found["said"] = said
for name, mesh in (("one", []), ("auto", ["--mesh", "auto"])):
    output = work / f"{name}.json"
    details = work / f"{name}.details"
    run("evaluate", "solutions", work / "labelled.jsonl", "--output", output, "--details", details, *judged, *mesh)
    found["evaluate"].append([row["outcome"] for row in read(details)])
def search(name, *arguments):
    run("search", work / "search.yaml", *arguments, f"output_dir={work}/search_{name}")
    return [row["completions"] for row in read(work / f"search_{name}/completions.jsonl")]

found["apart"] = search("apart", "mesh.data=1", "mesh.tensor=1", "prm_mesh.data=2", "prm_mesh.tensor=1")
for name, mesh in (("one", "data=1"), ("data", "data=2")):
    found["search"].append(search(name, "--mesh", mesh))
    run("collect", work / "collect.yaml", f"--mesh={mesh}", f"output={work}/collect_{name}")
    rows = read(work / f"collect_{name}/generations.jsonl")
    found["collect"].append(sorted(json.dumps(row, sort_keys=True) for row in rows))

service = serve.load_service(serve.parse([*judged, "--mesh", "data=2"]))
service.engine.start()
rows = read(work / "in.jsonl")

async def ask():
    handles = [service.verifier.submit(row["problem"], row["steps"]) for row in rows]
    return [await service.engine.result(handle) for handle in handles]

found["serve"] = [verdict.step_labels for verdict in asyncio.run(ask())]
found["loops"] = service.sampler.workers
service.engine.stop()
print(json.dumps(found))
"""
ROWS = [{"problem": f"{i} + {i}?", "steps": [f"{i} + {i} = {2 * i}.", "So it is."]} for i in range(6)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    work = tmp_path_factory.mktemp("mesh")
    model = str(tiny_model.save_folder(work / "model", layers=1))
    (work / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    labelled = [{**row, "label": -1} for row in ROWS]
    (work / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    search = {
        "approach": "best_of_n", "n": 2, "system_prompt": None, "dataset_name": "arithmetic", "num_samples": 2,
        "max_tokens": 8, "max_verification_length": 384, "max_verification_tokens": 8, "slots": 4, "prm_slots": 4,
        "temperature": 1.0, "model_path": model, "prm_path": model, "output_dir": "out", "prm_type": "thinkprm",
    }  # fmt: skip
    (work / "search.yaml").write_text(yaml.safe_dump(search))
    teacher = {
        "model": model, "prompt": "verification", "chains": 2, "temperature": 1.0, "max_tokens": 8,
        "max_length": 384, "slots": 2,
    }  # fmt: skip
    collect = {
        "output": "out", "source": {"arithmetic": {"examples": 3, "seed": 5, "split": "unseen"}},
        "teacher": teacher, "filter": {"target": None, "balance": False, "labels": "none"},
    }  # fmt: skip
    (work / "collect.yaml").write_text(yaml.safe_dump(collect))
    return processes.answer(PROGRAM, work, model, devices=4)


def same(ours, theirs):
    """But for the last digits of scores: products of other shapes are rounded otherwise."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == pytest.approx(theirs, abs=1e-5) if isinstance(ours, float) else ours == theirs


@pytest.mark.parametrize("place", [1, 2])
def test_score_on_four_devices(found, place):
    one, several = found["score"][0], found["score"][place]
    assert len(one) == len(ROWS)
    assert same(one, several)


def test_who_uses_one_device_of_four_is_told(found):
    assert "one of the 4 devices here is used: --mesh auto uses all" in found["said"]


@pytest.mark.parametrize("program", ["evaluate", "search", "collect"])
def test_the_other_programs(found, program):
    one, several = found[program]
    assert one
    assert same(one, several)


def test_a_verifier_with_devices_of_its_own(found):
    assert same(found["search"][0], found["apart"])


def test_serve_has_a_decode_loop_a_replica(found):
    assert found["loops"] == 2
    assert found["serve"] == [row["verdict"]["step_labels"] for row in found["score"][0]]
