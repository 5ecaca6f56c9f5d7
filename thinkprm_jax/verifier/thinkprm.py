"""ThinkPRM: a process reward model that thinks before it scores.

Solutions go in, verdicts come out: for each solution n chains of n_thinking_rounds rounds are run by the sampler,
all of them side by side, and each gives a score for the whole and for every step.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.protocol.prompts import TRIGGERS, VERIFICATION_PROMPT, encode_prompt
from thinkprm_jax.protocol.steps import split_solution
from thinkprm_jax.runtime import default_dtype
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.verifier.chains import (
    Sampling,
    Script,
    Written,
    chain_seed,
    check_item,
    check_lengths,
    predict_batch,
    score_outputs,
    write_chains,
)
from thinkprm_jax.verifier.kind import require_generative
from thinkprm_jax.verifier.script import ChainVerdict, VerificationScript

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.model.decoder import Decoder
    from thinkprm_jax.sampler import Sampler

logger = logging.getLogger(__name__)

__all__ = ["ThinkPRM", "Verdict", "chain_seed", "check_item", "check_lengths"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The verdict on one solution: the prompt, and its n chains; or the reason why there is none.

    The properties average over the chains; they raise ``error`` where there is one.
    """

    prompt: str = ""
    chains: tuple[ChainVerdict, ...] = ()
    error: RequestError | None = None

    def _judged(self) -> tuple[ChainVerdict, ...]:
        if self.error is not None:
            raise self.error
        return self.chains

    @property
    def output_tokens(self) -> int:
        """Tokens sampled for it, over all chains; 0 where there are none."""
        return sum(chain.output_tokens for chain in self.chains)

    @property
    def prefix_score(self) -> float:
        """Probability that all given steps are correct: the mean over the chains."""
        return float(np.mean([chain.prefix_score for chain in self._judged()]))

    @property
    def step_scores(self) -> list[float]:
        """Mean score of each step."""
        return np.mean([chain.step_scores for chain in self._judged()], axis=0).tolist()

    @property
    def step_labels(self) -> list[int]:
        """1 where most chains call the step correct; a tie is decided by the mean score. Never 1 behind a 0."""
        labels: list[int] = []
        for votes, score in zip(zip(*self._labels(), strict=True), self.step_scores, strict=True):
            lead = 2 * sum(votes) - len(votes)
            is_correct = lead > 0 or (lead == 0 and score >= 0.5)
            labels.append(int(is_correct and 0 not in labels))
        return labels

    @property
    def first_error(self) -> int:
        """Index from 0 of the first step labelled 0, or -1."""
        labels = self.step_labels
        return labels.index(0) if 0 in labels else -1

    def _labels(self) -> list[tuple[int, ...]]:
        return [chain.step_labels for chain in self._judged()]

    def as_dict(self) -> dict[str, Any]:
        """The result of :meth:`ThinkPRM.predict_correctness_batch` for one solution."""
        if self.error is not None:
            return {"error": str(self.error)}
        return {
            "step_labels": [list(labels) for labels in self._labels()],
            "inputs": self.prompt,
            "outputs": [chain.output for chain in self.chains],
            "prefix_score": self.prefix_score,
            "prefix_scores": [chain.prefix_score for chain in self.chains],
            "step_scores": [list(chain.step_scores) for chain in self.chains],
            "step_forced": [list(chain.step_forced) for chain in self.chains],
            "finish_reasons": [chain.finish_reason for chain in self.chains],
            "output_tokens": [chain.output_tokens for chain in self.chains],
        }


