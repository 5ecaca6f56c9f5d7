"""Recipes of searches: search-and-learn's names, and what becomes of each."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from thinkprm_jax.errors import UserError
from thinkprm_jax.recipe import dump_recipe
from thinkprm_jax.search.recipe import FREE_FIELDS, UNUSED, SearchRecipe, load_search_recipe

# Every field of search-and-learn's configuration and of ThinkPRM's version of it, with values as in recipes.
ORIGINAL = {
    "approach": "beam_search", "model_path": "meta-llama/Llama-3.2-3B-Instruct", "gpu_memory_utilization": 0.98,
    "prm_path": "launch/ThinkPRM-1.5B", "output_dir": "outputs/beam", "num_proc": None, "push_to_hub": False,
    "hub_dataset_id": None, "hub_dataset_private": False, "overwrite_hub_revision": False, "apply_voting": True,
    "cached_solutions_path": None, "dataset_name": "HuggingFaceH4/MATH-500", "dataset_config": None,
    "dataset_split": "test", "dataset_start": 0, "dataset_end": 100, "num_samples": None, "prm_n": 4,
    "prm_temperature": 0.4, "prm_type": "thinkprm", "prm_decision_temperature": 1.0, "prm_score_label_idx": 0,
    "prm_label_categories": "yes,no", "prm_predecision_string": "\nIs the solution correct? ",
    "prm_verifier_instruction": None, "verifier_endpoint": "http://localhost:30000", "prm_device": "cuda:0",
    "just_sample": False, "long_cot": False, "max_verification_length": 8192, "n_thinking_rounds": 1,
    "trigger_phrase": "\nWait, let me double check.\n", "voting_n": None, "system_prompt": "Think.",
    "custom_chat_template": None, "n": 16, "temperature": 0.6, "top_p": 1.0, "prm_batch_size": 4,
    "search_batch_size": 1, "seed": 42, "max_tokens": 4096, "agg_strategy": "last", "beam_width": 4,
    "num_iterations": 20, "lookahead": 0, "filter_duplicates": True, "sort_completed": False,
    "truncate_beams": False, "load_in_4bit": False, "load_in_8bit": False,
}  # fmt: skip


def write(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, *overrides: str) -> tuple[SearchRecipe, list[str]]:
    lines: list[str] = []
    return load_search_recipe(write(folder, text), overrides, lines.append), lines


def test_all_fields_of_the_original_are_taken(tmp_path: Path) -> None:
    recipe, lines = load(tmp_path, yaml.safe_dump(ORIGINAL))
    meant = {name: value for name, value in ORIGINAL.items() if name not in UNUSED}
    assert {name: getattr(recipe, name) for name in meant} == meant
    assert len(lines) == len(set(ORIGINAL) & set(UNUSED))


def test_a_field_without_meaning_is_named_with_its_line(tmp_path: Path) -> None:
    _, lines = load(tmp_path, 'n: 8\nverifier_endpoint: "http://127.0.0.1:31111"\n')
    (line,) = lines
    assert "r.yaml, line 2: verifier_endpoint is not used: the verifier runs in this process" in line


def test_a_field_given_twice_alike_is_one_field(tmp_path: Path) -> None:
    recipe, _ = load(tmp_path, "prm_type: discriminative\nn: 8\nprm_type: discriminative\n")
    assert recipe.prm_type == "discriminative"
    with pytest.raises(UserError, match="line 2: n is given twice with different values"):
        load(tmp_path, "n: 8\nn: 9\n")


def test_an_unknown_field_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 1: unknown field beam_with; did you mean beam_width"):
        load(tmp_path, "beam_with: 4\n")


def test_a_resolved_recipe_reads_back(tmp_path: Path) -> None:
    recipe, _ = load(tmp_path, yaml.safe_dump(ORIGINAL))
    assert load(tmp_path, dump_recipe(recipe))[0] == recipe


def test_overrides_win(tmp_path: Path) -> None:
    assert load(tmp_path, "n: 8\n", "n=2")[0].n == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("approach: dvts\nn: 6", "n must be a multiple of beam_width for dvts, not 6 and 4"),
        ("temperature: 0", "n 4 needs a temperature above 0"),
        ("prm_n: 4", "prm_n 4 needs prm_temperature above 0"),
        ("n_thinking_rounds: 2\nmax_rounds: 3", "max_rounds is another name of n_thinking_rounds"),
        ("approach: dvts\njust_sample: true", "dvts needs a verifier"),
        ("approach: beam_search\nprm_type: majority", "beam_search needs a verifier"),
        ("approach: dvts\ncached_solutions_path: x.jsonl", "can only be ranked"),
        ("answer_kind: none", "answer_kind none needs cached_solutions_path"),
        ("dataset_start: 5\ndataset_end: 5", "dataset_end must be above dataset_start"),
        ("top_p: 0", "top_p must lie in"),
        ("n: 0", "n must be at least 1"),
        ("approach: beams", "approach must be one of"),
        ("step_separator: ''", "must not be empty"),
        ("device_memory: 0", "device_memory must be above 0"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, text)


def test_max_rounds_is_another_name(tmp_path: Path) -> None:
    assert load(tmp_path, "max_rounds: 3")[0].rounds == 3


@pytest.mark.parametrize(
    ("text", "verified"),
    [("n: 4", True), ("just_sample: true", False), ("approach: greedy", False), ("prm_type: majority", False)],
)
def test_whether_a_verifier_is_loaded(tmp_path: Path, text: str, verified: bool) -> None:
    assert load(tmp_path, text)[0].verified is verified


def test_greedy_is_one_solution(tmp_path: Path) -> None:
    assert load(tmp_path, "approach: greedy\nn: 8")[0].settings.n == 1


def test_free_fields_are_fields() -> None:
    fields = set(SearchRecipe.__dataclass_fields__)
    assert {name.rstrip(".") for name in FREE_FIELDS} <= fields
    assert not fields & set(UNUSED)
