"""Generator and verifier of a recipe: loaded side by side, compiled once, no prefix processed twice."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from support import tiny_model
from thinkprm_jax.checkpoint.weights import find_model
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.recipe import MeshConfig
from thinkprm_jax.records import VerdictRecord
from thinkprm_jax.sampler import Handle, StepLoop, finished
from thinkprm_jax.search.engine import Piece, Problem
from thinkprm_jax.search.model_engine import ModelEngine, read_verdict
from thinkprm_jax.search.models import describe, load_models, plan_memory, resolve
from thinkprm_jax.search.problems import load_tasks
from thinkprm_jax.search.recipe import VERIFIER, SearchRecipe
from thinkprm_jax.search.runner import search_tasks


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> SearchRecipe:
    folder = tmp_path_factory.mktemp("models")
    return SearchRecipe(
        approach="beam_search", n=4, beam_width=2, num_iterations=3, max_tokens=24, temperature=1.0,
        step_separator="e", system_prompt=None, model_path=str(tiny_model.save_folder(folder / "gen", 0)),
        prm_path=str(tiny_model.save_folder(folder / "prm", 1)), max_verification_length=384,
        max_verification_tokens=6, dataset_name="arithmetic", num_samples=6, slots=4, prm_slots=4, dtype="float32",
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine(recipe: SearchRecipe) -> ModelEngine:
    return load_models(recipe, load_tasks(recipe), say=lambda line: None)


def run(recipe: SearchRecipe, engine: ModelEngine, places: range) -> None:
    assert len(list(search_tasks(recipe, load_tasks(recipe), [places], engine))) == len(places)


@pytest.mark.parametrize(
    ("mesh", "option", "said"),
    [
        (MeshConfig(1, 1, 1), None, "prm_mesh: data=1 x fsdp=1 x tensor=1: mesh leaves no devices"),
        (MeshConfig(1, 1, 1), "auto", "--mesh auto places both models, and the recipe has a prm_mesh"),
        (None, "data=2", "--mesh data=2 needs 2 devices, this process has 1"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused_before_a_model_is_loaded(recipe, mesh, option, said) -> None:
    apart = dataclasses.replace(recipe, prm_mesh=mesh)
    with pytest.raises(UserError, match=said):
        load_models(apart, load_tasks(apart), lambda line: None, option)


@pytest.mark.slow
def test_a_wave_again_compiles_nothing_and_no_prefix_is_processed_twice(recipe, engine) -> None:
    # In turns: side by side, what is verified together is a matter of time, and so are the shapes of its prefill.
    engine = ModelEngine(engine.generator, engine.verifier)
    sampler = engine.generator.sampler
    compiled = []
    for _ in range(2):
        sampler._workers[0].store.reset()  # as if it had never seen the problems
        engine.verifier.sampler._workers[0].store.reset()
        run(recipe, engine, range(4))
        compiled.append((sampler.compilations, engine.verifier.sampler.compilations))
        assert sampler.stats.reprefilled_tokens == 0
    assert compiled[0] == compiled[1]
    assert sampler.stats.shared_tokens > 0
    assert sampler.stats.evicted_tokens == 0


def test_progress_sees_every_piece_and_verdict(recipe, engine) -> None:
    pieces: list[Piece] = []
    verdicts = []
    engine.on_piece = lambda done, total, piece: pieces.append(piece)
    engine.on_verdict = lambda done, total, judgement: verdicts.append(judgement)
    before = engine.verifier.sampled_tokens
    results = dict(search_tasks(recipe, load_tasks(recipe), [range(1)], engine))
    assert sum(piece.tokens for piece in pieces) == results[0].generated_tokens
    assert sum(judgement.tokens for judgement in verdicts) == results[0].verifier_tokens
    assert 0 < results[0].verifier_tokens <= engine.verifier.sampled_tokens - before


def test_a_prefix_is_judged_up_to_its_last_step(recipe) -> None:
    assert describe(recipe).stop_at_unknown_step is True
    whole = dataclasses.replace(recipe, approach="best_of_n")
    assert describe(whole).stop_at_unknown_step is False


def test_settings_of_chains_are_dropped_for_a_verifier_without_any(recipe) -> None:
    without = dataclasses.replace(recipe, prm_type="disc_prm", prm_temperature=0.4)
    assert "temperature" not in describe(without).stamp
    with pytest.raises(UserError, match="prm_n 4: a verifier of kind disc_prm has no such setting"):
        describe(dataclasses.replace(without, prm_n=4))


@pytest.mark.parametrize(("field", "value"), [("judge_prompt", "index"), ("prm_decision_temperature", 2.0)])
def test_what_a_verifier_cannot_be_asked_is_refused(recipe, field: str, value: object) -> None:
    changed = dataclasses.replace(recipe, prm_path="Qwen/Qwen2.5-Math-PRM-7B", **{field: value})
    with pytest.raises(UserError, match=f"{field} {value!r}: a verifier of kind qwen_prm has no such setting"):
        describe(changed)


def test_no_more_slots_than_the_problems_that_there_are_can_fill(recipe) -> None:
    few = dataclasses.replace(recipe, slots=None, prm_slots=None)
    planned = plan_memory(few, 2, find_model(few.model_path), 64, describe(few), None)
    assert (planned.slots, planned.prm_slots) == (8, 8)  # 2 problems, n 4


def test_a_judge_with_few_tokens_takes_the_cache_that_it_can_use(recipe) -> None:
    files, judge = find_model(recipe.model_path), describe(recipe)
    wide = dataclasses.replace(judge, max_length=4096, max_gen_tokens=96)
    small, large = (plan_memory(recipe, 2, files, 64, wide, None, longest=longest) for longest in (80, None))
    assert "4 x 1,200 tokens" in small.text  # 80, instructions, 96
    assert "4 x 4,096 tokens" in large.text
    assert small.needed < large.needed


def test_a_generator_that_judges_itself_is_loaded_once(recipe) -> None:
    same = dataclasses.replace(recipe, prm_path=recipe.model_path, prm_type="thinkprm")
    said: list[str] = []
    engine = load_models(same, load_tasks(same), say=said.append)
    assert "the same weights" in said[0]
    generator, verifier = engine.generator.sampler, engine.verifier.sampler
    assert generator is not verifier
    pairs = zip(jax.tree.leaves(generator._weights._state), jax.tree.leaves(verifier._weights._state), strict=True)
    assert all(one is other for one, other in pairs)
    assert verifier.max_length == 384
    run(same, engine, range(1))


def test_the_verifier_of_a_recipe_that_names_none() -> None:
    assert resolve(SearchRecipe()).prm_path == VERIFIER
    assert resolve(SearchRecipe(just_sample=True)).prm_path is None


@dataclasses.dataclass
class Verdict:
    step_scores: list[float]
    prefix_score: float
    error: RequestError | None = None
    output_tokens: int = 3

    def record(self, steps: list[str]) -> VerdictRecord:
        if self.error is not None:
            return VerdictRecord(error=str(self.error), steps=tuple(steps))
        return VerdictRecord(self.prefix_score, tuple(self.step_scores), (1,), steps=tuple(steps))


def test_the_last_score_is_that_of_the_whole() -> None:
    assert read_verdict(Verdict([0.9, 0.8], 0.3), ["a", "b"]).scores == (0.9, 0.3)
    failed = read_verdict(Verdict([], 0.0, RequestError("no room")), ["a"])
    assert (failed.scores, failed.error, failed.tokens) == ((), "no room", 3)


class Splitter:
    def __init__(self) -> None:
        self.loop = StepLoop(self.never, self.never)

    def never(self) -> bool:
        return False

    def split(self, solution: str) -> list[str]:
        return [solution]

    def submit(self, problem: str, steps: list[str]) -> Handle[Verdict]:
        return finished(self.loop, Verdict([0.5], 0.5))


@pytest.mark.parametrize(
    ("text", "shown"),
    [("<think>\nso 3\n</think>\nIt is 3.", "so 3"), ("so 3", "so 3"), ("so 3</think>", "so 3")],
)
def test_of_a_long_chain_the_thinking_is_judged(text: str, shown: str) -> None:
    engine = ModelEngine(None, Splitter(), long_cot=True)
    assert engine.verify(Problem(0, "p"), text).result().record.steps == (shown,)
