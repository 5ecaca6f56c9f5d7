"""Where `thinkprm score` judges: in this process, or on a cluster of Ray."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from thinkprm_jax.errors import UserError
from thinkprm_jax.fleet.cluster import RayOptions

if TYPE_CHECKING:
    from thinkprm_jax.infer.score_report import Report, Working
    from thinkprm_jax.records.inputs import SolutionFile
    from thinkprm_jax.verifier.base import Verdict, Verifier
    from thinkprm_jax.verifier.rows import JudgedRow
    from thinkprm_jax.verifier.settings import VerifierSettings

_RAY = ("address", "replicas", "replica_cpus", "replica_gpus", "replica_resources")


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("engine").add_argument
    add("--engine", choices=("local", "ray"), default="local", help="this process (default), or replicas on Ray")
    add("--address", help="of the Ray cluster (default: $RAY_ADDRESS, or one of this machine, for this run)")
    add(
        "--replicas",
        type=int,
        help="processes with a model (default: one a machine, or as its accelerators allow)",
    )
    add("--replica-cpus", type=float, help="CPUs that a replica takes, also parts of one (default: 1)")
    add("--replica-gpus", type=float, help="GPUs that a replica takes, also parts of one (default: 0)")
    add("--replica-resources", metavar="NAME=N,...", help="other resources that a replica takes, such as TPU=4")


def choose_engine(options: argparse.Namespace) -> RayOptions | None:
    """None: this process.

    Raises:
      UserError: a value cannot be, or an option is for another engine.
    """
    given = {name: value for name in _RAY if (value := getattr(options, name)) is not None}
    if options.engine == "local":
        if given:
            raise UserError(f"--{next(iter(given)).replace('_', '-')} is for --engine ray")
        return None
    if "replica_resources" in given:
        given["replica_resources"] = _amounts(given["replica_resources"])
    return RayOptions(**{name.removeprefix("replica_"): value for name, value in given.items()})


def _amounts(text: str) -> dict[str, float]:
    """`TPU=4,slot=0.5`."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, amount = part.partition("=")
        try:
            found[name.strip()] = float(amount)
        except ValueError:
            raise UserError(f"--replica-resources is {text!r}, it must be NAME=AMOUNT, such as TPU=4") from None
    for name in found:
        if not name or name in ("CPU", "GPU", "memory"):
            raise UserError(f"--replica-resources names {name!r}: CPUs and GPUs have options of their own")
    return found


class RowEngine(Protocol):
    """What judges rows.

    Attributes:
      progress: for whoever shows it. stamp: of the settings that rows are judged with.
    """

    @property
    def progress(self) -> Working: ...

    @property
    def stamp(self) -> Mapping[str, Any]: ...

    def judge(
        self, rows: SolutionFile, missing: Iterable[int], on_verdict: Callable[[Verdict], object]
    ) -> Iterator[tuple[int, JudgedRow]]:
        """(number, judged row) of the rows that are missing, as they are finished."""


class LocalEngine:
    """A verifier in this process. Rows are read as there is room for their solutions."""

    def __init__(self, verifier: Verifier) -> None:
        self.progress, self.stamp = verifier, verifier.settings.stamp

    def judge(
        self, rows: SolutionFile, missing: Iterable[int], on_verdict: Callable[[Verdict], object]
    ) -> Iterator[tuple[int, JudgedRow]]:
        from thinkprm_jax.verifier.rows import judge_rows

        return judge_rows(self.progress, ((index, rows[index]) for index in missing), on_verdict)


@contextlib.contextmanager
def start_engine(options: argparse.Namespace, settings: VerifierSettings, report: Report) -> Iterator[RowEngine]:
    """The engine that the options say, with its model or on its way to it."""
    name, ray = settings.model or settings.kind, choose_engine(options)
    if ray is None:
        from thinkprm_jax.infer.verifier_options import place_chosen
        from thinkprm_jax.verifier.registry import load_verifier

        with report.loading(name):
            placed, mesh = place_chosen(options, settings)
            verifier = load_verifier(placed, mesh=mesh)
        yield LocalEngine(verifier)
        return
    from thinkprm_jax.fleet.ray_engine import RayEngine

    with contextlib.ExitStack() as stack:
        with report.loading(f"{name} on Ray"):
            engine = stack.enter_context(RayEngine(settings, ray, options.mesh))
        yield engine
