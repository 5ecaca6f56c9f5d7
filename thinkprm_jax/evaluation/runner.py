"""Running a verifier over the cases of a task: resumable, and with its speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import TooLongCount
from thinkprm_jax.evaluation.results import EvaluationCase, judge_cases, outcome_of
from thinkprm_jax.evaluation.summary import TaskFigure
from thinkprm_jax.progress import LOOK_SECONDS, Ticker, VerdictProgress
from thinkprm_jax.records.evaluation import EvaluationRow, Outcome
from thinkprm_jax.records.job import JobPlan, Sharing
from thinkprm_jax.records.joined_output import JoinedOutput
from thinkprm_jax.records.output import LazyInputs, OrderedOutput
from thinkprm_jax.records.soundness import ChainCounts
from thinkprm_jax.storage import Location
from thinkprm_jax.verifier.loading import with_fingerprints
from thinkprm_jax.verifier.registry import current_stamp, is_alike, load_verifier

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.verifier.base import Verdict, Verifier
    from thinkprm_jax.verifier.settings import VerifierSettings

    Place = Callable[[VerifierSettings], tuple[VerifierSettings, Mesh | None]]

_NAMED = 20  # solutions without a verdict that are named one by one


@dataclass(frozen=True)
class EvaluationTask:
    """What is judged. settings: say it in JSON; title: to people. figures: those that the task is known by."""

    settings: Mapping[str, Any]
    title: str
    cases: Sequence[EvaluationCase]
    figures: Sequence[TaskFigure]


def rows_setting(rows: range, count: int) -> dict[str, Any]:
    """What the settings of a task of these rows say of them, where they are not all."""
    return {} if len(rows) == count else {"rows": [rows.start, rows.stop]}


@dataclass(frozen=True)
class JudgedCases:
    """Outcomes in the order of the cases.

    of_first: number of chains -> the outcomes of that many first chains of every verdict, from 1 to all of them.
    speed: of what was judged now, compilation included. breakdowns: whether a report is to have them.
    counts: of all chains, how they came to say what they say.
    """

    outcomes: list[Outcome]
    of_first: dict[int, list[Outcome]]
    speed: dict[str, Any]
    breakdowns: bool = True
    counts: ChainCounts = field(default_factory=ChainCounts)

    @property
    def status(self) -> int:
        """Of a program: 1 where some solution got no verdict."""
        return int(any(outcome.error is not None for outcome in self.outcomes))


class VerifierLoader:
    """Loads verifiers when they are needed, and one model only once for all of its settings.

    Args:
      place: the devices of a verifier, and its settings on them; None: one device.
    """

    def __init__(self, place: Place | None = None) -> None:
        self._last: Verifier | None = None
        self._place = place

    def load(self, settings: VerifierSettings) -> Verifier:
        last = self._last
        shared = last if last is not None and is_alike(settings, last) else None
        mesh = None
        if self._place is not None and shared is None:
            settings, mesh = self._place(settings)
        self._last = load_verifier(settings, mesh=mesh, like=shared)
        return self._last


def judge_all(
    loader: VerifierLoader,
    settings: VerifierSettings,
    cases: Sequence[EvaluationCase],
    details_path: Location | None = None,
) -> JudgedCases:
    """Judges what ``details_path`` does not hold yet.

    Raises:
      UserError: the file is of other cases or settings, or the verifier cannot be loaded.
    """
    given = LazyInputs(len(cases), lambda index: case_fields(index, cases[index]))
    stamp = {"verifier": settings.stamp}
    found = FoundOutcomes()
    with OrderedOutput(details_path, EvaluationRow, given, stamp, current_stamp, found.take) as details:
        missing = list(details.missing)
        if missing:
            settings = with_fingerprints(settings)
            details.check_models(verifier=settings.stamp)
        with JudgingProgress(len(cases), len(found.outcomes)) as progress:
            verifier = progress.load(loader, settings, len(missing)) if missing else None
            for nth, verdict, outcome in judge_cases(verifier, [cases[i] for i in missing]) if verifier else ():
                row = details_row(missing[nth], cases[missing[nth]], verdict, outcome, settings.stamp)
                details.add(missing[nth], row)
                found.take(row)
                progress.judged(row, verdict)
            progress.end()
            return found.judged(len(cases), progress.speed)


def judge_shared(
    loader: VerifierLoader,
    settings: VerifierSettings,
    cases: Sequence[EvaluationCase],
    details_path: Location,
    sharing: Sharing,
) -> JudgedCases | str:
    """:func:`judge_all` by several processes, each of which calls this: they take parts of the cases, and whoever
    comes last to an end finds all of them judged.

    Returns: in place of the outcomes what is missing, in words, where others hold it and they are not waited for.
    Raises:
      UserError: as of :func:`judge_all`.
    """
    given = LazyInputs.digested(len(cases), lambda index: case_fields(index, cases[index]))
    plan = JobPlan(
        {"verifier": settings.stamp},
        sharing.parts_of(len(cases)),
        current=current_stamp,
        process=sharing.process,
        lease=sharing.lease,
    )
    with (
        JoinedOutput(details_path, EvaluationRow, given, plan) as details,
        JudgingProgress(len(cases), details.state().rows) as progress,
        Ticker(LOOK_SECONDS, lambda: progress.show(*details.shown())),
    ):
        verifier = None
        while details.wait(sharing.waits, lambda state: progress.say(f"{details_path}: {state.waiting_for}")):
            if verifier is None:
                settings = with_fingerprints(settings)
                details.check_models(verifier=settings.stamp)
                verifier = progress.load(loader, settings, len(cases) - details.state().rows)
            taken: list[int] = []

            def take(taken: list[int] = taken) -> Iterator[EvaluationCase]:
                for index in details.missing:
                    taken.append(index)
                    yield cases[index]

            for nth, verdict, outcome in judge_cases(verifier, take()):
                row = details_row(taken[nth], cases[taken[nth]], verdict, outcome, settings.stamp)
                details.add(taken[nth], row)
                progress.judged(row, verdict)
        progress.end()
        if not details.join(sharing.waits):
            return details.left
        found = FoundOutcomes()
        for row in details.rows():
            found.take(row)
        return found.judged(len(cases), progress.speed)


class FoundOutcomes:
    """What rows of details come to. outcomes: index of the case -> of its first chain, its first two, ..., all."""

    def __init__(self) -> None:
        self.outcomes: dict[int, list[Outcome]] = {}
        self._counts = ChainCounts()

    def take(self, row: EvaluationRow) -> None:
        self.outcomes[row.index] = [*row.outcomes_of_first, row.outcome]
        self._counts += ChainCounts.of([row.verdict])

    def judged(self, cases: int, speed: dict[str, Any]) -> JudgedCases:
        ordered = [self.outcomes[index] for index in range(cases)]
        chains = max((len(outcomes) for outcomes in ordered), default=0)
        return JudgedCases(
            [outcomes[-1] for outcomes in ordered],
            {count + 1: [outcomes[count] for outcomes in ordered] for count in range(chains)},
            speed,
            counts=self._counts,
        )


class JudgingProgress(VerdictProgress):
    """How far an evaluation is, which solutions got no verdict, and how fast this process judges."""

    def __init__(self, total: int, done: int) -> None:
        super().__init__(total, done)
        self._now = self._tokens = self._failed = 0
        self._ended = 0.0
        self._too_long = TooLongCount()

    def load(self, loader: VerifierLoader, settings: VerifierSettings, missing: int) -> Verifier:
        self.phase(f"loading {settings.model or settings.kind}")
        verifier = loader.load(settings)
        self.follow({"": lambda: verifier.activity}, *verifier.requests(missing))
        return verifier

    def judged(self, row: EvaluationRow, verdict: Verdict) -> None:
        """One solution more."""
        self._now += 1
        self._tokens += row.outcome.tokens
        self.advance()
        if row.outcome.error is None or self._too_long.add(verdict.error):
            return
        self._failed += 1
        if self._failed <= _NAMED:  # an untuned judge has hundreds
            self.say(f"solution {row.index} got no verdict: {row.outcome.error}")
        elif self._failed == _NAMED + 1:
            self.say("more solutions got no verdict; --details names them all")

    def end(self) -> None:
        """No more of them come."""
        self._ended = self.seconds
        for line in self._too_long.lines("--max-length"):
            self.say(line)

    @property
    def speed(self) -> dict[str, Any]:
        """Of this process, compilation included."""
        import jax

        return {
            "device": jax.devices()[0].device_kind,
            "judged_now": self._now,
            "seconds": round(self._ended, 3),
            "verdicts_per_second": float(f"{self._now / self._ended:.4g}"),  # of a slow model small, and no 0
            "tokens_per_second": float(f"{self._tokens / self._ended:.4g}"),
        }


def _of_fewer_chains(case: EvaluationCase, verdict: Verdict, outcome: Outcome) -> list[Outcome]:
    """Of the first chain, the first two, ...: what smaller n would have given."""
    return [outcome_of(case, verdict.first_chains(count), count) for count in range(1, outcome.chains)]


def details_row(
    index: int, case: EvaluationCase, verdict: Verdict, outcome: Outcome, verifier: Mapping[str, Any]
) -> EvaluationRow:
    """A line of the details."""
    return EvaluationRow(
        **case_fields(index, case),
        outcome=outcome,
        outcomes_of_first=tuple(_of_fewer_chains(case, verdict, outcome)),
        verdict=verdict.record(),
        verifier=verifier,
    )


def case_fields(index: int, case: EvaluationCase) -> dict[str, Any]:
    """With what a line of the details begins: `label` as in ProcessBench."""
    name = {} if case.id is None else {"id": case.id}
    return {
        "index": index,
        **name,
        "problem": case.problem,
        "steps": case.steps,
        "label": case.first_error,
        "groups": dict(case.groups),
    }
