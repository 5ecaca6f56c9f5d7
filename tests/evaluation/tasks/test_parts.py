"""A part of a task's cases: the cases that the whole has there."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.runner import EvaluationTask
from thinkprm_jax.evaluation.tasks.arithmetic import arithmetic_task
from thinkprm_jax.evaluation.tasks.processbench import processbench_task
from thinkprm_jax.evaluation.tasks.robustness import robustness_task
from thinkprm_jax.records.row_source import Part

Made = Callable[..., EvaluationTask]


@pytest.fixture
def processbench(tmp_path: Path) -> Made:
    ids = [f"{subset}-{number}" for subset in ("gsm8k", "omnimath") for number in range(6)]
    rows = [{"id": id, "problem": f"{id}?", "steps": ["a", "b"], "label": -1} for id in ids]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return partial(processbench_task, str(tmp_path / "rows.jsonl"), ["gsm8k", "omnimath"])


@pytest.mark.parametrize("name", ["arithmetic", "robustness", "processbench"])
def test_parts_make_the_whole(name: str, processbench: Made) -> None:
    tasks = {
        "arithmetic": partial(arithmetic_task, 3, "test", 12),
        "robustness": partial(robustness_task, 3, "test", 12),
    }
    task = {**tasks, "processbench": processbench}[name]
    whole, parts = task(), [task(part=Part(shard=(number, 5))) for number in range(5)]
    assert [case for part in parts for case in part.cases] == list(whole.cases)
    assert "rows" not in whole.settings
    assert [part.settings["rows"] for part in parts] == [[0, 3], [3, 6], [6, 8], [8, 10], [10, 12]]
    assert (
        list(task(part=Part(2, 4)).cases) == list(task(part=Part(0, 4)).cases)[len(task(part=Part(0, 2)).cases) :]
    )
    with pytest.raises(UserError, match="has 12 rows, and start is 12"):
        task(part=Part(12))


def test_a_part_has_the_figures_of_its_subsets(processbench: Made) -> None:
    assert processbench(part=Part(0, 6)).settings["subsets"] == ["gsm8k"]
    figures = [figure.key for figure in processbench(part=Part(0, 6)).figures]
    assert "binary_f1_paper_average" not in figures
