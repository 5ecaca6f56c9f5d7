"""Solutions and chains as arrays: what the host does before a jitted step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from thinkprm_jax.errors import RequestError
from thinkprm_jax.functional.params import MAX_STEPS
from thinkprm_jax.functional.scores import VerdictSpans
from thinkprm_jax.protocol.prompts import QUESTION, THINK_CLOSE
from thinkprm_jax.protocol.reading import read_chain
from thinkprm_jax.verifier.base import check_item, check_lengths
from thinkprm_jax.verifier.script import chain_seed, encode_forced
from thinkprm_jax.verifier.thinkprm import ThinkPRM


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenPrompts:
    """Solutions as arrays, a row a chain; B rows.

    Example:

        prm = ThinkPRM("mini")
        prompts = token_prompts(prm, ["2 + 3 + 4?"], [["2 + 3 = 5.", "5 + 4 = 9."]])
        print(prompts.ids.shape, prompts.lengths, prompts.steps)

    Attributes:
      ids: int32 [B, T], right padded. lengths: int32 [B], from 1.
      steps: int32 [B], how many steps the solution has, from 1.
      keys: uint32 [B, 2], of the chain's random numbers.
    """

    ids: Any
    lengths: Any
    steps: Any
    keys: Any


def token_prompts(
    prm: ThinkPRM,
    questions: Sequence[str],
    prefix_steps_batch: Sequence[Sequence[str]],
    *,
    length: int | None = None,
    max_steps: int = MAX_STEPS,
) -> TokenPrompts:
    """Solutions as arrays, encoded as the verifier itself does it. This runs on the host, before the jitted step.

    Example:

        prm = ThinkPRM("mini", n=2, temperature=0.6)
        prompts = token_prompts(prm, ["2 + 3 + 4?"], [["2 + 3 = 5.", "5 + 4 = 9."]], length=128)
        print(prompts.ids.shape)  # two rows, one a chain

    Args:
      questions: the problems, text. prefix_steps_batch: for each of them the steps of one solution.
      length: T, so that batches are of one shape; None: the longest prompt, rounded up to a multiple of 16.
      max_steps: as of :func:`verifier_params`.
    Returns: numpy arrays of len(questions) x n rows, the n chains of a solution side by side.
    Raises:
      RequestError: a solution that cannot be judged; names its index.
    """
    encoded = _encode(prm, questions, prefix_steps_batch, max_steps)
    width = _width([ids for ids, _ in encoded], length, "prompt")
    rows = [(ids, steps, chain) for ids, steps in encoded for chain in range(prm.settings.n)]
    found = TokenPrompts(
        ids=np.zeros((len(rows), width), np.int32),
        lengths=np.array([len(ids) for ids, _, _ in rows], np.int32),
        steps=np.array([steps for _, steps, _ in rows], np.int32),
        keys=np.zeros((len(rows), 2), np.uint32),
    )
    for number, (ids, _, chain) in enumerate(rows):
        found.ids[number, : len(ids)] = ids
        seed = chain_seed(prm.settings.seed, chain, ids)
        found.keys[number] = (seed >> 32, seed & 0xFFFFFFFF)
    return found


def token_chains(
    prm: ThinkPRM,
    questions: Sequence[str],
    prefix_steps_batch: Sequence[Sequence[str]],
    chains: Sequence[str],
    *,
    length: int | None = None,
    max_steps: int = MAX_STEPS,
) -> tuple[np.ndarray, VerdictSpans]:
    """Chains that are written already, as arrays for :func:`score_tokens`: of a data set, of a teacher, or the
    ``outputs`` of a verifier. This runs on the host.

    Example:

        prm = ThinkPRM("mini")
        chain = "Step 1: 2 + 3 means 2 + 3. The step is \\\\boxed{correct}\\n</think>"
        ids, spans = token_chains(prm, ["2 + 3?"], [["2 + 3 = 5."]], [chain])
        print(ids.shape, spans.steps[:, :1], spans.answer)

    Args:
      questions, prefix_steps_batch: as of :func:`token_prompts`.
      chains: one for each; what stands behind `</think>` or the question is left out, and the question put there.
      length: T; None: the longest, rounded up to a multiple of 16. max_steps: as of :func:`verifier_params`.
    Returns: ids int32 [B, T] and the spans. A step that the chain does not judge in so many words, or whose word
      does not begin a token, has the span -1, and so have steps behind the first incorrect one.
    Raises:
      RequestError: a solution that cannot be judged, a chain that is too long; names its index.
    """
    check_lengths("chains", questions, chains)
    settings = prm.settings
    prompts = _encode(prm, questions, prefix_steps_batch, max_steps)
    question = settings.decision.rstrip(" ")
    closing = (THINK_CLOSE if settings.close_thinking else "") + question
    rows, spans = [], np.full((len(prompts), max_steps), -1, np.int32)
    answers = np.zeros(len(prompts), np.int32)
    for number, ((prompt, steps), chain) in enumerate(zip(prompts, chains, strict=True)):
        text = chain.partition(THINK_CLOSE)[0].partition(QUESTION)[0]
        body = prm.tokenizer.encode_plain(text, inner=True)
        begins = np.cumsum([0, *(len(prm.tokenizer.token_bytes(id)) for id in body)])
        read = read_chain(text, steps)
        for step in range(steps if read.first_error is None else read.first_error + 1):
            position = read.positions[step]
            if position is not None and not read.inverted[step]:
                place = np.flatnonzero(begins[:-1] == len(text[:position].encode()))
                spans[number, step] = len(prompt) + place[0] if place.size else -1
        alone = text.endswith("\n") or not text or not settings.close_thinking
        ids = [*prompt, *body, *encode_forced(prm.tokenizer, closing if alone else "\n" + closing)]
        answers[number] = len(ids)
        rows.append([*ids, prm.tokenizer.token_id(settings.decision[len(question) :] + settings.labels[0])])
    width = _width(rows, length, "chain")
    found = np.zeros((len(rows), width), np.int32)
    for number, ids in enumerate(rows):
        found[number, : len(ids)] = ids
    return found, VerdictSpans(spans, answers)


def _encode(
    prm: ThinkPRM, questions: Sequence[str], prefix_steps_batch: Sequence[Sequence[str]], max_steps: int
) -> list[tuple[list[int], int]]:
    """(ids of the prompt, number of steps) of every solution."""
    check_lengths("prefix_steps_batch", questions, prefix_steps_batch)
    encoded = []
    for index, (problem, steps) in enumerate(zip(questions, prefix_steps_batch, strict=True)):
        try:
            steps = check_item(problem, steps)
            if len(steps) > max_steps:
                raise RequestError(f"it has {len(steps)} steps, max_steps is {max_steps}")
            encoded.append((prm.prepare(problem, steps)[0], len(steps)))
        except RequestError as error:
            raise RequestError(f"solution {index}: {error}") from error
    return encoded


def _width(rows: Sequence[Sequence[int]], length: int | None, what: str) -> int:
    longest = max(map(len, rows), default=1)
    if length is not None and longest > length:
        raise RequestError(f"a {what} has {longest} tokens, length is {length}")
    return -(-longest // 16) * 16 if length is None else length
