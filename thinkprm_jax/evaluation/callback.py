"""Verdicts of the model under training: it judges held-out solutions with the sampler, as users would have it.

Teacher-forced losses say how well a chain is continued that somebody else wrote; whether the model finds the first
error by itself shows only here. The training program calls the hook between steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from thinkprm_jax.data.chains import LabelledChain
from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.results import EvaluationCase, judge_cases
from thinkprm_jax.evaluation.summary import summarise
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.model.decoder import Decoder

VerdictCallback = Callable[[Any, int], dict[str, float]]

# Field of EvaluationSummary -> its name among the metrics of a run.
FIGURES = {
    "first_error_f1": "verdict_f1",
    "acc_error": "verdict_error_accuracy",
    "acc_correct": "verdict_correct_accuracy",
    "readable_chains": "verdict_readable",
    "auroc": "verdict_auroc",
    "tokens": "verdict_tokens",
}


def chain_case(chain: LabelledChain) -> EvaluationCase:
    """The solution that a chain judges, and its first error by the chain's labels."""
    return EvaluationCase(chain.problem, tuple(chain.steps), chain.labels.index(0) if 0 in chain.labels else -1)


def verdict_callback(
    decoder: Callable[[Any], Decoder],
    abstract_state: Any,
    tokenizer: Tokenizer,
    chains: Sequence[LabelledChain],
    *,
    max_length: int = 4096,
    slots: int = 16,
    mesh: Mesh | None = None,
) -> VerdictCallback:
    """A function (state, step) -> figures: one greedy chain for the solution of each of ``chains``.

    Weights are used where they are, in the dtype of training, adapters beside their maps; of layers that training
    holds as one array (``model.scan_layers``) there is a copy by layer meanwhile. Nothing is compiled again when
    the next state comes. Between calls it holds neither weights nor a cache.

    Args:
      decoder: the model of a training state. abstract_state: shapes, dtypes and shardings of such a state.
      max_length: of prompt and chain together. slots: chains decoded together. mesh: the one the state is on.
    Raises:
      UserError: at once, where the settings cannot work: several processes, a max_length above the model's, slots
        that the mesh does not divide.
    """
    import jax

    from thinkprm_jax.model.kernels import Execution
    from thinkprm_jax.sampler import Sampler
    from thinkprm_jax.verifier.thinkprm import ThinkPRM

    if jax.process_count() > 1:
        raise UserError(
            "verdicts: a run of several processes cannot judge between its steps; take verdicts out of the recipe "
            "and evaluate exported checkpoints with `thinkprm evaluate`"
        )
    cases = [chain_case(chain) for chain in chains]

    def model_of(state: Any) -> Decoder:
        model = decoder(state)
        model.execution = Execution()  # training's kernels want training's shapes
        return model

    sampler = Sampler(model_of(abstract_state), tokenizer, slots=slots, max_length=max_length, mesh=mesh)
    sampler.release()
    verifier = ThinkPRM(sampler=sampler, temperature=0.0)

    def on_verdicts(state: Any, step: int) -> dict[str, float]:
        started = time.perf_counter()
        sampler.use(model_of(state))
        try:
            outcomes = [outcome for _, _, outcome in judge_cases(verifier, cases)]
        finally:
            sampler.release()
        summary = summarise(outcomes, resamples=0)
        return {
            **{name: summary.figure(figure).value for figure, name in FIGURES.items()},
            "verdict_failed": float(summary.failed),  # no verdict, counted as wrong
            "verdict_seconds": time.perf_counter() - started,
        }

    return on_verdicts
