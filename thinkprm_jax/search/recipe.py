"""Recipes of searches, with search-and-learn's names, so that its files and ThinkPRM's run as they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, Literal

from thinkprm_jax.errors import UserError
from thinkprm_jax.protocol.prompts import verification_prompt
from thinkprm_jax.recipe import MeshConfig, at_least, load_recipe
from thinkprm_jax.records.row_source import Part, parse_shard
from thinkprm_jax.sampler.request import check_drafts
from thinkprm_jax.search.engine import SearchSettings
from thinkprm_jax.search.voting import Strategy
from thinkprm_jax.seeds import check_seeds
from thinkprm_jax.storage import Location, location
from thinkprm_jax.verifier.registry import all_settings, judges

# The system turn of search-and-learn's and ThinkPRM's runs, character by character.
SYSTEM_PROMPT = (
    "Solve the following math problem efficiently and clearly:\n\n"
    "- For simple problems (2 steps or fewer):\nProvide a concise solution with minimal explanation.\n\n"
    "- For complex problems (3 steps or more):\nUse this step-by-step format:\n\n"
    "## Step 1: [Concise description]\n[Brief explanation and calculations]\n\n"
    "## Step 2: [Concise description]\n[Brief explanation and calculations]\n\n...\n\n"
    "Regardless of the approach, always conclude with:\n\n"
    "Therefore, the final answer is: $\\boxed{answer}$. I hope it is correct.\n\n"
    "Where [answer] is just the final number or expression that solves the problem."
)
DATASET = "HuggingFaceH4/MATH-500"
VERIFIER = "launch/ThinkPRM-1.5B"  # of a recipe that names none

_IN_PROCESS = "the verifier runs in this process"
_HUB = "results stay in output_dir"
_QUANTIZE = "quantize: int8 holds weights in eight bits, dtype says how the rest is held"
# Fields of search-and-learn and of ThinkPRM's version of it that mean nothing here.
UNUSED = {
    "verifier_endpoint": _IN_PROCESS,
    "prm_device": "generator and verifier share the mesh",
    "gpu_memory_utilization": "memory is planned from the sizes of both models; device_memory bounds it",
    "search_batch_size": "problems are searched together, `wave` of them at a time",
    "prm_batch_size": "the verifier fills its slots by itself; prm_slots sets how many",
    "load_in_4bit": _QUANTIZE,
    "load_in_8bit": _QUANTIZE,
    "num_proc": "answers are compared by worker processes of their own",
    "apply_voting": "predictions by every vote are always written",
    "voting_n": "accuracies are given at every power of two up to n",
    "truncate_beams": "max_tokens is of the whole solution, so that no beam grows beyond it",
    "push_to_hub": _HUB,
    "hub_dataset_id": _HUB,
    "hub_dataset_private": _HUB,
    "overwrite_hub_revision": _HUB,
    "trigger_phrase": "it changes no chain in the original either, where each round has a phrase of its own",
}


# Of the verifier's settings, what this file says by itself: names, types or defaults of search-and-learn.
_NAMED = ("n", "temperature", "seed", "rounds", "max_length", "max_gen_tokens", "judge_prompt", "slots", "labels")
# A verifier that has no such thing needs none: recipes are shared between verifiers.
_TOLERATED = ("temperature", "seed", "max_length", "max_gen_tokens", "slots")
# Defaults of the original, which recipes of other verifiers may spell out.
_THEIRS = {"decision": "\nIs the solution correct? ", "labels": ("yes", "no")}


def _other_keys() -> list[tuple[str, Any, Any]]:
    """A field for every other setting that some kind of verifier has, of those that are registered by now."""
    found = []
    for name, (setting, _) in all_settings().items():
        if setting.recipe and name not in _NAMED:
            kind = Literal[setting.choices] if setting.choices else setting.type
            default = setting.default
            found.append((setting.recipe, kind | None if setting.optional else kind, field(default=default)))
    return found


_VerifierKeys: Any = make_dataclass("_VerifierKeys", _other_keys(), frozen=True)


@dataclass(frozen=True)
class SearchRecipe(_VerifierKeys):
    """Fields in the order of docs/search.md, which says what each means. Those of the verifier that are not here
    are ``prm_`` and the name of the setting: every setting of every kind of verifier is a field."""

    # The search
    approach: Literal["best_of_n", "beam_search", "dvts", "greedy", "sample"] = "best_of_n"
    n: int = 4
    beam_width: int = 4
    num_iterations: int = 40
    lookahead: int = 0
    filter_duplicates: bool = False
    sort_completed: bool = False
    agg_strategy: Strategy = "last"
    vote_strategy: Strategy | None = None  # of the scores that votes and curves use; null: agg_strategy
    # search_and_learn: beam search fills up to n candidates every round, DVTS gives the candidates of each tree's
    # last round back, ended or not.
    search_rules: Literal["own", "search_and_learn"] = "own"
    seed: int = 42
    # The generator
    model_path: str = "meta-llama/Llama-3.2-1B-Instruct"
    system_prompt: str | None = SYSTEM_PROMPT  # null: no system turn
    custom_chat_template: str | None = None  # null: the tokenizer's own
    temperature: float = 0.8
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    max_tokens: int = 2048  # of a whole solution
    step_separator: str = "\n\n"
    stop: tuple[str, ...] = ()  # texts that end a solution, beside the model's own end
    # The verifier
    prm_path: str | None = None
    prm_type: str | None = None  # null: what prm_path is
    prm_n: int = 1
    prm_temperature: float = 0.0
    prm_seed: int = 0
    n_thinking_rounds: int | None = None
    max_rounds: int | None = None  # another name of n_thinking_rounds
    max_verification_length: int | None = None  # prompt and chain; null: 8192, or what the verifier can
    max_verification_tokens: int | None = None  # of a round; null: what fits
    # What max_verification_length bounds: prompt and all rounds together, or what each round writes (as there).
    verification_budget: Literal["chain", "round"] = "chain"
    prm_verifier_instruction: str | None = None  # in place of the prompt's last paragraph
    prm_label_categories: str | None = (
        None  # answers to prm_predecision_string, with commas between; null: Yes, No
    )
    judge_prompt: Literal["single", "index", "steps"] | None = None
    just_sample: bool = False  # no verifier
    long_cot: bool = False  # the verifier sees what stands before </think>
    # The data
    dataset_name: str | None = None  # a hub id, a file, or `arithmetic`
    dataset_config: str | None = None
    dataset_split: str = "test"
    dataset_start: int | None = None
    dataset_end: int | None = None
    dataset_shard: str | None = None  # `i/N`: of these rows the i-th of N parts, from 0
    dataset_where: tuple[str, ...] = ()  # `field=value`: only rows for which all of these hold
    dataset_seed: int = 0  # of the problems of `arithmetic`, and of the order of GPQA's options
    num_samples: int | None = None
    cached_solutions_path: str | None = None
    answer_kind: Literal["math", "choice", "exact", "none"] = "math"
    # The run
    output_dir: str | None = None
    wave: int = 64  # problems that are searched together
    slots: int | None = None  # solutions decoded together; null: what the memory holds
    prm_slots: int | None = None  # the same of the verifier's chains
    drafts: int | None = None  # of the solutions: tokens a step tries that were written before; null: what pays
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # null: float32 on CPUs, bfloat16 elsewhere
    quantize: Literal["int8"] | None = None  # the weights of both models in eight bits; null: in dtype
    device_memory: float | None = None  # GB (10^9 bytes) of one device; null: what the device says
    mesh: MeshConfig = field(default_factory=lambda: MeshConfig(data=1, tensor=-1))
    prm_mesh: MeshConfig | None = None  # the verifier's own devices, behind those of mesh; null: it shares those

    def __post_init__(self) -> None:
        if (self.custom_chat_template or "").strip().lower() == "none":  # as on search-and-learn's command lines
            object.__setattr__(self, "custom_chat_template", None)
        judges(self.prm_type)  # there is such a kind
        at_least(1, self, "n", "beam_width", "num_iterations", "max_tokens", "prm_n", "n_thinking_rounds")
        at_least(1, self, "max_rounds", "max_verification_length", "max_verification_tokens", "num_samples")
        at_least(1, self, "wave", "slots", "prm_slots")
        check_drafts(self.drafts)
        at_least(0, self, "lookahead", "temperature", "top_k", "prm_temperature", "dataset_start", "dataset_end")
        check_seeds(self, "seed", "prm_seed", "dataset_seed")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p}")
        if self.approach == "dvts" and self.n % self.beam_width:
            raise ValueError(f"n must be a multiple of beam_width for dvts, not {self.n} and {self.beam_width}")
        if self.n > 1 and self.temperature == 0 and self.approach != "greedy" and not self.cached_solutions_path:
            raise ValueError(f"n {self.n} needs a temperature above 0: greedy solutions are all the same")
        if not self.step_separator or "" in self.stop:
            raise ValueError("step_separator and the texts of stop must not be empty")
        if None not in (self.max_rounds, self.n_thinking_rounds) and self.max_rounds != self.n_thinking_rounds:
            raise ValueError("max_rounds is another name of n_thinking_rounds: give one of them")
        if self.prm_n > 1 and self.prm_temperature == 0:
            raise ValueError(f"prm_n {self.prm_n} needs prm_temperature above 0: greedy chains are all the same")
        if self.approach in ("beam_search", "dvts") and not self.verified:
            raise ValueError(f"{self.approach} needs a verifier (just_sample, or a prm_type that is none)")
        if self.cached_solutions_path and self.approach not in ("best_of_n", "sample"):
            raise ValueError("solutions of cached_solutions_path can only be ranked: approach must be best_of_n")
        if self.answer_kind == "none" and not self.cached_solutions_path:
            raise ValueError(
                "answer_kind none needs cached_solutions_path: its rows say which solutions are correct"
            )
        if (self.dataset_end is not None) and self.dataset_end <= (self.dataset_start or 0):
            raise ValueError("dataset_end must be above dataset_start")
        if self.dataset_shard is not None:
            Part(shard=parse_shard(self.dataset_shard))
        if not all("=" in condition for condition in self.dataset_where):
            raise ValueError("dataset_where holds conditions such as Level=5")
        if self.device_memory is not None and self.device_memory <= 0:
            raise ValueError("device_memory must be above 0")

    @property
    def verified(self) -> bool:
        """Whether a verifier is wanted."""
        without = self.just_sample or self.approach in ("greedy", "sample")
        return not without and judges(self.prm_type)

    @property
    def rounds(self) -> int:
        return self.n_thinking_rounds or self.max_rounds or 1

    @property
    def verifier_values(self) -> dict[str, Any]:
        """Setting of a verifier -> what the recipe says of it, of all kinds; None: nothing."""
        said = {
            name: getattr(self, setting.recipe, setting.default)
            for name, (setting, _) in all_settings().items()
            if setting.recipe
        }
        labels, instruction = self.prm_label_categories, self.prm_verifier_instruction
        said["labels"] = None if labels is None else tuple(labels.split(","))
        said["prompt"] = None if instruction is None else verification_prompt(instruction)
        return {**said, "rounds": self.rounds}

    @property
    def asked_of_verifier(self) -> dict[str, str]:
        """Setting -> `field value`, of those that a verifier must have, since without them it would be another."""
        found = {}
        for name, value in self.verifier_values.items():
            setting, _ = all_settings()[name]
            wanted = value is not None and value not in (setting.default, _THEIRS.get(name))
            if name not in _TOLERATED and wanted:
                key = setting.recipe or "prm_verifier_instruction"
                found[name] = f"{key} {getattr(self, key, value)!r}"
        return found

    @property
    def folder(self) -> Location:
        return location(self.output_dir or f"data/{self.model_path}")

    @property
    def settings(self) -> SearchSettings:
        theirs = self.search_rules == "search_and_learn"
        return SearchSettings(
            n=1 if self.approach == "greedy" else self.n,
            beam_width=self.beam_width,
            num_iterations=self.num_iterations,
            # The original's beam search looks ahead and scores nothing of it.
            lookahead=0 if theirs and self.approach == "beam_search" else self.lookahead,
            max_tokens=self.max_tokens,
            seed=self.seed,
            agg_strategy=self.agg_strategy,
            filter_duplicates=self.filter_duplicates,
            sort_completed=self.sort_completed,
            as_search_and_learn=theirs,
        )


# Fields that may change between the parts of one run: no solution and no verdict depends on them, or (those of the
# data) they only add problems behind those that are done.
FREE_FIELDS = (
    "output_dir", "wave", "slots", "prm_slots", "drafts", "prm_drafts", "device_memory", "mesh.", "prm_mesh",
    "dataset_end", "num_samples",
)  # fmt: skip


def load_search_recipe(
    path: str | Path, overrides: Sequence[str] = (), say: Callable[[str], None] | None = None
) -> SearchRecipe:
    """The recipe; ``say`` (default: stderr) gets one line on every field that means nothing here.

    Raises:
      UserError: see :func:`thinkprm_jax.recipe.load_recipe`.
    """
    if say is None:

        def say(line: str) -> None:
            print(line, file=sys.stderr)

    return load_recipe(recipe_class(), path, overrides, unused=UNUSED, say=say)


def recipe_class() -> type[SearchRecipe]:
    """SearchRecipe, with a field for every setting of the kinds that were registered after this file was loaded.

    Raises:
      UserError: such a setting would have the name of a field that is something else.
    """
    late = [key for key in _other_keys() if key[0] not in _VerifierKeys.__dataclass_fields__]
    for name, _, _ in late:
        if name in SearchRecipe.__dataclass_fields__ or name in UNUSED:
            raise UserError(f"a verifier's setting has the recipe key {name}, which is a field of every search")
    if not late:
        return SearchRecipe
    return make_dataclass("SearchRecipe", late, bases=(SearchRecipe,), frozen=True)
