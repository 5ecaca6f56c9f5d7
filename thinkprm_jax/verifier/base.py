"""What every verifier is, and what it says: one class of verdicts for all kinds.

A kind (:mod:`.registry` lists them) is a class of :class:`Verifier` with settings of its own (:mod:`.settings`).
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from thinkprm_jax.activity import Activity
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.protocol.reading import contradicts
from thinkprm_jax.protocol.steps import split_solution
from thinkprm_jax.records import VerdictRecord
from thinkprm_jax.runtime import refuse_pickling
from thinkprm_jax.sampler.handle import Handle, StepLoop, finished, gather
from thinkprm_jax.sampler.request import Request, Result, Script
from thinkprm_jax.verifier.findings import ChainVerdict, Combine, Findings, Reading, Unlocated
from thinkprm_jax.verifier.loading import load_sampler
from thinkprm_jax.verifier.script import chain_seed
from thinkprm_jax.verifier.settings import SamplingSettings, VerifierSettings, check_names, signature_with_settings

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.model.decoder import Decoder
    from thinkprm_jax.sampler import Sampler
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

Item = tuple[str, Sequence[str]]  # (problem, steps)
# (problem, steps) -> (ids of the prompt, script of a chain); RequestError where the solution cannot be judged.
Prepare = Callable[[str, list[str]], tuple[list[int], Script]]


@dataclass(frozen=True)
class Verdict:
    """The verdict on one solution, of every kind of verifier; or ``error``, the reason why there is none.

    The properties raise ``error`` where there is one.

    Example:

        prm = ThinkPRM("mini")
        [(index, verdict)] = prm.verify([("2 + 3 + 4?", ["2 + 3 = 5.", "5 + 4 = 10."])])
        if verdict.error is None:
            print(verdict.prefix_score, verdict.first_error, verdict.step_scores)

    Attributes:
      prompt: what the verifier was given, as text.
      chains: what it wrote; () of a verifier that writes none. Chains that cannot be read are here too.
      error: why there is no verdict.
      locates: whether the verifier says where an error is, not only that there is one.
      findings: the numbers; None where there is an error.
    """

    prompt: str = ""
    chains: tuple[ChainVerdict, ...] = ()
    error: RequestError | None = None
    locates: bool = True
    findings: Findings | None = None
    _combine: Combine | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of_chains(
        cls, prompt: str, chains: Sequence[ChainVerdict], combine: Combine, locates: bool = True
    ) -> Verdict:
        """The verdict that ``combine`` makes of the chains."""
        try:
            found, error = combine(chains), None
        except RequestError as failure:
            found, error = None, failure
        return cls(prompt, tuple(chains), error, locates, found, combine)

    @classmethod
    def of_scores(cls, prompt: str, scores: Sequence[float]) -> Verdict:
        """Of a verifier that scores every step and writes no chain: the score of the solution is its last step's,
        a step is correct above one half, and each speaks for itself: a 1 may follow a 0. Exactly one half is
        incorrect, as in the public codes of these models; of a ThinkPRM it is correct: ` Yes` comes first."""
        labels = tuple(int(score > 0.5) for score in scores)
        first = labels.index(0) if 0 in labels else -1
        return cls(prompt, findings=Findings(scores[-1], tuple(scores), labels, first))

    def first_chains(self, count: int) -> Verdict:
        """The verdict that ``count`` chains would have given, since a chain's sampling depends on its number and
        not on how many there are. One without chains is the same for every count."""
        if self._combine is None or count >= len(self.chains):
            return self
        return Verdict.of_chains(self.prompt, self.chains[:count], self._combine, self.locates)

    @property
    def found(self) -> Findings:
        """The numbers; raises ``error`` where there are none."""
        if self.error is not None:
            raise self.error
        assert self.findings is not None
        return self.findings

    @property
    def prefix_score(self) -> float:
        """Probability that all given steps are correct: the mean over the chains that have a score."""
        return self.found.prefix_score

    @property
    def step_scores(self) -> list[float]:
        """Score of each step; where the verdict says nothing of steps, the score of the whole alone, of which
        every aggregation over steps is that score."""
        return list(self.found.step_scores)

    @property
    def step_labels(self) -> list[int]:
        """1 correct, 0 incorrect, one a step; [] where the verdict says nothing of steps."""
        return list(self.found.step_labels)

    @property
    def first_error(self) -> int:
        """Index from 0 of the first incorrect step, or -1; :class:`Unlocated` where it is not said."""
        first = self.found.first_error
        if first is None:
            raise Unlocated("the verifier says that there is an error and not where")
        return first

    @property
    def contradictory(self) -> bool | None:
        """Whether the score of the whole says one thing and the labels of the steps another; None: no labels."""
        return contradicts(self.prefix_score, self.found.step_labels)

    @property
    def output_tokens(self) -> int:
        """Tokens sampled for it, over all chains, unreadable ones too; 0 where there are none."""
        return sum(chain.output_tokens for chain in self.chains)

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What each chain says by itself. A verifier without chains speaks as one that names its first error: so
        the figures of both mean the same. () where nothing was written and there is an error."""
        if self.chains or self.error is not None:
            return tuple(chain.reading for chain in self.chains)
        return (Reading.of_first_error(self.first_error, len(self.found.step_labels)),)

    def as_dict(self) -> dict[str, Any]:
        """The dictionary of the original's ``predict_correctness_batch`` for one solution."""
        if self.error is not None:
            return {"error": str(self.error)}
        if not self.chains:  # as of one chain, which is empty
            return {
                "step_labels": [self.step_labels],
                "inputs": self.prompt,
                "outputs": [""],
                "prefix_score": self.prefix_score,
                "prefix_scores": [self.prefix_score],
                "step_scores": [self.step_scores],
                "contradictory": [self.contradictory],
                "output_tokens": [0],
            }
        return {
            "step_labels": [list(chain.step_labels) for chain in self.chains],
            "inputs": self.prompt,
            "outputs": [chain.output for chain in self.chains],
            "prefix_score": self.prefix_score,
            "prefix_scores": [chain.prefix_score for chain in self.chains],
            "step_scores": [list(chain.step_scores) for chain in self.chains],
            "step_forced": [list(chain.step_forced) for chain in self.chains],
            "finish_reasons": [chain.finish_reason for chain in self.chains],
            "output_tokens": [chain.output_tokens for chain in self.chains],
            "contradictory": [contradicts(chain.prefix_score, chain.step_labels) for chain in self.chains],
        }

    def record(self, steps: Sequence[str] | None = None) -> VerdictRecord:
        """The verdict as it stands in a file; ``steps``: to be written too, where its row does not have them."""
        given = None if steps is None else tuple(steps)
        chains = tuple(chain.record for chain in self.chains)
        if self.error is not None:
            return VerdictRecord(error=str(self.error), steps=given, chains=chains)
        numbers = (self.found.prefix_score, self.found.step_scores, self.found.step_labels)
        return VerdictRecord(*numbers, contradictory=self.contradictory, steps=given, chains=chains)