class ThinkPRM:
    """A generative verifier. ``settings`` says all that its verdicts depend on, apart from the solutions.

    Args:
      model_name_or_path: ``"mini"`` (the model that comes with the package), a Hugging Face folder, or an id such
        as ``launch/ThinkPRM-1.5B``.
      max_length: longest context in tokens: prompt, chain and all that is forced.
      temperature: of the chains; 0 is greedy (all n chains are then the same one, which is run once).
      n: chains a solution; their scores are averaged.
      seed: the result for a solution depends on its own text and this seed. Its neighbours can only change the
        rounding of products (scores by about 1e-6 in float32), and a token where that decides.
      n_thinking_rounds: rounds of :meth:`predict_correctness_batch_sequential_scaling`, and of everything else
        when ``multiround_verifier`` is set; otherwise everything else thinks once. More than 4 need more
        ``triggers``.
      decision_temperature: divides the two log-probabilities of the decision.
      max_gen_tokens: tokens a round may think; None: as many as fit max_length.
      stop_at_unknown_step: a chain that goes on to a step behind the last given one is ended there. For verdicts
        on solutions that are still being written; see :class:`.VerificationScript`.
      slots: chains that are decoded together.
      dtype: None: float32 on CPUs, bfloat16 elsewhere.
      mesh: devices to run on (:func:`thinkprm_jax.distributed.mesh.make_mesh`). ``tensor_parallel_size`` above
        1, or None for all local devices, makes one.
      prompt: format of the user turn, with the fields {problem} and {solution}.
      model, tokenizer: objects to use instead of loading ``model_name_or_path``.
      sampler: the same with a sampler around them; ``slots`` and ``max_length`` are then those of the sampler.
      enable_prefix_caching: an argument of the original; the chains of one prompt always share its prefill.
    Raises:
      UserError: the model cannot be loaded, or a setting cannot work.
    """

    kind: ClassVar[str] = "thinkprm"
    judges_steps = True
    split = staticmethod(split_solution)  # the steps of a whole solution

    def __init__(
        self,
        model_name_or_path: str | Path = "mini",
        *,
        max_length: int = 4096,
        temperature: float = 0.1,
        n: int = 1,
        seed: int = 0,
        n_thinking_rounds: int = 1,
        decision_temperature: float = 1.0,
        max_gen_tokens: int | None = None,
        multiround_verifier: bool = False,
        stop_at_unknown_step: bool = False,
        slots: int = 16,
        dtype: str | None = None,
        mesh: Mesh | None = None,
        prompt: str = VERIFICATION_PROMPT,
        triggers: Sequence[str] = TRIGGERS,
        model: Decoder | None = None,
        tokenizer: Tokenizer | None = None,
        sampler: Sampler | None = None,
        tensor_parallel_size: int | None = 1,
        enable_prefix_caching: bool = True,
    ) -> None:
        self._sampling = Sampling(n, temperature, seed)
        name, dtype = _what_runs(model_name_or_path, dtype, model, sampler)
        if sampler is None:
            mesh = tensor_mesh(tensor_parallel_size) if mesh is None else mesh
            sampler = make_sampler(model_name_or_path, model, tokenizer, slots, max_length, dtype, mesh)
        self.sampler = sampler
        self.tokenizer = sampler.tokenizer
        self.max_length = sampler.max_length
        self.n, self.temperature, self.seed = n, temperature, seed
        self.n_thinking_rounds = n_thinking_rounds
        self.multiround_verifier = multiround_verifier
        self.stop_at_unknown_step = stop_at_unknown_step
        self._prompt = prompt
        self._script_settings = {
            "max_length": self.max_length,
            "end_ids": sampler.end_ids,
            "max_gen_tokens": max_gen_tokens,
            "decision_temperature": decision_temperature,
            "triggers": tuple(triggers),
            "stop_at_unknown_step": stop_at_unknown_step,
        }
        self.settings = {
            "kind": self.kind,
            "model": name,
            "n": n,
            "temperature": temperature,
            "seed": seed,
            "rounds": n_thinking_rounds if multiround_verifier else 1,
            "max_length": self.max_length,
            "max_gen_tokens": max_gen_tokens,
            "decision_temperature": decision_temperature,
            "stop_at_unknown_step": stop_at_unknown_step,
            "dtype": dtype,
            **({} if prompt == VERIFICATION_PROMPT else {"prompt": prompt}),
            **({} if tuple(triggers) == TRIGGERS else {"triggers": list(triggers)}),
        }
        self._script(n_thinking_rounds)  # so that a wrong setting is named here

    def predict_correctness_batch(
        self, questions: Sequence[str], prefix_steps_batch: Sequence[Sequence[str]]
    ) -> list[dict[str, Any]]:
        """One result a solution, in order. Keys: step_labels (n lists, each as long as the steps), inputs (the
        prompt), outputs (n texts), prefix_score (mean over the chains), prefix_scores, step_scores (n lists),
        step_forced (n lists), finish_reasons, output_tokens: see :class:`ChainVerdict`.

        A solution that cannot be judged (its prompt does not fit, it has no steps, a lone surrogate) has the one
        key ``error`` instead; the others are not touched by it.
        """
        return self._results(questions, prefix_steps_batch, None)

    def predict_correctness_batch_sequential_scaling(
        self, questions: Sequence[str], prefix_steps_batch: Sequence[Sequence[str]]
    ) -> list[dict[str, Any]]:
        """The same with ``n_thinking_rounds`` rounds, whatever ``multiround_verifier`` says; n may be above 1."""
        return self._results(questions, prefix_steps_batch, self.n_thinking_rounds)

    def score(
        self, questions: Sequence[str], outputs: Sequence[Sequence[str]], batch_size: int = 8
    ) -> list[list[list[float]]]:
        """The reward-model interface of search-and-learn: for each question and output the scores of its steps.

        Outputs are whole texts, split by :func:`thinkprm_jax.protocol.steps.split_solution`. The scores are
        those of the steps (mean over the chains), except that the last one is the score of the whole output:
        aggregated by "last" it is ThinkPRM's own score, by "min" and "prod" the steps count too.

        Args:
          batch_size: kept for the interface; the sampler fills its slots by itself.
        Raises:
          RequestError: an output cannot be judged (an empty one, for example). :meth:`verify` goes on instead.
        """
        return [[[*steps[:-1], whole] for steps, whole in row] for row in score_outputs(self, questions, outputs)]

    @property
    def sampled_tokens(self) -> int:
        """Tokens sampled so far by its sampler."""
        return self.sampler.stats.sampled_tokens

    def verify(
        self,
        items: Iterable[tuple[str, Sequence[str]] | None],
        n_thinking_rounds: int | None = None,
        stop_at_unknown_step: bool | None = None,
    ) -> Iterator[tuple[int, Verdict]]:
        """(index of the item, verdict) as they finish, in any order.

        Args:
          items: (problem, steps); taken from the iterable as slots become free. None: there is none at the moment.
          n_thinking_rounds, stop_at_unknown_step: None: as the constructor says.
        """
        rounds = self.n_thinking_rounds if self.multiround_verifier else 1
        script = self._script(rounds if n_thinking_rounds is None else n_thinking_rounds, stop_at_unknown_step)

        def prepare(problem: str, steps: list[str]) -> tuple[list[int], Script]:
            return self._encode(problem, steps, script), functools.partial(script, len(steps))

        for index, written in write_chains(self.sampler, items, prepare, self._sampling):
            yield index, _verdict(written)

    def _results(
        self, questions: Sequence[str], prefix_steps_batch: Sequence[Sequence[str]], rounds: int | None
    ) -> list[dict[str, Any]]:
        verify = functools.partial(self.verify, n_thinking_rounds=rounds)
        return predict_batch(verify, questions, prefix_steps_batch, logger.warning)

    def _script(self, rounds: int, stop_at_unknown_step: bool | None = None) -> VerificationScript:
        settings = dict(self._script_settings)
        if stop_at_unknown_step is not None:
            settings["stop_at_unknown_step"] = stop_at_unknown_step
        return VerificationScript(self.tokenizer, rounds=rounds, **settings)

    def _encode(self, problem: str, steps: Sequence[str], script: VerificationScript) -> list[int]:
        """ids of the prompt; RequestError where no chain fits behind it."""
        ids = encode_prompt(self.tokenizer, problem, steps, self._prompt)
        if len(ids) + script.room(len(steps)) >= self.max_length:
            raise RequestError(
                f"the prompt has {len(ids)} tokens: with max_length {self.max_length} there is no room for a chain"
            )
        return ids


