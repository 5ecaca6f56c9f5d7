"""The public names: each is documented, and the example in its documentation runs."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import thinkprm_jax
from support import prm_folders, tiny_model
from thinkprm_jax.checkpoint import weights
from thinkprm_jax.data.discriminative import PUBLISHED
from thinkprm_jax.serving.server import BackgroundServer
from thinkprm_jax.serving.service import Service
from thinkprm_jax.verifier.thinkprm import ThinkPRM

NAMES = [name for name in thinkprm_jax.__all__ if name != "__version__"]
ADDRESS = "http://127.0.0.1:8000"  # of a server, in examples
VERDICT = {"prefix_score": 0.9, "step_scores": [0.9], "step_labels": [1]}
# What stands in an example -> what makes a small model of its kind; the judge is the bundled model.
MODELS = {
    "peiyi9979/math-shepherd-mistral-7b-prm": prm_folders.math_shepherd,
    "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data": prm_folders.rlhflow,
    "Qwen/Qwen2.5-Math-PRM-7B": prm_folders.qwen_prm,
    "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B": prm_folders.skywork_prm,
    "runs/disc_prm/export": tiny_model.save_folder,
    "Qwen/Qwen2.5-7B-Instruct": None,
}


def examples(name: str) -> list[str]:
    """The code below every line `Example:` of a docstring."""
    found: list[str] = []
    lines = (inspect.getdoc(getattr(thinkprm_jax, name)) or "").splitlines()
    for place, line in enumerate(lines):
        if line.strip() == "Example:":
            depth = len(line) - len(line.lstrip())
            block = []
            for text in lines[place + 1 :]:
                if text.strip() and len(text) - len(text.lstrip()) <= depth:
                    break
                block.append(text)
            found.append(textwrap.dedent("\n".join(block)).strip())
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found: dict[str, Path] = {"Qwen/Qwen2.5-7B-Instruct": weights.BUNDLED["mini"]}
    for number, (model, make) in enumerate(MODELS.items()):
        if make is None:
            continue
        folder = tmp_path_factory.mktemp("models") / str(number)
        folder.mkdir()
        make(folder)
        path = folder / "config.json"
        config = json.loads(path.read_text()) | {"max_position_embeddings": 4096, "sliding_window": None}
        ours = {"thinkprm": PUBLISHED.to_config()} if model.startswith("runs/") else {}
        path.write_text(json.dumps(config | ours))
        found[model] = folder
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server, as the examples have one."""
    with BackgroundServer(Service(ThinkPRM("mini", max_length=512, slots=4))) as address:
        yield address


@pytest.fixture
def namespace(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an example finds: every public name, the models that it names, a file of verdicts."""
    resolve = weights.resolve_folder
    monkeypatch.setattr(weights, "resolve_folder", lambda name: folders.get(str(name)) or resolve(name))
    monkeypatch.chdir(tmp_path)
    row = {"problem": "2 + 2?", "steps": ["2 + 2 = 4."], "verdict": VERDICT, "verifier": {}}
    Path("verdicts.jsonl").write_text(json.dumps(row) + "\n")
    return {name: getattr(thinkprm_jax, name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_an_example_that_runs(
    name: str, namespace: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    found = examples(name)
    assert found, f"{name} has no example"
    for example in found:
        if ADDRESS in example:
            example = example.replace(ADDRESS, request.getfixturevalue("server"))
        exec(compile(example, f"the example of {name}", "exec"), namespace)


def test_the_list_of_names_is_the_table() -> None:
    assert sorted(thinkprm_jax._EXPORTS) == sorted(NAMES)
    assert set(NAMES) <= set(dir(thinkprm_jax))


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(thinkprm_jax.__file__).parent / "py.typed").is_file()