class Verifier(abc.ABC):
    """Judges solutions. A kind of verifier is a class below this one.

    Example:

        def best(verifier: Verifier, problem: str, solutions: list[list[str]]) -> list[str]:
            verdicts = dict(verifier.verify((problem, steps) for steps in solutions))
            return max(solutions, key=lambda steps: verdicts[solutions.index(steps)].prefix_score)

        best(load_verifier("mini"), "2 + 3?", [["2 + 3 = 5."], ["2 + 3 = 6."]])

    Attributes:
      Settings: the class of its settings.
      settings: all that a verdict depends on, apart from the solution; ``settings.stamp`` says it in JSON.
      n: chains a solution.
      judges_steps: whether a verdict says which step is wrong.
      sampler: what writes its chains; None of a verifier that writes none.
    """

    Settings: ClassVar[type[VerifierSettings]]
    settings: VerifierSettings
    n: int = 1
    judges_steps: bool = True
    sampler: Sampler | None = None

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Shows the settings in the signature, where `help` and notebooks look: ``**values`` names none."""
        super().__init_subclass__(**arguments)
        if hasattr(cls, "Settings"):
            cls.__signature__ = signature_with_settings(cls.__init__, cls.Settings)  # type: ignore[attr-defined]

    @classmethod
    @abc.abstractmethod
    def load(cls, settings: Any, *, mesh: Mesh | None = None, sampler: Sampler | None = None) -> Self:
        """The verifier of these settings.

        Args:
          settings: of the class ``Settings``, settled.
          mesh: devices to run on.
          sampler: to be used instead of loading the model; of kinds that write.
        """

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self)

    @property
    def kind(self) -> str:
        """Its name in the registry."""
        return self.settings.kind

    @property
    @abc.abstractmethod
    def loop(self) -> StepLoop:
        """What steps its work."""

    @abc.abstractmethod
    def submit(self, problem: str, steps: Sequence[str]) -> Handle[Verdict]:
        """Has a solution judged, from any thread: ``submit(problem, steps).result()``, or ``await`` it.

        Returns: the handle of its verdict, which has ``error`` where it cannot be judged. It steps when somebody
        waits, together with all others that were submitted.
        Raises:
          UserError: inside jax.jit, where nothing can be computed.
        """

    def verify(self, items: Iterable[Item]) -> Iterator[tuple[int, Verdict]]:
        """Judges solutions as they come.

        Args:
          items: (problem, steps); taken from the iterable as there is room.
        Yields:
          (index of the item, verdict) as they finish, in any order. An item that cannot be judged has a verdict
          with ``error``; the others go on.
        """
        return self.loop.serve(enumerate(items), lambda item: self.submit(*item))

    @property
    def sampled_tokens(self) -> int:
        """Tokens sampled so far, over all verdicts."""
        return 0 if self.sampler is None else self.sampler.stats.sampled_tokens

    @property
    def activity(self) -> Activity:
        """What it is doing at this moment, for whoever shows it."""
        return Activity() if self.sampler is None else self.sampler.activity

    def requests(self, solutions: int) -> tuple[str, int]:
        """(what :attr:`activity` counts, how many of them so many solutions take)."""
        return ("solutions", solutions) if self.sampler is None else ("chains", solutions * self.n)

    def split(self, solution: str) -> list[str]:
        """The steps of a whole solution, as this kind's own code cuts it."""
        return split_solution(solution)

    def predict_correctness_batch(
        self, questions: Sequence[str], prefix_steps_batch: Sequence[Sequence[str]]
    ) -> list[dict[str, Any]]:
        """The interface of the original: one dictionary a solution, in order.

        Args:
          questions: the problems, text. prefix_steps_batch: for each of them the steps of one solution.
        Returns:
          Dictionaries with the keys step_labels (n lists, each as long as the steps), inputs (the prompt), outputs
          (n texts), prefix_score (mean over the chains), prefix_scores, step_scores (n lists), step_forced (n
          lists), finish_reasons, output_tokens, contradictory (n): see :class:`ChainVerdict`. A verifier without
          chains gives them as of one empty chain, without step_forced and finish_reasons. A solution that cannot
          be judged (its prompt does not fit, it has no steps) has the one key ``error``, the others are as ever.
        Raises:
          UserError: the two lists do not go together.
        """
        return [verdict.as_dict() for verdict in verify_all(self.verify, questions, prefix_steps_batch)]

    def score(
        self, questions: Sequence[str], outputs: Sequence[Sequence[str]], batch_size: int = 8
    ) -> list[list[list[float]]]:
        """The reward-model interface of search-and-learn: for each question and output the scores of its steps.

        Args:
          questions: the problems, text. outputs: for each of them whole solutions, cut by :meth:`split`.
          batch_size: kept for the interface; what runs together is a matter of the settings.
        Raises:
          RequestError: an output cannot be judged (an empty one, for example). :meth:`verify` goes on instead.
        """
        for question, texts in enumerate(outputs):
            if isinstance(texts, str):
                raise UserError(f"outputs[{question}] is one text: give a list of texts for each question")
        check_lengths("outputs", questions, outputs)
        places = [(i, j) for i, texts in enumerate(outputs) for j in range(len(texts))]
        scores: list[list[list[float]]] = [[[] for _ in texts] for texts in outputs]
        for index, verdict in self.verify((questions[i], self.split(outputs[i][j])) for i, j in places):
            i, j = places[index]
            if verdict.error is not None:
                raise RequestError(f"question {i}, output {j}: {verdict.error}")
            scores[i][j] = self.reward(verdict)
        return scores

    def reward(self, verdict: Verdict) -> list[float]:
        """The scores of a solution for :meth:`score`."""
        return verdict.step_scores


