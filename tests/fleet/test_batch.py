"""The stage that judges, called with batches of every form."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import numpy as np
import pytest

from support import tiny_model
from thinkprm_jax import ScoreBatch, UserError, load_verifier

SETTINGS: dict[str, Any] = {"max_gen_tokens": 12, "max_length": 768, "slots": 4}
ROWS: list[dict[str, Any]] = [
    {"id": 1, "problem": "2 + 3?", "steps": ["2 + 3 = 5"]},
    {"id": 2, "problem": "2 + 3 + 4?", "steps": ["2 + 3 = 6", "6 + 4 = 10"]},
    {"id": 3, "problem": "1 + 1?", "steps": []},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny_model.save_folder(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module")
def score(model) -> ScoreBatch:
    return ScoreBatch(model, **SETTINGS)


@pytest.fixture(scope="module")
def expected(model) -> list[Any]:
    verdicts = dict(
        load_verifier(model, kind="thinkprm", **SETTINGS).verify((row["problem"], row["steps"]) for row in ROWS)
    )
    return [verdicts[number] for number in range(len(ROWS))]


def _columns() -> dict[str, Any]:
    columns: dict[str, Any] = {"id": np.array([1, 2, 3]), "problem": np.array([row["problem"] for row in ROWS])}
    columns["steps"] = np.empty(3, object)
    for number, row in enumerate(ROWS):
        columns["steps"][number] = np.array(row["steps"], object)
    return columns


def _pandas() -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(_columns(), index=[5, 7, 9])


def _arrow() -> Any:
    return pytest.importorskip("pyarrow").Table.from_pylist(ROWS)


@pytest.mark.parametrize("make", [_columns, _pandas, _arrow, lambda: ROWS])
def test_a_batch_comes_back_as_it_came_with_verdicts(score, expected, make):
    given = make()
    found = score(given)
    assert type(found) is type(given)
    if isinstance(found, list):
        found = {name: [row[name] for row in found] for name in found[0]}
    elif hasattr(found, "to_pydict"):
        found = found.to_pydict()
    found = {name: list(column) for name, column in found.items()}
    assert found["id"] == [1, 2, 3]
    for number, verdict in enumerate(expected[:2]):
        assert found["prefix_score"][number] == pytest.approx(verdict.prefix_score, abs=1e-6)
        assert list(found["step_labels"][number]) == verdict.step_labels
        assert found["error"][number] is None
        assert json.loads(found["verdict"][number])["step_labels"] == verdict.step_labels
        assert json.loads(found["verifier"][number])["max_length"] == 768
    assert math.isnan(found["prefix_score"][2])
    assert found["error"][2] == "there are no steps to judge"


def test_completions_have_a_verdict_each(score):
    found = score({"problem": ["2 + 3?", "1 + 1?"], "completions": [["2 + 3 = 5", "It is 6."], []]})
    assert [len(scores) for scores in found["prefix_score"]] == [2, 0]
    assert found["error"][0] == [None, None]
    spans = [json.loads(text)["step_spans"] for text in found["verdict"][0]]
    assert spans == [[[0, 9]], [[0, 8]]]


def test_a_copy_is_made_anew(score):
    copy = pickle.loads(pickle.dumps(score))
    assert copy.verifier is not score.verifier
    assert copy(ROWS[:1])[0]["prefix_score"] == pytest.approx(score(ROWS[:1])[0]["prefix_score"], abs=1e-6)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"problem": ["a"]}, "row 0: the field `steps`"),
        ({"problem": ["a", 7], "steps": [["b"], ["c"]]}, "row 1: the field `problem`"),
        ({"problem": ["a"], "steps": [["b"]], "verdict": ["old"]}, "row 0: the field `verdict`"),
        ({"problem": ["a", "b"], "steps": [["b"]]}, "not of one length"),
        ("rows", "this is str"),
    ],
)
def test_what_is_no_batch_is_refused(score, batch, message):
    with pytest.raises(UserError, match=message):
        score(batch)
