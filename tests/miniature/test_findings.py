"""The miniature's own figures, tables and commands; what it takes from others is tested there."""

from __future__ import annotations

from pathlib import Path

from thinkprm_jax.evaluation.selection.runs import SearchedProblem, SelectionRun
from thinkprm_jax.miniature.findings import gain_over_majority
from thinkprm_jax.miniature.stages import SearchStage, SweepStage, plan_stages
from thinkprm_jax.miniature.study import GENERATOR, SIZES, VERIFIERS, MiniaturePlan, MiniatureSize


def problem(scores: tuple[float, ...]) -> SearchedProblem:
    """Two wrong solutions that agree and a right one, in this order."""
    return SearchedProblem("p", ("1", "1", "2", "2"), scores, (False, False, True, True))


def plan(size: MiniatureSize = SIZES["full"], folder: str = "out") -> MiniaturePlan:
    return MiniaturePlan(Path(folder), GENERATOR, {name: name for name in VERIFIERS}, size)


def test_the_gain_over_the_majority_is_of_the_same_solutions() -> None:
    # The majority is the first of the two answers. Scores find the right one in the first problem: by the best
    # score and by their sum; in the second by the best score alone.
    run = SelectionRun("r", "r", (problem((0.1, 0.1, 0.9, 0.9)), problem((0.6, 0.6, 0.9, 0.0))))
    gains = gain_over_majority(run)
    assert list(gains) == [1, 2, 4]
    assert (gains[2]["naive"].value, gains[4]["naive"].value, gains[4]["weighted"].value) == (0.0, 1.0, 0.5)
    assert gains[4]["weighted"].n == 2
    assert (gains[4]["weighted"].low, gains[4]["weighted"].high) == (0.0, 1.0)


def test_all_searches_are_of_the_same_problems_and_the_cases_of_others() -> None:
    recipes = [stage.recipe for stage in plan_stages(plan()) if isinstance(stage, SearchStage)]
    drawn = {(recipe.dataset_split, recipe.dataset_seed, recipe.num_samples) for recipe in recipes[:-1]}
    assert len(drawn) == 1
    assert recipes[-1].dataset_seed != recipes[0].dataset_seed
    assert all(recipe.dataset_split == "test" for recipe in recipes)


def test_the_stages_are_those_that_the_sizes_ask_for() -> None:
    stages = plan_stages(plan())
    assert len(stages) == 1 + 2 + 2 * 2 * 3 + 1 + 2
    assert len({stage.folder for stage in stages}) == len(stages)
    sweep = next(stage for stage in stages if isinstance(stage, SweepStage))
    assert "--sweep n=1,2,4,8 --sweep rounds=1,2,3,4" in sweep.command
