"""Generator and verifier of a recipe, side by side on one mesh."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from thinkprm_jax.checkpoint.fingerprint import fingerprints
from thinkprm_jax.checkpoint.huggingface import load_model, read_config, read_model_config
from thinkprm_jax.checkpoint.weights import ModelFiles, find_model
from thinkprm_jax.distributed.mesh_option import (
    AUTO,
    OPTION,
    automatic_mesh,
    check_heads,
    local_mesh,
    parse_mesh,
)
from thinkprm_jax.errors import UserError
from thinkprm_jax.runtime import default_dtype, enable_compilation_cache
from thinkprm_jax.sampler import Sampler
from thinkprm_jax.sampler.memory import PlannedModel, device_bytes
from thinkprm_jax.sampler.replicas import needs_turns
from thinkprm_jax.search.generator import Generator, Prompts
from thinkprm_jax.search.memory import MemoryNeed, SearchMemoryPlan, plan
from thinkprm_jax.search.model_engine import ModelEngine
from thinkprm_jax.search.problems import Task
from thinkprm_jax.search.recipe import VERIFIER, SearchRecipe
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.verifier.loading import find_files, with_files, with_fingerprints
from thinkprm_jax.verifier.registry import default_settings, load_verifier
from thinkprm_jax.verifier.settings import SamplingSettings, VerifierSettings, settings_of

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.model.config import ModelConfig

VERIFICATION_LENGTH = 8192  # the paper's, where the verifier has so many positions
STEP_TOKENS = 256  # of a step, for the plan of the prefix cache
INSTRUCTION_TOKENS = 1024  # of a verifier's longest prompt without the solution, and of what is forced
USUAL_SLOTS = 16  # of a copy of each model: with fewer it is split over more devices
OTHER_TOKENIZER = 1.25  # so many tokens of the verifier may one of the generator be


def resolve(recipe: SearchRecipe) -> SearchRecipe:
    """The recipe with a value where it leaves the choice to us and results depend on it."""
    path = recipe.prm_path
    if recipe.verified and path is None and recipe.prm_type in (None, "thinkprm"):
        path = VERIFIER
    return dataclasses.replace(recipe, prm_path=path, dtype=recipe.dtype or default_dtype())


def load_models(
    recipe: SearchRecipe, tasks: Sequence[Task], say: Callable[[str], None], mesh_option: str | None = None
) -> ModelEngine:
    """Plans the memory, says the plan, and loads what the recipe needs.

    Args:
      mesh_option: in place of the recipe's mesh, as `--mesh` has it.
    Raises:
      UserError: a model cannot be loaded, or they do not fit.
    """
    enable_compilation_cache()
    described = describe(recipe) if recipe.verified else None
    files, prompts, length = None, None, 0
    if any(task.solutions is None for task in tasks):
        files = find_model(recipe.model_path)
        prompts, length = _prompts(recipe, files, tasks)
    apart = recipe.prm_mesh is not None and described is not None and files is not None
    shared = described is not None and not apart and _is_generator(described, files, recipe)
    longest = _longest_solution(recipe, described, tasks, length)
    problems = min(recipe.wave, len(tasks))

    def plan_on(mesh: Mesh | None, recipe: SearchRecipe = recipe) -> SearchMemoryPlan:
        return plan_memory(recipe, problems, files, length, described, mesh, longest, shared)

    mesh = prm_mesh = _mesh(recipe, mesh_option, plan_on, _models(recipe, files, described))
    if apart:
        prm_mesh = _devices_behind(mesh, recipe)
        planned = plan_memory(recipe, problems, files, length, None, mesh, longest)
        other = plan_memory(recipe, problems, None, length, described, prm_mesh, longest)
        say(planned.text)
        say(other.text)
        planned = dataclasses.replace(planned, prm_slots=other.prm_slots)
    else:
        planned = plan_on(mesh)
        say(planned.text)
    generator = judging = None
    if prompts is not None and files is not None:
        model, tokenizer = load_model(files, recipe.dtype or default_dtype(), mesh, recipe.quantize)
        sampler = Sampler(
            model,
            tokenizer,
            slots=planned.slots,
            max_length=length,
            mesh=mesh,
            prefix_cache=planned.prefix_cache,
            share_from=1 if planned.prefix_cache else 64,
            drafts=recipe.drafts,
        )
        generator = Generator.of(recipe, sampler, prompts)
        if shared and isinstance(described, SamplingSettings):
            judging = Sampler(
                model,
                tokenizer,
                slots=planned.prm_slots,
                max_length=described.max_length,
                mesh=mesh,
                drafts=described.drafts,
            )
    verifier = None
    if described is not None:
        if described.writes:
            described = described.changed(slots=planned.prm_slots)
        verifier = load_verifier(described, mesh=prm_mesh, sampler=judging)
    one_program = verifier is not None and verifier.sampler is None and mesh is not None and mesh.size > 1
    side_by_side = apart or not (needs_turns(mesh) or one_program)
    return ModelEngine(generator, verifier, recipe.long_cot, side_by_side)


def stamp_models(recipe: SearchRecipe, tasks: Sequence[Task]) -> dict[str, dict[str, Any]]:
    """What rows say of the models that make them: "generator" -> its name and fingerprint, "verifier" -> all its
    settings; of those that the recipe needs. Nothing is loaded.

    Raises:
      UserError: a model cannot be found, or the recipe asks a verifier for what it does not have.
    """
    found = {}
    if any(task.solutions is None for task in tasks):
        found["generator"] = {"model": recipe.model_path, **fingerprints(find_model(recipe.model_path))}
    if recipe.verified:
        found["verifier"] = with_fingerprints(describe(recipe)).stamp
    return found


def describe(recipe: SearchRecipe) -> VerifierSettings:
    """The verifier of the recipe, with those of its settings that a verifier of its kind takes.

    Raises:
      UserError: it has no such setting as the recipe asks for, or a value cannot work.
    """
    found = default_settings(recipe.prm_path, kind=recipe.prm_type, default="thinkprm")
    takes, values = settings_of(type(found)), recipe.verifier_values
    for name, value in recipe.asked_of_verifier.items():
        if name not in takes:
            raise UserError(f"{value}: a verifier of kind {found.kind} has no such setting")
    if found.needs_model:
        found = with_files(found)
    values |= {
        "stop_at_unknown_step": recipe.approach in ("beam_search", "dvts"),
        "force_decision": True,  # as the original's search: a chain without verdict is asked for one
        "dtype": recipe.dtype,
        "quantize": recipe.quantize,
        **_lengths(recipe, found),
    }
    return found.changed(**{name: value for name, value in values.items() if name in takes and value is not None})


def plan_memory(
    recipe: SearchRecipe,
    problems: int,
    files: ModelFiles | None,
    length: int,
    verifier: VerifierSettings | None,
    mesh: Mesh | None,
    longest: int | None = None,
    shared: bool = False,
) -> SearchMemoryPlan:
    """problems: searched together. files: of the generator, None: there is none. length: of a row of its cache.
    longest: tokens of the longest problem and solution that are judged; None: nobody knows.
    shared: the verifier is the generator."""
    dtype = recipe.dtype or default_dtype()
    generator = judging = None
    if files is not None:
        config = read_model_config(files)
        generator = PlannedModel(
            f"generator {recipe.model_path}",
            config,
            dtype,
            length,
            mesh,
            drafts=recipe.drafts,
            quantize=recipe.quantize,
        )
    chains = 1
    if verifier is not None and verifier.needs_model:
        config = read_model_config(find_files(verifier))
        cached, drafts = 0, None
        if isinstance(verifier, SamplingSettings):
            chains, cached, drafts = verifier.n, _longest_verification(recipe, verifier, longest), verifier.drafts
        judging = PlannedModel(
            f"verifier {verifier.model}", config, dtype, cached, mesh, shared, drafts, recipe.quantize
        )
    solutions = problems * recipe.settings.n
    prefixes = problems * _prefixes(recipe, length)
    need = MemoryNeed(recipe.slots, recipe.prm_slots, solutions, solutions * chains, prefixes)
    memory = device_bytes() if recipe.device_memory is None else int(recipe.device_memory * 1e9)
    return plan(generator, judging, need, memory, mesh)


def _is_generator(described: VerifierSettings, files: ModelFiles | None, recipe: SearchRecipe) -> bool:
    """Whether the verifier's weights are the generator's, as it holds them."""
    return (
        isinstance(described, SamplingSettings)
        and files is not None
        and find_files(described) == files
        and described.dtype == (recipe.dtype or default_dtype())
        and described.quantize == recipe.quantize
    )


def _longest_solution(
    recipe: SearchRecipe, described: VerifierSettings | None, tasks: Sequence[Task], length: int
) -> int | None:
    """Tokens of the longest problem and solution, as the verifier's tokenizer counts them; None: nobody has to
    know. length: of a row of the generator, which holds both."""
    if not isinstance(described, SamplingSettings) or described.max_gen_tokens is None:
        return None
    texts = [
        task.problem.text + beam.text
        for task in tasks
        if task.solutions is not None
        for beam in task.solutions.solutions
    ]
    given = 0
    if texts:
        tokenizer = Tokenizer.load(find_files(described).tokenizer_folder)
        # Of so many only the longest by its characters is counted.
        given = len(tokenizer.encode_plain(max(texts, key=len).encode(errors="replace").decode()))
    return max(int(OTHER_TOKENIZER * length), int(OTHER_TOKENIZER * given))


def _longest_verification(recipe: SearchRecipe, verifier: SamplingSettings, longest: int | None) -> int:
    """Tokens of a row of the verifier's cache. It may grow up to its max_length all the same."""
    if longest is None or verifier.max_gen_tokens is None:
        return verifier.max_length
    return min(verifier.max_length, longest + INSTRUCTION_TOKENS + recipe.rounds * verifier.max_gen_tokens)