def _verdict(written: Written) -> Verdict:
    return Verdict(written.prompt, written.chains, written.error)


def _what_runs(
    path: str | Path, dtype: str | None, model: Decoder | None, sampler: Sampler | None
) -> tuple[str | None, str | None]:
    """(name of the model, dtype) for the settings; None where only a given object knows it."""
    if sampler is not None:
        return None, None
    return (str(path), dtype or default_dtype()) if model is None else (None, model.dtype.name)


def tensor_mesh(tensor_parallel_size: int | None) -> Mesh | None:
    if tensor_parallel_size == 1:
        return None
    import jax

    from thinkprm_jax.distributed.mesh import make_mesh

    size = jax.local_device_count() if tensor_parallel_size is None else tensor_parallel_size
    return make_mesh(tensor=size, devices=jax.local_devices()[:size]) if size > 1 else None


def make_sampler(
    path: str | Path | None,
    model: Decoder | None,
    tokenizer: Tokenizer | None,
    slots: int,
    max_length: int,
    dtype: str | None,
    mesh: Mesh | None,
) -> Sampler:
    from thinkprm_jax.checkpoint.huggingface import load_model
    from thinkprm_jax.sampler import Sampler, cpu_lanes

    if (model is None) != (tokenizer is None):
        raise UserError("model and tokenizer go together: give both or neither")
    if model is None:
        require_generative(path)
        model, tokenizer = load_model(path, dtype=dtype, mesh=mesh)
    lanes = cpu_lanes(model.config, model.dtype, slots)
    return Sampler(model, tokenizer, slots=slots, max_length=max_length, mesh=mesh, lanes=lanes)
