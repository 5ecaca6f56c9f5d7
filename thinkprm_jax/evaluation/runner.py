"""Running a verifier over the cases of a task: resumable, and with its speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import TooLongCount
from thinkprm_jax.evaluation.results import EvaluationCase, judge_cases, outcome_of
from thinkprm_jax.evaluation.summary import TaskFigure
from thinkprm_jax.progress import VerdictProgress
from thinkprm_jax.records.evaluation import EvaluationRow, Outcome
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
    found: dict[int, list[Outcome]] = {}
    counts, too_long = ChainCounts(), TooLongCount()

    def resume(row: EvaluationRow) -> None:
        nonlocal counts
        found[row.index] = [*row.outcomes_of_first, row.outcome]
        counts += ChainCounts.of([row.verdict])

    with OrderedOutput(details_path, EvaluationRow, given, stamp, current_stamp, resume) as details:
        missing = list(details.missing)
        if missing:
            settings = with_fingerprints(settings)
            details.check_models(verifier=settings.stamp)
        tokens, failed = 0, 0
        with VerdictProgress(len(cases), done=len(found)) as progress:
            verifier = _load(loader, settings, len(missing), progress) if missing else None
            for nth, verdict, outcome in judge_cases(verifier, [cases[i] for i in missing]) if verifier else ():
                index = missing[nth]
                found[index] = [*_of_fewer_chains(cases[index], verdict, outcome), outcome]
                row = details_row(index, cases[index], found[index], verdict, settings.stamp)
                details.add(index, row)
                counts += ChainCounts.of([row.verdict])
                tokens += outcome.tokens
                progress.advance()
                if outcome.error is not None and not too_long.add(verdict.error):
                    failed += 1
                    _say_failure(progress, index, outcome.error, failed)
            for line in too_long.lines("--max-length"):
                progress.say(line)
            seconds = progress.seconds
    ordered = [found[index] for index in range(len(cases))]
    chains = max((len(outcomes) for outcomes in ordered), default=0)
    return JudgedCases(
        [outcomes[-1] for outcomes in ordered],
        {count + 1: [outcomes[count] for outcomes in ordered] for count in range(chains)},
        _speed(len(missing), tokens, seconds),
        counts=counts,
    )


def _load(loader: VerifierLoader, settings: VerifierSettings, missing: int, progress: VerdictProgress) -> Verifier:
    progress.phase(f"loading {settings.model or settings.kind}")
    verifier = loader.load(settings)
    progress.follow({"": lambda: verifier.activity}, *verifier.requests(missing))
    return verifier


def _say_failure(progress: VerdictProgress, index: int, error: str, failed: int) -> None:
    """The first ones; an untuned judge has hundreds."""
    if failed <= _NAMED:
        progress.say(f"solution {index} got no verdict: {error}")
    elif failed == _NAMED + 1:
        progress.say("more solutions got no verdict; --details names them all")


def _of_fewer_chains(case: EvaluationCase, verdict: Verdict, outcome: Outcome) -> list[Outcome]:
    """Of the first chain, the first two, ...: what smaller n would have given."""
    return [outcome_of(case, verdict.first_chains(count), count) for count in range(1, outcome.chains)]


def _speed(verdicts: int, tokens: int, seconds: float) -> dict[str, Any]:
    import jax

    return {
        "device": jax.devices()[0].device_kind,
        "judged_now": verdicts,
        "seconds": round(seconds, 3),
        "verdicts_per_second": float(f"{verdicts / seconds:.4g}"),  # of a slow model a small number, and no 0
        "tokens_per_second": float(f"{tokens / seconds:.4g}"),
    }


def details_row(
    index: int, case: EvaluationCase, outcomes: Sequence[Outcome], verdict: Verdict, verifier: Mapping[str, Any]
) -> EvaluationRow:
    """A line of the details; outcomes: of the first chain, the first two, ..., all."""
    return EvaluationRow(
        **case_fields(index, case),
        outcome=outcomes[-1],
        outcomes_of_first=tuple(outcomes[:-1]),
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