def _prefixes(recipe: SearchRecipe, length: int) -> int:
    """Positions for all of a problem that a next round may begin with: the prompt, the paths of the beams that go
    on, and the last step of every candidate."""
    if recipe.approach not in ("beam_search", "dvts") or not length:
        return 0
    paths = -(-recipe.n // recipe.beam_width)
    steps = recipe.n * STEP_TOKENS * (1 + recipe.lookahead)
    return length - recipe.max_tokens + paths * recipe.max_tokens + steps


def _prompts(recipe: SearchRecipe, files: ModelFiles, tasks: Sequence[Task]) -> tuple[Prompts, int]:
    """The prompts, and the length of a row that holds the longest of them with a whole solution."""
    positions = read_config(files.config_folder).positions
    tokenizer = Tokenizer.load(files.tokenizer_folder)
    prompts = Prompts(tokenizer, recipe.system_prompt, recipe.custom_chat_template, positions)
    longest = prompts.longest([task.problem for task in tasks])
    return prompts, max(min(longest + recipe.max_tokens, positions), 2)


def _lengths(recipe: SearchRecipe, found: VerifierSettings) -> dict[str, int | None]:
    """max_length and max_gen_tokens: the paper's length, or all that the verifier can, of prompt and chain; or, as
    the original has it, a round may write so much but for 20 tokens, and prompt and rounds have what they need."""
    given, budget = recipe.max_verification_length, recipe.max_verification_tokens
    positions = VERIFICATION_LENGTH
    if found.needs_model:
        positions = read_config(find_files(found).config_folder).positions
    if recipe.verification_budget == "chain" or not found.writes:
        return {"max_length": given or min(VERIFICATION_LENGTH, positions), "max_gen_tokens": budget}
    length = given or VERIFICATION_LENGTH
    return {
        "max_length": min((recipe.rounds + 1) * length, positions),
        "max_gen_tokens": length - 20 if budget is None else budget,
    }


def _models(
    recipe: SearchRecipe, files: ModelFiles | None, verifier: VerifierSettings | None
) -> list[tuple[str, ModelConfig]]:
    """(name, shapes) of the models that share the devices."""
    found = [] if files is None else [(recipe.model_path, read_model_config(files))]
    if verifier is not None and verifier.needs_model:
        found.append((str(verifier.model), read_model_config(find_files(verifier))))
    return found


def _devices_behind(mesh: Mesh | None, recipe: SearchRecipe) -> Mesh | None:
    """Those of ``prm_mesh``: the verifier's alone, behind the generator's."""
    assert recipe.prm_mesh is not None
    import jax

    left = jax.local_devices()[1 if mesh is None else mesh.size :]
    said = f"prm_{recipe.prm_mesh.text}"
    if not left:
        raise UserError(f"{said}: mesh leaves no devices; give it fewer, such as mesh.data=1 mesh.tensor=1")
    return local_mesh(dataclasses.asdict(recipe.prm_mesh), f"{said} behind those of mesh", left)


def _mesh(
    recipe: SearchRecipe,
    option: str | None,
    plan_on: Callable[[Mesh | None, SearchRecipe], SearchMemoryPlan],
    models: Sequence[tuple[str, ModelConfig]],
) -> Mesh | None:
    """The devices of both models. plan_on: how one copy of them fits on a mesh of its own."""
    if option is None:
        return local_mesh(dataclasses.asdict(recipe.mesh), recipe.mesh.text)
    said = f"{OPTION} {option}"
    if option == AUTO and recipe.prm_mesh is not None:
        raise UserError(f"{said} places both models, and the recipe has a prm_mesh: take one of them out")
    if option != AUTO:
        mesh = local_mesh(parse_mesh(option, rest=True), said)
        for name, config in models:
            check_heads(mesh, config, name, said)
        return mesh
    free = dataclasses.replace(recipe, slots=None, prm_slots=None)

    def slots_on(part: Mesh | None) -> int:
        found = plan_on(part, free)
        return min(found.slots, found.prm_slots, USUAL_SLOTS)

    return automatic_mesh(slots_on, USUAL_SLOTS, [config.num_heads for _, config in models])[0]
