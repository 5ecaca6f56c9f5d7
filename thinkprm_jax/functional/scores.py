"""The scores of chains that are given: one forward pass, differentiable."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from thinkprm_jax.functional.params import VerifierParams
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.matmul import contract


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VerdictSpans:
    """Where verdicts stand in chains; B chains, S steps at most.

    Attributes:
      steps: int32 [B, S], position in the ids of the word (correct, incorrect) that judges the step; -1 for none.
      answer: int32 [B], position of the answer (` Yes`, ` No`); -1 for none.
    """

    steps: Any
    answer: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenScores:
    """What :func:`score_tokens` finds.

    Attributes:
      step_scores: float32 [B, S], P(correct) against P(incorrect); NaN where the span is negative.
      prefix_score: float32 [B], the probability of the answer Yes; NaN where the span is negative.
    """

    step_scores: Any
    prefix_score: Any


def score_tokens(params: VerifierParams, ids: Any, spans: VerdictSpans) -> TokenScores:
    """The verdicts' probabilities in given chains, teacher-forced: one forward pass, float32, differentiable.

    What stands at a verdict's position and behind it is not looked at: the probabilities are those of the place.
    A missing verdict is NaN and has no gradient: ``jnp.nansum`` and ``jnp.nanmean`` leave it out.

    Example:

        import jax, jax.numpy as jnp

        prm = ThinkPRM("mini", temperature=0.0)
        params = verifier_params(prm, max_steps=4)
        prompts = token_prompts(prm, ["2 + 3 + 4?"], [["2 + 3 = 5.", "5 + 4 = 9."]])
        chains = verify_tokens(params, prompts, max_tokens=64)

        @jax.jit
        def loss(params):  # the verifier should say Yes
            return -jnp.log(score_tokens(params, chains.ids, chains.spans).prefix_score).mean()

        gradient = jax.grad(loss)(params)

    Args:
      params: of :func:`verifier_params`.
      ids: int [B, T], prompt and chain, right padded.
      spans: of :func:`verify_tokens`, or of :func:`token_chains` for chains that somebody else wrote.
    Returns: float32, of B chains.
    """
    model, script = params.model(), params.script
    hidden = model.hidden(jnp.asarray(ids, jnp.int32))
    steps, answer = jnp.asarray(spans.steps), jnp.asarray(spans.answer)
    verdicts = _logits(model, hidden, steps, script.verdicts)
    answers = _logits(model, hidden, answer[:, None], script.labels)[:, 0]
    scores = jax.nn.softmax(answers / script.decision_temperature, axis=-1)
    return TokenScores(
        step_scores=jnp.where(steps > 0, jax.nn.sigmoid(verdicts[..., 0] - verdicts[..., 1]), jnp.nan),
        prefix_score=jnp.where(answer > 0, scores[:, script.score_label], jnp.nan),
    )


def _logits(model: Decoder, hidden: jax.Array, places: jax.Array, words: tuple[int, ...]) -> jax.Array:
    """Logits of some words alone, at the positions before ``places`` [B, N]: float32 [B, N, words]."""
    before = jnp.maximum(places - 1, 0)
    states = jnp.take_along_axis(hidden, before[..., None], axis=1)
    return contract("btd,vd->btv", states, model.head_rows(jnp.asarray(words)), model.dtype)
