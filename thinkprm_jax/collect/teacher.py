"""A teacher writes verification chains on labelled prefixes: raw generations for `collect/filters.py`."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thinkprm_jax.collect.recipe import Teacher
from thinkprm_jax.data.prm800k import Prefix
from thinkprm_jax.distributed.mesh_option import replicas
from thinkprm_jax.errors import RequestError
from thinkprm_jax.protocol.prompts import (
    COLLECTION_PROMPT,
    QUESTION,
    STRICT_COLLECTION_PROMPT,
    THINK_CLOSE,
    encode_collection_prompt,
    encode_prompt,
)
from thinkprm_jax.runtime import default_dtype
from thinkprm_jax.sampler.request import Phase, Request, Think, Thought
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.verifier.script import chain_seed

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.sampler import Sampler


@dataclass(frozen=True)
class Generation:
    """One chain as it came.

    text: without what ended it. tokens: sampled ones. finish: "stop", "length" (max_tokens), "context"
    (max_length) or "error", where the prompt could not be run; error then says why.
    """

    text: str
    tokens: int
    finish: str
    error: str | None = None


def teacher_settings(teacher: Teacher, seed: int) -> dict[str, Any]:
    """All that a chain depends on, apart from its prefix; stored with each."""
    resolved = dataclasses.asdict(teacher) | {"dtype": teacher.dtype or default_dtype(), "seed": seed}
    left_out = ("slots", "drafts", "chains", *([] if teacher.quantize else ["quantize"]))
    return {name: value for name, value in resolved.items() if name not in left_out}


def with_fingerprints(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the fingerprints of the teacher's files: a name can be given to another model.

    Raises:
      UserError: the model cannot be found, or its files cannot be read.
    """
    from thinkprm_jax.checkpoint.fingerprint import fingerprints
    from thinkprm_jax.checkpoint.weights import find_model

    return {**settings, **fingerprints(find_model(settings["model"]))}


def place_teacher(teacher: Teacher, mesh: str) -> tuple[Teacher, Mesh | None]:
    """The devices of `--mesh`, and the teacher with the slots that a copy of it has there.

    Raises:
      UserError: there are no such devices, or the model cannot be split so.
    """
    from thinkprm_jax.checkpoint.huggingface import read_model_config
    from thinkprm_jax.checkpoint.weights import find_model
    from thinkprm_jax.sampler.memory import PlannedModel
    from thinkprm_jax.verifier.placement import place_model

    config, dtype = read_model_config(find_model(teacher.model)), teacher.dtype or default_dtype()
    planned = PlannedModel(
        teacher.model, config, dtype, teacher.max_length, drafts=teacher.drafts, quantize=teacher.quantize
    )
    placed, slots = place_model(planned, teacher.slots, mesh)
    return dataclasses.replace(teacher, slots=slots), placed


def load_teacher(teacher: Teacher, mesh: Mesh | None) -> Sampler:
    """The teacher's sampler; its slots are of each copy of the model.

    Raises:
      UserError: the model cannot be loaded, or max_length is above its positions.
    """
    from thinkprm_jax.checkpoint.huggingface import load_model
    from thinkprm_jax.sampler import Sampler

    model, tokenizer = load_model(teacher.model, teacher.dtype or default_dtype(), mesh, teacher.quantize)
    slots, length = teacher.slots * replicas(mesh), teacher.max_length
    return Sampler(model, tokenizer, slots=slots, max_length=length, mesh=mesh, drafts=teacher.drafts)


def generate_chains(
    sampler: Sampler, teacher: Teacher, items: Iterable[tuple[int, Prefix, int]], seed: int
) -> Iterator[tuple[int, Generation]]:
    """(key, generation) as they finish, in any order.

    A chain depends on its own prompt, its number and the seed: neither on its neighbours nor on what an
    interrupted run had already done.

    Args:
      items: (key, prefix, number of the chain); taken as slots become free.
    """
    script = functools.partial(_write, teacher.max_tokens, *_stops(sampler, teacher))
    failed: collections.deque[tuple[int, Generation]] = collections.deque()
    owners: dict[int, int] = {}

    def requests() -> Iterator[Request]:
        for key, prefix, number in items:
            try:
                text = "\n".join([prefix.problem, *prefix.steps])
                sampler.tokenizer.check_fits(text, sampler.max_length)
                ids = encode_question(sampler.tokenizer, teacher, prefix)
            except RequestError as error:
                failed.append((key, Generation("", 0, "error", str(error))))
                continue
            owners[len(owners)] = key
            yield Request(
                ids,
                script,
                temperature=teacher.temperature,
                top_p=teacher.top_p,
                top_k=teacher.top_k,
                seed=chain_seed(seed, number, ids),
            )

    for number, result in sampler.run(requests()):
        while failed:
            yield failed.popleft()
        if result.error is not None:
            yield owners[number], Generation("", result.tokens, "error", str(result.error))
            continue
        thought: Thought = result.value
        finish = "stop" if thought.finish.startswith("stop") else thought.finish
        yield owners[number], Generation(thought.text, result.tokens, finish)
    yield from failed


def encode_question(tokenizer: Tokenizer, teacher: Teacher, prefix: Prefix) -> list[int]:
    """ids of what the teacher is asked about a prefix; RequestError where the text cannot be encoded."""
    if teacher.prompt == "verification":
        return encode_prompt(tokenizer, prefix.problem, prefix.steps)
    prompt = COLLECTION_PROMPT if teacher.prompt == "collection" else STRICT_COLLECTION_PROMPT
    return encode_collection_prompt(tokenizer, prefix.problem, prefix.steps, prompt, teacher.system)


def _stops(sampler: Sampler, teacher: Teacher) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(ids, texts) that end a chain. A verifier's chain ends where its thinking closes; another teacher's answer
    may follow a thinking part, so only the end of the text ends it."""
    ends = tuple(sampler.end_ids)
    if teacher.prompt != "verification":
        return ends, ()
    close = sampler.tokenizer.control_ids.get(THINK_CLOSE)
    return (ends, (QUESTION, THINK_CLOSE)) if close is None else ((close, *ends), (QUESTION,))


def _write(max_tokens: int, stop_ids: Sequence[int], stop_texts: Sequence[str]) -> Generator[Phase, Any, Thought]:
    """The script of a request: think until it ends."""
    return (yield Think(max_tokens, tuple(stop_ids), tuple(stop_texts)))
