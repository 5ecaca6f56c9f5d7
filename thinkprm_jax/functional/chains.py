"""The chain of a verification, written and read on the device: one loop, whose step is that of :mod:`.machine`."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from thinkprm_jax.errors import UserError
from thinkprm_jax.functional.encode import TokenPrompts
from thinkprm_jax.functional.machine import ChainRows, ChainStep, begin_rows, with_columns
from thinkprm_jax.functional.params import VerifierParams
from thinkprm_jax.functional.scores import VerdictSpans
from thinkprm_jax.functional.script import DeviceScript

_FIRST_COLUMNS = 48


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenVerdicts:
    """What :func:`verify_tokens` finds, a row a chain; B rows, S steps at most.

    Example:

        prm = ThinkPRM("mini", temperature=0.0)
        params = verifier_params(prm, max_steps=4)
        prompts = token_prompts(prm, ["2 + 3 + 4?"], [["2 + 3 = 5.", "5 + 4 = 9."]])
        verdicts = verify_tokens(params, prompts, max_tokens=64)
        print(verdicts.prefix_score, verdicts.step_labels[:, :2], verdicts.covered)

    Attributes:
      prefix_score: float32 [B], the probability that all given steps are correct.
      step_labels: int32 [B, S], 1 correct, 0 incorrect, 0 behind the first incorrect and the last step.
      step_scores: float32 [B, S], P(correct) against P(incorrect) at the verdict of the step; 0 behind the first
        incorrect one, NaN where it cannot be said inside jit (then ``covered`` is False).
      step_forced: bool [B, S], the chain was silent about the step and it was asked for.
      covered: bool [B], the chain is of the form that is read here exactly as the host reads it. Where it is False
        the labels may differ from the host's.
      stopped: bool [B], the last round ended by itself and not by ``max_tokens``.
      output_tokens: int32 [B], tokens sampled.
      ids: int32 [B, W], prompt, chain, question and the likelier answer, right padded. lengths: int32 [B].
      spans: where the verdicts stand in ``ids``, for :func:`score_tokens`.
    """

    prefix_score: Any
    step_labels: Any
    step_scores: Any
    step_forced: Any
    covered: Any
    stopped: Any
    output_tokens: Any
    ids: Any
    lengths: Any
    spans: VerdictSpans


def verify_tokens(
    params: VerifierParams,
    prompts: TokenPrompts,
    *,
    max_tokens: int,
    temperature: Any = None,
    rows: int | None = None,
) -> TokenVerdicts:
    """Verifies solutions wholly on the device: chains, rounds, question and verdicts in one traced computation.

    It is a pure function without callbacks, for the inside of `jax.jit`, `jax.vmap` and `jax.shard_map`. Verdicts
    are constants to `jax.grad`; what is differentiable is :func:`score_tokens` of the chains that it wrote. Given
    the same settings, labels are those of :class:`ThinkPRM` and scores are within 1e-5 in float32, where
    ``covered``; docs/jit.md says what a device reads and what it leaves to the host.

    Example:

        import jax

        prm = ThinkPRM("mini", temperature=0.0)
        params = verifier_params(prm, max_steps=4)
        prompts = token_prompts(prm, ["2 + 3 + 4?"], [["2 + 3 = 5.", "5 + 4 = 9."]])
        verify = jax.jit(verify_tokens, static_argnames=("max_tokens", "rows"))
        print(verify(params, prompts, max_tokens=64).prefix_score)

    Args:
      params: of :func:`verifier_params`.
      prompts: of :func:`token_prompts`; B rows of T tokens. Rows with more steps than the ``max_steps`` of the
        params are not judged: their scores are NaN.
      max_tokens: budget of every round, static; the ``max_gen_tokens`` of the settings.
      temperature: float32 [] or [B], may be traced; None: that of the settings. 0 is greedy.
      rows: how many rows are decoded together, static; None: all. Fewer stay in a processor's cache.
    Returns: of B rows.
    Raises:
      UserError: ``max_tokens`` or ``rows`` cannot be, or prompt and chain are longer than the model's positions.
    """
    script, batch = params.script, prompts.ids.shape[0]
    _check(params, prompts, max_tokens, rows)
    temperature = jnp.asarray(script.temperature if temperature is None else temperature, jnp.float32)
    ids, lengths, steps = (jnp.asarray(x, jnp.int32) for x in (prompts.ids, prompts.lengths, prompts.steps))
    # Inside shard_map it varies over devices, as the rows do.
    temperature = jnp.broadcast_to(temperature, (batch,)) + (0 * lengths).astype(jnp.float32)
    arrays = ids, lengths, steps, jnp.asarray(prompts.keys, jnp.uint32), temperature
    weights, arrays = jax.lax.stop_gradient((params.weights, arrays))
    return _batched(params, max_tokens, rows)(weights, arrays)


def _check(params: VerifierParams, prompts: TokenPrompts, max_tokens: int, rows: int | None) -> None:
    script, width = params.script, prompts.ids.shape[1]
    if max_tokens < 1:
        raise UserError(f"max_tokens is {max_tokens}, it must be at least 1")
    if rows is not None and (rows < 1 or prompts.ids.shape[0] % rows):
        raise UserError(f"rows is {rows}, it must divide the {prompts.ids.shape[0]} prompts")
    config = params.model().config
    positions = config.positions
    needed = width + script.chain_room(max_tokens) + script.asking_room()
    if needed > positions:
        raise UserError(
            f"{width} tokens of a prompt and {script.rounds} x {max_tokens} of a chain need {needed} positions "
            f"with all that may be forced: the model has {positions}"
        )


def _batched(params: VerifierParams, max_tokens: int, rows: int | None) -> Any:
    """(weights, arrays of B rows) -> verdicts. vmap over the rows alone makes more rows, and no loop of loops."""

    @custom_vmap
    def run(weights: Any, arrays: Any) -> TokenVerdicts:
        verify = functools.partial(_verify, dataclasses.replace(params, weights=weights), max_tokens)
        batch = arrays[0].shape[0]
        if rows is None or rows == batch:
            return verify(*arrays)
        parts = jax.tree.map(lambda x: x.reshape(batch // rows, rows, *x.shape[1:]), arrays)
        found = jax.lax.map(lambda part: verify(*part), parts)
        return jax.tree.map(lambda x: x.reshape(batch, *x.shape[2:]), found)

    @run.def_vmap
    def over(size: int, batched: Any, weights: Any, arrays: Any) -> Any:
        def spread(x: jax.Array, is_batched: bool) -> jax.Array:
            return x if is_batched else jnp.broadcast_to(x, (size, *x.shape))

        arrays = jax.tree.map(spread, arrays, batched[1])
        if any(jax.tree.leaves(batched[0])):  # several models
            weights = jax.tree.map(spread, weights, batched[0])
            found = jax.lax.map(lambda one: run(*one), (weights, arrays))
        else:
            joined = jax.tree.map(lambda x: x.reshape(size * x.shape[1], *x.shape[2:]), arrays)
            found = run(weights, joined)
            found = jax.tree.map(lambda x: x.reshape(size, -1, *x.shape[1:]), found)
        return found, jax.tree.map(lambda _: True, found)

    return run


def _verify(
    params: VerifierParams,
    max_tokens: int,
    ids: jax.Array,
    lengths: jax.Array,
    steps: jax.Array,
    keys: jax.Array,
    temperature: jax.Array,
) -> TokenVerdicts:
    model, script = params.model(), params.script
    room = script.chain_room(max_tokens)
    columns = 1 + room + script.asking_room()
    state = begin_rows(script, model.prefill(ids), ids, lengths, room)
    step = ChainStep(model, script, max_tokens, lengths, steps, keys, temperature)
    for end in _segments(columns):
        state = jax.lax.while_loop(functools.partial(_wanted, script, end), step, with_columns(state, end))
    return _finish(script, state, steps)


def _segments(columns: int) -> list[int]:
    """Numbers of columns, the last is all. A step attends to every column that there is, used or not, so there are
    few at first; each number is a loop of its own to compile, so they double."""
    ends = [min(_FIRST_COLUMNS, columns)]
    while ends[-1] < columns:
        ends.append(min(2 * ends[-1], columns))
    return ends


def _wanted(script: DeviceScript, end: int, state: ChainRows) -> jax.Array:
    return jnp.any(state.phase < script.rounds + 2) & (state.column < end)


def _finish(script: DeviceScript, state: ChainRows, steps: jax.Array) -> TokenVerdicts:
    number = jnp.arange(script.max_steps)
    given = number < steps[:, None]
    wrong = given & (state.labels == 0)
    first = jnp.where(jnp.any(wrong, axis=1), jnp.argmax(wrong, axis=1), script.max_steps)
    judged = given & (number <= first[:, None])
    fits = steps <= script.max_steps
    scores = jnp.where(judged, jax.nn.sigmoid(state.odds), 0.0)
    spans = jnp.where(judged & ~state.forced, state.spans, -1)
    lengths = state.answer + 1
    return TokenVerdicts(
        prefix_score=jnp.where(fits, state.score, jnp.nan),
        step_labels=jnp.where(judged & (state.labels == 1) & fits[:, None], 1, 0),
        step_scores=jnp.where(fits[:, None], scores, jnp.nan),
        step_forced=judged & state.forced,
        covered=state.clear & fits,
        stopped=state.stopped,
        output_tokens=state.sampled,
        ids=jnp.where(jnp.arange(state.ids.shape[1]) < lengths[:, None], state.ids, 0),
        lengths=lengths,
        spans=VerdictSpans(spans, jnp.where(fits, state.answer, -1)),
    )