class ChainVerifier(Verifier):
    """A verifier that writes chains: a kind says what the prompt and the script of one are, and how several make a
    verdict.

    Args:
      model, tokenizer: objects to use instead of loading the model of the settings.
      sampler: the same with a sampler around them; slots and max_length are then those of the sampler.
    """

    settings: SamplingSettings
    sampler: Sampler

    def __init__(
        self,
        settings: SamplingSettings,
        model: Decoder | None,
        tokenizer: Tokenizer | None,
        sampler: Sampler | None,
        mesh: Mesh | None,
    ) -> None:
        found = settings.settled()
        # Of a given sampler nobody knows the dtype, unless the settings say it.
        self.settings = found if sampler is None else dataclasses.replace(found, dtype=settings.dtype)
        self.sampler = load_sampler(self.settings, model, tokenizer, mesh) if sampler is None else sampler
        self.tokenizer, self.end_ids = self.sampler.tokenizer, self.sampler.end_ids
        self.n, self.max_length = self.settings.n, self.sampler.max_length

    @classmethod
    def given_settings(
        cls, name: str | None, model: Decoder | None, sampler: Sampler | None, values: dict[str, Any]
    ) -> Any:
        """The settings of a verifier by name, or around objects, of which only the objects know the rest."""
        check_names(cls.Settings, values)
        if sampler is not None:
            return cls.Settings(**{**values, "max_length": sampler.max_length})
        if model is not None:
            return cls.Settings(**{**values, "dtype": model.dtype.name})
        return cls.Settings(model=name, **values)

    @abc.abstractmethod
    def prepare(self, problem: str, steps: Sequence[str]) -> tuple[list[int], Script]:
        """(ids of the prompt, script of a chain); RequestError where the solution cannot be judged."""

    @staticmethod
    @abc.abstractmethod
    def combine(chains: Sequence[ChainVerdict]) -> Findings:
        """The verdict of several chains; RequestError where there is none."""

    @property
    def loop(self) -> StepLoop:
        return self.sampler.loop

    def submit(self, problem: str, steps: Sequence[str]) -> Handle[Verdict]:
        return self.write(problem, steps, self.prepare)

    def write(self, problem: str, steps: Sequence[str], prepare: Prepare) -> Handle[Verdict]:
        """:meth:`submit` with another way to prompt and script."""
        try:
            steps = check_item(problem, steps)
            self.tokenizer.check_fits("\n".join([problem, *steps]), self.max_length, self.sampler.positions)
            ids, script = prepare(problem, steps)
        except RequestError as error:
            return finished(self.loop, Verdict(error=error, locates=self.judges_steps))
        settings = self.settings
        temperature = settings.temperature
        assert temperature is not None  # settled
        chains = [
            Request(ids, script, temperature, settings.top_p, seed=chain_seed(settings.seed, chain, ids))
            for chain in range(self.n)
        ]
        verdict = functools.partial(self._verdict, self.tokenizer.decode(ids))
        return gather(self.loop, list(map(self.sampler.submit, chains)), verdict)

    def _verdict(self, prompt: str, results: Sequence[Result]) -> Verdict:
        """What the chains of a solution say together."""
        for result in results:
            if result.error is not None:
                return Verdict(prompt, error=result.error, locates=self.judges_steps)
        chains = [dataclasses.replace(result.value, output_tokens=result.tokens) for result in results]
        return Verdict.of_chains(prompt, chains, self.combine, self.judges_steps)


def verify_all(
    verify: Callable[[Iterable[Item]], Iterator[tuple[int, Verdict]]],
    questions: Sequence[str],
    prefix_steps_batch: Sequence[Sequence[str]],
) -> list[Verdict]:
    """The verdicts on all solutions, in order."""
    check_lengths("prefix_steps_batch", questions, prefix_steps_batch)
    verdicts = [Verdict()] * len(questions)
    for index, verdict in verify(zip(questions, prefix_steps_batch, strict=True)):
        verdicts[index] = verdict
        if verdict.error is not None:
            logger.warning("solution %d was not judged: %s", index, verdict.error)
    return verdicts


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


def check_lengths(name: str, questions: Sequence[str], others: Sequence[Any]) -> None:
    """UserError unless both are lists of one length."""
    for what, value in (("questions", questions), (name, others)):
        if isinstance(value, str):
            raise UserError(f"{what} is one text: give a list")
    if len(questions) != len(others):
        raise UserError(f"there are {len(questions)} questions and {len(others)} {name}")
