"""What every verifier is, and what it says: one class of verdicts for all kinds.

A kind (:mod:`.registry` lists them) is a class of :class:`Verifier` with settings of its own (:mod:`.settings`).
"""

from __future__ import annotations

import abc
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from thinkprm_jax.activity import Activity
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.protocol.reading import contradicts
from thinkprm_jax.protocol.steps import LocatedStep, locate_steps
from thinkprm_jax.records import VerdictRecord
from thinkprm_jax.rewards.reward import Reward
from thinkprm_jax.runtime import refuse_pickling
from thinkprm_jax.sampler.handle import Handle, StepLoop, finished
from thinkprm_jax.verifier.findings import ChainVerdict, Combine, Findings, Reading, Unlocated
from thinkprm_jax.verifier.settings import VerifierSettings, signature_with_settings

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.sampler import Sampler

logger = logging.getLogger(__name__)

Item = tuple[str, Sequence[str]]  # (problem, steps)


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
      weight_version: of the weights that it was made with (:meth:`Verifier.update_weights`), from 0.
      step_spans: of a solution that came as one text, where each step stands in it: (start, end) in characters.
    """

    prompt: str = ""
    chains: tuple[ChainVerdict, ...] = ()
    error: RequestError | None = None
    locates: bool = True
    findings: Findings | None = None
    weight_version: int = 0
    step_spans: tuple[tuple[int, int], ...] | None = None
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
        return cls(prompt, tuple(chains), error, locates, found, _combine=combine)

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
        fewer = Verdict.of_chains(self.prompt, self.chains[:count], self._combine, self.locates)
        return dataclasses.replace(fewer, weight_version=self.weight_version, step_spans=self.step_spans)

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
        made: dict[str, Any] = {
            "steps": given,
            "step_spans": self.step_spans,
            "chains": chains,
            "weight_version": self.weight_version,
        }
        if self.error is not None:
            return VerdictRecord(error=str(self.error), **made)
        numbers = (self.found.prefix_score, self.found.step_scores, self.found.step_labels)
        return VerdictRecord(*numbers, contradictory=self.contradictory, **made)


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

    def update_weights(self, weights: Any, *, copy: bool = True) -> int:
        """Judges with other weights of the same architecture from here on, between two solutions: what was
        submitted before is judged with the old ones, what is submitted after with the new ones. Nothing is
        compiled again, and what was cached of the old weights is forgotten. From any thread.

        Giving the model's own variables other values does the same, without a call.

        Args:
          weights: arrays by name (of our parameters, or of a Hugging Face checkpoint), nested or with dots; a
            model or its ``nnx.State``; or a folder: of Hugging Face, a run of `thinkprm train`, or what Orbax
            saved of one of the former.
          copy: False: arrays that already are as they should be are used as they are. They must not be donated.
        Returns: the ``weight_version`` of the verdicts to come.
        Raises:
          UserError: there are no weights; a name is missing or unknown, or a shape is another one. The weights
            are then the old ones.
        """
        if self.sampler is None:
            raise UserError(f"a verifier of kind {self.kind} has no weights")
        return self.sampler.update_weights(weights, copy=copy)

    @property
    def weight_version(self) -> int:
        """How often its weights were changed."""
        return 0 if self.sampler is None else self.sampler.weight_version

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
        return [step.text for step in self.locate(solution)]

    def locate(self, solution: str) -> list[LocatedStep]:
        """The same with the place of each step in the text."""
        return locate_steps(solution)

    def submit_within(self, problem: str, steps: Sequence[str], budget: int) -> Handle[Verdict]:
        """:meth:`submit` with a limit on the tokens that a round may think, in place of ``max_gen_tokens``.

        Raises:
          UserError: a verifier of this kind has no such limit.
        """
        raise UserError(f"a verifier of kind {self.kind} has no budget of tokens")

    def submit_solution(self, problem: str, solution: str, step_budget: int | None = None) -> Handle[Verdict]:
        """:meth:`submit` of a whole solution, cut by :meth:`locate`: its verdict has ``step_spans``.

        Args:
          step_budget: tokens that a chain may think for each step of the solution (:meth:`submit_within`).
        """
        if not isinstance(solution, str):
            return finished(self.loop, Verdict(error=RequestError(f"the solution is {type(solution).__name__}")))
        steps = self.locate(solution)
        spans = tuple((step.start, step.end) for step in steps)
        texts = [step.text for step in steps]
        if step_budget is None or not steps:
            handle = self.submit(problem, texts)
        else:
            handle = self.submit_within(problem, texts, step_budget * len(steps))
        return handle.then(lambda verdict: dataclasses.replace(verdict, step_spans=spans))

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
            scores[i][j] = self.step_rewards(verdict)
        return scores

    def reward(self, **values: Any) -> Reward:
        """A reward function for reinforcement learning, as the trainers of TRL and Tunix call it; others by
        :mod:`thinkprm_jax.rewards`.

        Example:

            trainer = GRPOTrainer(model=policy, reward_funcs=prm.reward(), train_dataset=problems)  # of TRL

        Args:
          values: of :class:`thinkprm_jax.rewards.Reward`.
        """
        return Reward(self, **values)

    def step_rewards(self, verdict: Verdict) -> list[float]:
        """The scores of a solution for :meth:`score`."""
        return verdict.step_scores


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
