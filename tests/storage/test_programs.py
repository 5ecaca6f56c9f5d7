"""Programs whose files are in a store: what they write there is what they write here, or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from support.guess_verifier import register_guess
from support.object_stores import Fault, Store, store
from support.processes import ROOT
from thinkprm_jax import cli
from thinkprm_jax.checkpoint.fingerprint import fingerprint
from thinkprm_jax.checkpoint.weights import BUNDLED, find_model
from thinkprm_jax.paths import _check_store
from thinkprm_jax.storage import Location, location, write_whole
from thinkprm_jax.storage.copies import upload_folder

ROWS = [{"problem": f"{i} + 2?", "steps": [f"{i} + 2 = {i + 2}."], "label": -1, "id": str(i)} for i in range(5)]
SOLVED = [{"problem": f"{i} + 2?", "answer": "4", "completions": ["The answer is 4."] * 2} for i in range(3)]
SEARCH = {"prm_type": "guess", "n": 2}


@pytest.fixture(scope="module", params=["gs", "s3"])
def server(request: pytest.FixtureRequest) -> Iterator[Store]:
    with store(request.param) as found:
        yield found


@pytest.fixture
def bucket(
    server: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> Location:
    """A folder of the test's own in the store; the working directory is another one, and both have the inputs."""
    register_guess(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    server.faults.clear()
    _check_store.cache_clear()
    place = location(f"{server.url}/{request.node.originalname}")
    for name, rows in (("rows.jsonl", ROWS), ("solved.jsonl", SOLVED)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_whole(place / name, text)
        write_whole(name, text)
    return place


def names(place: Location) -> list[str]:
    return sorted(file.name for file in place.iterdir())


def test_score_is_whole_or_absent_and_goes_on(
    bucket: Location, server: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["score", "--verifier", "guess", "--quiet"]
    assert cli.main([*command, "rows.jsonl", "--output", "out.jsonl"]) == 0
    # Every write of rows is refused: nothing is left that looks like a result.
    server.faults.append(Fault(path="out.jsonl.parts", status=403, times=1000))
    server.faults.append(Fault(method="POST", path="upload", status=403, times=0))
    assert cli.main([*command, f"{bucket}/rows.jsonl", "--output", f"{bucket}/out.jsonl"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"thinkprm score: error: {bucket}/out.jsonl")
    assert "permission denied" in said
    server.faults.clear()
    assert not (bucket / "out.jsonl").exists()
    assert cli.main([*command, f"{bucket}/rows.jsonl", "--output", f"{bucket}/out.jsonl"]) == 0
    assert (bucket / "out.jsonl").read_text() == Path("out.jsonl").read_text()
    assert cli.main([*command, f"{bucket}/rows.jsonl", "--output", f"{bucket}/out.jsonl"]) == 0
    assert names(bucket) == ["out.jsonl", "rows.jsonl", "solved.jsonl"]
    assert cli.main(["report", f"{bucket}/out.jsonl"]) == 0
    assert (bucket / "out.html").read_text().startswith("<!doctype html>")


def test_evaluate(bucket: Location) -> None:
    command = ["evaluate", "solutions"]
    for place in (str(bucket), "."):
        output = ["--verifier", "guess", "--output-dir", f"{place}/figures"]
        assert cli.main([*command, f"{place}/rows.jsonl", *output]) == 0
    assert names(bucket / "figures") == names(Path("figures"))
    for name in ("details.jsonl", "figures.png"):
        assert (bucket / "figures" / name).read_bytes() == (Path("figures") / name).read_bytes()


def test_search_from_its_recipe_to_its_page(bucket: Location) -> None:
    for place in (str(bucket), "."):
        recipe = {**SEARCH, "cached_solutions_path": f"{place}/solved.jsonl", "output_dir": f"{place}/run"}
        write_whole(f"{place}/search.yaml", yaml.safe_dump(recipe))
        assert cli.main(["search", f"{place}/search.yaml"]) == 0
        assert cli.main(["report", f"{place}/run"]) == 0
    assert names(bucket / "run") == names(Path("run"))
    for name in ("completions.jsonl", "verdicts.jsonl"):
        assert (bucket / "run" / name).read_bytes() == (Path("run") / name).read_bytes()
    assert cli.main(["evaluate", "selection", f"here={bucket}/run"]) == 0


def test_a_model(bucket: Location, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("THINKPRM_JAX_CACHE", "cache")
    upload_folder(BUNDLED["mini"], location(f"{bucket}/mini"), last=("config.json",))
    found = find_model(f"{bucket}/mini")
    assert found.base.is_relative_to("cache")
    assert fingerprint(found) == fingerprint(find_model("mini"))
    assert f"{bucket}/mini: fetching" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["score", "rows.jsonl", "--verifier", "guess", "--output", "{}://nowhere/out.jsonl"],
            "no bucket nowhere",
        ),
        (["score", "{}://nowhere/rows.jsonl", "--verifier", "guess"], "no such file"),
        (["score", "rows.jsonl", "--verifier", "guess", "--output", "ftp://host/x"], "not ftp://"),
        (
            ["evaluate", "solutions", "rows.jsonl", "--verifier", "guess", "--output-dir", "{}://nowhere/x"],
            "no bucket",
        ),
        (["search", "{}://nowhere/search.yaml"], "no such file"),
        (["report", "{}://bucket/nothing", "--output", "page.html"], "no such file"),
        (["report", "{}://nowhere/run"], "no bucket nowhere"),
        (["collect", "{}://nowhere/collect.yaml"], "no such file"),
        (["train", "{}://nowhere/train.yaml"], "no such file"),
        (["miniature", "--quick", "--output", "{}://bucket/small"], "is an address, not a path of this machine"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line(
    bucket: Location, server: Store, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    before = sorted(Path().rglob("*"))
    scheme = server.url.partition(":")[0]
    try:
        status = cli.main([argument.format(scheme) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"thinkprm {arguments[0]}: error: ")
    assert said in line
    assert sorted(Path().rglob("*")) == before


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from thinkprm_jax.errors import UserError
    from thinkprm_jax.storage import stores

    monkeypatch.setattr(stores.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^gs://bucket/x: gs:// needs .* pip install 'thinkprm-jax\[gcs\]'$"):
        location("gs://bucket/x")


def test_the_recipes_of_the_package_are_read_from_a_store(bucket: Location) -> None:
    from thinkprm_jax.recipe import load_recipe
    from thinkprm_jax.training.config import TrainRecipe

    (recipe,) = (ROOT / "configs" / "train").glob("mini_verifier.yaml")
    write_whole(bucket / "train.yaml", recipe.read_text())
    assert load_recipe(TrainRecipe, f"{bucket}/train.yaml") == load_recipe(TrainRecipe, recipe)
