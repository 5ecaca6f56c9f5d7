"""The runs of the paper in miniature.

A stage is an ordinary run of `thinkprm search` or `thinkprm evaluate` in a folder of its own, so it goes on where
it was stopped, and anybody can repeat it by its command.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.runner import VerifierLoader, judge_all
from thinkprm_jax.evaluation.selection.search_report import SearchReport
from thinkprm_jax.evaluation.sweep import SweepSetting, plan_sweep
from thinkprm_jax.evaluation.tasks.labelled import read_solutions
from thinkprm_jax.miniature.cases import choose_cases
from thinkprm_jax.miniature.study import SPLIT, TREES, MiniaturePlan, MiniatureSize, shell
from thinkprm_jax.records.output import write_rows
from thinkprm_jax.records.search_folder import COMPLETIONS, read_search_folder
from thinkprm_jax.search.recipe import SearchRecipe
from thinkprm_jax.verifier.registry import verifier_settings
from thinkprm_jax.verifier.settings import VerifierSettings

CHAIN_TEMPERATURE = 0.6  # of chains drawn side by side, as in the paper
SLOTS = 64  # contexts decoded together
WAVE = 50  # problems searched together
ITERATIONS = 10  # rounds of a search by steps; solutions have up to five
CASE_SAMPLES = 4  # solutions of a problem that its case is chosen from
# On two cores: a solution, its verdict, all that one of N costs a search by steps, a chain about a case; and what
# a stage takes before it has done anything (models, compilation).
SECONDS = {"solution": 0.01, "judged": 0.033, "candidates": 0.045, "chain": 0.052}
START_SECONDS = 8.0


RunSearch = Callable[[SearchRecipe], SearchReport]  # as `thinkprm search` does it


class MiniatureStage(Protocol):
    """A run of a program, and what it takes."""

    @property
    def folder(self) -> Path:
        """Of its run."""

    @property
    def what(self) -> str:
        """In words."""

    @property
    def cost(self) -> float:
        """Seconds that it took on two cores, for the time that is left."""

    @property
    def command(self) -> str:
        """Repeats the stage, or goes on with it."""

    def run(self, search: RunSearch) -> int:
        """Exit status: 1 where some solution got no verdict."""


@dataclasses.dataclass(frozen=True)
class SearchStage:
    folder: Path
    what: str
    cost: float
    recipe: SearchRecipe

    @property
    def command(self) -> str:
        return shell("thinkprm", "search", self.folder / "recipe.yaml")

    def run(self, search: RunSearch) -> int:
        return int(bool(search(self.recipe).failures))


@dataclasses.dataclass(frozen=True)
class CaseStage(SearchStage):
    """A search whose solutions become cases."""

    cases: Path = Path()

    def run(self, search: RunSearch) -> int:
        status = super().run(search)
        write_cases(self.folder / COMPLETIONS, self.cases, self.recipe.dataset_seed)
        return status


@dataclasses.dataclass(frozen=True)
class SweepStage:
    """A verifier judges the cases with more and more compute."""

    folder: Path
    what: str
    cost: float
    cases: Path
    model: str
    size: MiniatureSize
    seed: int

    @property
    def command(self) -> str:
        options: dict[str, Any] = {
            "model": self.model,
            "temperature": CHAIN_TEMPERATURE,
            "seed": self.seed,
            "max-length": self.size.compute_length,
            "slots": SLOTS,
        }
        if self.size.max_gen_tokens is not None:
            options["max-gen-tokens"] = self.size.max_gen_tokens
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        sweeps = [word for text in self.sweeps for word in ("--sweep", text)]
        return shell("thinkprm", "evaluate", "solutions", self.cases, *words, *sweeps, "--output-dir", self.folder)

    @property
    def sweeps(self) -> tuple[str, str]:
        chains, rounds = (",".join(map(str, values)) for values in (self.size.chains, self.size.rounds))
        return f"n={chains}", f"rounds={rounds}"

    def run(self, search: RunSearch) -> int:
        return self.judge()[1]

    def judge(self) -> tuple[list[SweepSetting], int]:
        """(the settings with their outcomes, exit status); what the folder holds already is not judged again."""
        cases = read_solutions(str(self.cases))
        self.folder.mkdir(parents=True, exist_ok=True)
        loader, settings, status = VerifierLoader(), [], 0
        for run in plan_sweep(self.sweeps):
            chosen = self._verifier(run.change)
            judged = judge_all(loader, chosen, cases, self.folder / f"{run.name}.jsonl")
            status = max(status, judged.status)
            settings += [setting for setting, _ in run.settings(chosen.stamp, judged)]
        return settings, status

    def _verifier(self, change: Mapping[str, Any]) -> VerifierSettings:
        """The temperature is the same for both ways to spend compute, so they begin in the same point."""
        return verifier_settings(
            self.model,
            default="thinkprm",
            temperature=CHAIN_TEMPERATURE,
            seed=self.seed,
            max_length=self.size.compute_length,
            max_gen_tokens=self.size.max_gen_tokens,
            slots=SLOTS,
            **change,
        )


def plan_stages(plan: MiniaturePlan) -> list[MiniatureStage]:
    """All that is run, in order. What a stage reads, an earlier one has written."""
    size, names = plan.size, list(plan.verifiers)
    stages: list[MiniatureStage] = [
        SearchStage(
            plan.solutions,
            f"{size.samples} solutions of {size.problems:,} problems",
            _cost("solution", size.problems * size.samples),
            _recipe(plan, plan.solutions, approach="sample", n=size.samples),
        )
    ]
    for name in names:
        stages.append(_best_of_n(plan, name))
    for approach, name, n in itertools.product(TREES, names, size.beams):
        stages.append(_tree(plan, approach, name, n))
    folder = plan.folder / "case_solutions"
    recipe = _recipe(plan, folder, approach="sample", n=CASE_SAMPLES, num_samples=size.cases)
    stages.append(
        CaseStage(
            folder,
            f"solutions of {size.cases:,} other problems, one case each",
            _cost("solution", size.cases * CASE_SAMPLES),
            dataclasses.replace(recipe, dataset_seed=plan.case_seed),
            plan.cases,
        )
    )
    for name, model in plan.verifiers.items():
        chains = max(size.chains) + sum(size.rounds)
        what = f"{name} judges the cases with 1 to {max(size.chains)} chains and 1 to {max(size.rounds)} rounds"
        cost = _cost("chain", size.cases * chains)
        stages.append(SweepStage(plan.compute(name), what, cost, plan.cases, model, size, plan.seed))
    return stages


def _best_of_n(plan: MiniaturePlan, name: str) -> SearchStage:
    """Every verifier judges the same solutions."""
    size, folder = plan.size, plan.best_of_n(name)
    cached = str(plan.solutions / COMPLETIONS)
    recipe = _recipe(plan, folder, n=size.samples, prm_path=plan.verifiers[name], cached_solutions_path=cached)
    cost = _cost("judged", size.problems * size.samples)
    return SearchStage(folder, f"best-of-N: {name} judges the solutions", cost, recipe)


def _tree(plan: MiniaturePlan, approach: str, name: str, n: int) -> SearchStage:
    size, folder = plan.size, plan.tree(approach, name, n)
    recipe = _recipe(
        plan,
        folder,
        approach=approach,
        n=n,
        beam_width=size.width,
        num_iterations=ITERATIONS,
        filter_duplicates=approach == "beam_search",
        prm_path=plan.verifiers[name],
    )
    cost = _cost("candidates", size.problems * n)
    return SearchStage(folder, f"{TREES[approach]} guided by {name}, N = {n}", cost, recipe)


def _cost(what: str, count: int) -> float:
    return START_SECONDS + count * SECONDS[what]


def _recipe(plan: MiniaturePlan, folder: Path, **fields: Any) -> SearchRecipe:
    common: dict[str, Any] = {
        "seed": plan.seed,
        "model_path": plan.generator,
        "system_prompt": None,  # the solver was trained without one
        "temperature": 0.8,
        "max_tokens": plan.size.max_tokens,
        "prm_seed": plan.seed,
        "max_verification_length": plan.size.max_length,
        "max_verification_tokens": plan.size.max_gen_tokens,
        "dataset_name": "arithmetic",
        "dataset_split": SPLIT,
        "dataset_seed": plan.seed,
        "num_samples": plan.size.problems,
        "output_dir": str(folder),
        "wave": WAVE,
    }
    return SearchRecipe(**{**common, **fields})


def write_cases(completions: Path, cases: Path, seed: int) -> None:
    """The file that the sweeps judge.

    Raises:
      UserError: the solver wrote no solution at all, or the file cannot be written.
    """
    rows = choose_cases(read_search_folder(completions).rows, seed, SPLIT)
    if not rows:
        raise UserError(f"{completions}: holds no solution with a step, so there is nothing to judge")
    write_rows(cases, rows)
