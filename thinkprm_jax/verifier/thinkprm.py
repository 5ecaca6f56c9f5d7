"""ThinkPRM: a process reward model that thinks before it scores.

Solutions go in, verdicts come out: for each solution n chains of n_thinking_rounds rounds are run by the sampler,
all of them side by side, and each gives a score for the whole and for every step.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.sampler.request import Request
from thinkprm_jax.text.prompts import TRIGGERS, VERIFICATION_PROMPT, encode_prompt
from thinkprm_jax.text.steps import split_solution
from thinkprm_jax.text.tokenizer import Tokenizer
from thinkprm_jax.verifier.forcing import ChainVerdict, VerificationScript
from thinkprm_jax.verifier.kind import require_generative

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.model.decoder import Decoder
    from thinkprm_jax.sampler import Sampler

logger = logging.getLogger(__name__)


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
    """A generative verifier.

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
      slots: chains that are decoded together.
      dtype: None: float32 on CPUs, bfloat16 elsewhere.
      mesh: devices to run on (:func:`thinkprm_jax.mesh.make_mesh`). ``tensor_parallel_size`` above 1, or None for
        all local devices, makes one.
      prompt: format of the user turn, with the fields {problem} and {solution}.
      model, tokenizer: objects to use instead of loading ``model_name_or_path``.
      sampler: the same with a sampler around them; ``slots`` and ``max_length`` are then those of the sampler.
      enable_prefix_caching: an argument of the original; the chains of one prompt always share its prefill.
    Raises:
      UserError: the model cannot be loaded, or a setting cannot work.
    """

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
        if n < 1:
            raise UserError(f"n is {n}, it must be at least 1")
        if not 0 <= temperature < float("inf"):
            raise UserError(f"temperature is {temperature}, it must be 0 or more")
        if sampler is None:
            mesh = _tensor_mesh(tensor_parallel_size) if mesh is None else mesh
            sampler = _make_sampler(model_name_or_path, model, tokenizer, slots, max_length, dtype, mesh)
        self.sampler = sampler
        self.tokenizer = sampler.tokenizer
        self.max_length = sampler.max_length
        self.n, self.temperature, self.seed = n, temperature, seed
        self.n_thinking_rounds = n_thinking_rounds
        self.multiround_verifier = multiround_verifier
        self._prompt = prompt
        self._script_settings = {
            "max_length": self.max_length,
            "end_ids": sampler.end_ids,
            "max_gen_tokens": max_gen_tokens,
            "decision_temperature": decision_temperature,
            "triggers": tuple(triggers),
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
        """The reward-model interface of search-and-learn: [question][output] -> scores, one a step.

        Outputs are whole texts, split by :func:`thinkprm_jax.text.steps.split_solution`. The scores are those of
        the steps (mean over the chains), except that the last one is the score of the whole output: aggregated by
        "last" it is ThinkPRM's own score, by "min" and "prod" the steps count too.

        Args:
          batch_size: kept for the interface; the sampler fills its slots by itself.
        Raises:
          RequestError: an output cannot be judged (an empty one, for example). :meth:`verify` goes on instead.
        """
        check_lengths("outputs", questions, outputs)
        places = [(i, j) for i, texts in enumerate(outputs) for j in range(len(texts))]
        scores: list[list[list[float]]] = [[[] for _ in texts] for texts in outputs]
        items = ((questions[i], split_solution(outputs[i][j])) for i, j in places)
        for index, verdict in self.verify(items):
            i, j = places[index]
            if verdict.error is not None:
                raise RequestError(f"question {i}, output {j}: {verdict.error}")
            scores[i][j] = [*verdict.step_scores[:-1], verdict.prefix_score]
        return scores

    def verify(
        self, items: Iterable[tuple[str, Sequence[str]]], n_thinking_rounds: int | None = None
    ) -> Iterator[tuple[int, Verdict]]:
        """(index of the item, verdict) as they finish, in any order.

        Args:
          items: (problem, steps); taken from the iterable as slots become free.
          n_thinking_rounds: None: as the constructor says.
        """
        rounds = self.n_thinking_rounds if self.multiround_verifier else 1
        script = self._script(rounds if n_thinking_rounds is None else n_thinking_rounds)
        failed: collections.deque[tuple[int, Verdict]] = collections.deque()
        owners: dict[int, tuple[int, int]] = {}  # request -> (item, chain)
        open_items: dict[int, _OpenItem] = {}
        chains = 1 if self.temperature == 0 else self.n

        def requests() -> Iterator[Request]:
            asked = 0
            for index, (problem, steps) in enumerate(items):
                try:
                    steps = check_item(problem, steps)
                    ids = self._encode(problem, steps, script)
                except RequestError as error:
                    failed.append((index, Verdict(error=error)))
                    continue
                open_items[index] = _OpenItem(self.tokenizer.decode(ids), [None] * chains)
                for chain in range(chains):
                    owners[asked] = (index, chain)
                    asked += 1
                    yield Request(
                        ids,
                        functools.partial(script, len(steps)),
                        temperature=self.temperature,
                        seed=chain_seed(self.seed, chain, ids),
                    )

        for number, result in self.sampler.run(requests()):
            while failed:
                yield failed.popleft()
            index, chain = owners.pop(number)
            item = open_items[index]
            item.error = item.error or result.error
            item.chains[chain] = result.value and dataclasses.replace(result.value, output_tokens=result.tokens)
            item.missing -= 1
            if not item.missing:
                yield index, open_items.pop(index).verdict(copies=self.n // chains)
        yield from failed

    def _results(
        self, questions: Sequence[str], prefix_steps_batch: Sequence[Sequence[str]], rounds: int | None
    ) -> list[dict[str, Any]]:
        check_lengths("prefix_steps_batch", questions, prefix_steps_batch)
        results: list[dict[str, Any]] = [{} for _ in questions]
        for index, verdict in self.verify(zip(questions, prefix_steps_batch, strict=True), rounds):
            results[index] = verdict.as_dict()
            if verdict.error is not None:
                logger.warning("solution %d was not judged: %s", index, verdict.error)
        return results

    def _script(self, rounds: int) -> VerificationScript:
        return VerificationScript(self.tokenizer, rounds=rounds, **self._script_settings)

    def _encode(self, problem: str, steps: Sequence[str], script: VerificationScript) -> list[int]:
        """ids of the prompt; RequestError where no chain fits behind it."""
        ids = encode_prompt(self.tokenizer, problem, steps, self._prompt)
        if len(ids) + script.room(len(steps)) >= self.max_length:
            raise RequestError(
                f"the prompt has {len(ids)} tokens: with max_length {self.max_length} there is no room for a chain"
            )
        return ids


@dataclasses.dataclass
class _OpenItem:
    """An item some of whose chains are still running."""

    prompt: str
    chains: list[ChainVerdict | None]
    error: RequestError | None = None
    missing: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.missing = len(self.chains)

    def verdict(self, copies: int) -> Verdict:
        if self.error is not None:
            return Verdict(self.prompt, error=self.error)
        return Verdict(self.prompt, tuple(chain for chain in self.chains if chain is not None) * copies)


def check_item(problem: str, steps: Sequence[str]) -> list[str]:
    """The steps; RequestError where there is nothing to judge."""
    if not isinstance(problem, str):
        raise RequestError(f"the problem is {type(problem).__name__}, not text")
    if isinstance(steps, str):
        raise RequestError("the steps are one text: give a list, or split it with split_solution")
    if not isinstance(steps, Iterable):
        raise RequestError(f"the steps are {type(steps).__name__}, not a list")
    steps = list(steps)
    if not steps:
        raise RequestError("there are no steps to judge")
    for number, step in enumerate(steps, start=1):
        if not isinstance(step, str):
            raise RequestError(f"step {number} is {type(step).__name__}, not text")
    return steps


def chain_seed(seed: int, chain: int, prompt: Sequence[int]) -> int:
    """In [0, 2**31), from what defines the chain; with the prompt, so that two solutions never share noise."""
    text = f"{seed} {chain} {' '.join(map(str, prompt))}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def check_lengths(name: str, questions: Sequence[str], others: Sequence[Any]) -> None:
    for what, value in (("questions", questions), (name, others)):
        if isinstance(value, str):
            raise UserError(f"{what} is one text: give a list")
    if len(questions) != len(others):
        raise UserError(f"there are {len(questions)} questions and {len(others)} {name}")


def _tensor_mesh(tensor_parallel_size: int | None) -> Mesh | None:
    if tensor_parallel_size == 1:
        return None
    import jax

    from thinkprm_jax.mesh import make_mesh

    size = jax.local_device_count() if tensor_parallel_size is None else tensor_parallel_size
    return make_mesh(tensor=size, devices=jax.local_devices()[:size]) if size > 1 else None


def _make_sampler(
    path: str | Path,
    model: Decoder | None,
    tokenizer: Tokenizer | None,
    slots: int,
    max_length: int,
    dtype: str | None,
    mesh: Mesh | None,
) -> Sampler:
    from thinkprm_jax.checkpoint.huggingface import load_model
    from thinkprm_jax.sampler import Sampler

    if (model is None) != (tokenizer is None):
        raise UserError("model and tokenizer go together: give both or neither")
    if model is None:
        require_generative(path)
        model, tokenizer = load_model(path, dtype=dtype or default_dtype(), mesh=mesh)
    return Sampler(model, tokenizer, slots=slots, max_length=max_length, mesh=mesh)


def default_dtype() -> str:
    """float32 on CPUs, where bfloat16 products are slower; bfloat16 elsewhere."""
    import jax

    return "float32" if jax.default_backend() == "cpu" else "bfloat16"
