"""`thinkprm score` on a Ray cluster: Ray Data reads, spreads and gathers; replicas judge.

    read tasks      rows of the input, in blocks; where the input is a file of this machine, on this machine
    replicas        actors, each with a verifier; two blocks at a time, so that its slots stay full between them
    this process    takes judged blocks as they come, in whatever order

Ray holds back the readers while the replicas are busy, starts a replica that was lost anew and gives its blocks to
it or another. A block that comes twice is dropped here, and one that never comes is said.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from thinkprm_jax.activity import Activity
from thinkprm_jax.errors import UserError
from thinkprm_jax.fleet.cluster import RayOptions, connect, count_replicas, import_ray, is_own, one_line_errors
from thinkprm_jax.fleet.input_blocks import InputBlocks, pickled_table
from thinkprm_jax.records.inputs import SolutionFile
from thinkprm_jax.verifier.base import Verdict
from thinkprm_jax.verifier.rows import JudgedRow, judge_rows
from thinkprm_jax.verifier.settings import VerifierSettings

if TYPE_CHECKING:
    import pyarrow

BLOCK_CHAINS = 4  # a slot, in a block
MOST_BLOCKS = 20_000  # of a larger input each has more rows
READERS = 2  # at most, since nothing else would limit them
CALLS = 2  # blocks that a replica judges at once


class RayEngine:
    """Replicas on a cluster, for as long as the ``with`` lasts.

    Args:
      settings: of the verifier, with the fingerprints of its model. Each replica finds the model by its name, and
        is refused where it finds another one.
      mesh: of each replica, over the devices that it has: ``data=2,tensor=4`` or ``auto``; None: one device.
    Raises:
      UserError: Ray is not installed, there is no such cluster, or this machine is too small.
    """

    def __init__(self, settings: VerifierSettings, options: RayOptions, mesh: str | None = None) -> None:
        self.settings, self.options, self.mesh = settings, options, mesh
        self.progress, self.stamp = FleetProgress(), settings.stamp
        self.replicas = 0

    def __enter__(self) -> RayEngine:
        ray = import_ray()
        self._started = not ray.is_initialized()
        if self._started:
            connect(ray, self.options.address)
        try:
            grows = not (self._started and is_own(self.options.address))
            self.replicas = count_replicas(ray, self.options, grows)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self._started:
            import_ray().shutdown()

    def judge(
        self,
        rows: SolutionFile,
        missing: Iterable[int],
        on_verdict: Callable[[Verdict], object] = lambda verdict: None,
    ) -> Iterator[tuple[int, JudgedRow]]:
        """(number, judged row) of the rows that are missing, as they are finished.

        Raises:
          UserError: the input cannot be read in another process, a replica cannot load the model, or rows were
            lost.
        """
        _open_many_files()
        left, numbers = bytearray(len(rows)), list(missing)
        for number in numbers:
            left[number] = 1
        if not numbers:
            return
        with one_line_errors():
            for block in self._blocks(rows, numbers):
                pickles = block.column("judged").to_pylist()
                for number, judged in zip(
                    block.column("number").to_pylist(), map(pickle.loads, pickles), strict=True
                ):
                    if not left[number]:
                        continue  # of a block that was judged twice
                    left[number] = 0
                    for verdict in judged.verdicts:
                        self.progress.count(verdict)
                        on_verdict(verdict)
                    yield number, judged
        if lost := sum(left):
            raise UserError(f"ray: {lost:,} rows came back from no replica: give the same command again")

    def _blocks(self, rows: SolutionFile, missing: Sequence[int]) -> Iterator[pyarrow.Table]:
        import ray
        from ray.data import ActorPoolStrategy, DataContext

        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = None  # blocks are as they are made
        inputs = InputBlocks(rows, missing, _block_rows(self.settings, len(missing)))
        data = ray.data.read_datasource(
            inputs.source(),
            override_num_blocks=len(inputs),
            num_cpus=0,  # replicas may have taken all there are
            concurrency=min(READERS, len(inputs)),
            label_selector=inputs.place,
        )
        environment = {}
        if 0 < self.options.gpus < 1:  # several share one, and JAX takes most of it otherwise
            environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * self.options.gpus:.3f}"
        judged = data.map_batches(
            Replica,
            fn_constructor_args=[dataclasses.replace(self.settings, files=None), self.mesh],
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                size=self.replicas,
                max_concurrent_calls_per_actor=CALLS,
                max_tasks_in_flight_per_actor=CALLS + 1,
                enable_true_multi_threading=True,
            ),
            num_cpus=self.options.cpus,
            num_gpus=self.options.gpus or None,
            resources=dict(self.options.resources) or None,
            runtime_env={"env_vars": environment} if environment else None,
        )
        return iter(judged.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))


def _open_many_files() -> None:
    """As many as the system allows: of a folder all parts are open together."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Replica:
    """A verifier in a process of its own; called with blocks of rows. Arguments as of :class:`RayEngine`.

    Raises:
      UserError: the model cannot be loaded, or is another one than that of the run.
    """

    def __init__(self, settings: VerifierSettings, mesh: str | None) -> None:
        from thinkprm_jax.runtime import enable_compilation_cache
        from thinkprm_jax.verifier.loading import with_fingerprints
        from thinkprm_jax.verifier.placement import place_verifier
        from thinkprm_jax.verifier.registry import load_verifier

        enable_compilation_cache()
        found = with_fingerprints(settings)
        if found.stamp != settings.stamp:
            raise UserError(f"{settings.model}: is another model on a machine of the cluster than here")
        placed, devices = place_verifier(found, mesh)
        self._verifier = load_verifier(placed, mesh=devices)

    def __call__(self, block: pyarrow.Table) -> pyarrow.Table:
        numbers = block.column("number").to_pylist()
        rows = map(pickle.loads, block.column("row").to_pylist())
        done = list(judge_rows(self._verifier, zip(numbers, rows, strict=True)))
        return pickled_table("judged", ((number, _bare(judged)) for number, judged in done))


def _bare(judged: JudgedRow) -> JudgedRow:
    """Without the functions that combined the chains."""
    verdicts = tuple(dataclasses.replace(verdict, _combine=None) for verdict in judged.verdicts)
    return dataclasses.replace(judged, verdicts=verdicts)


def _block_rows(settings: VerifierSettings, rows: int) -> int:
    slots, chains = getattr(settings, "slots", 16), getattr(settings, "n", 1)
    return max(BLOCK_CHAINS * slots // chains, -(-rows // MOST_BLOCKS), 1)


class FleetProgress:
    """What replicas have done, for whoever shows it."""

    def __init__(self) -> None:
        self.sampled_tokens = self._finished = 0
        self._lock = threading.Lock()

    def count(self, verdict: Verdict) -> None:
        with self._lock:
            self.sampled_tokens += verdict.output_tokens
            self._finished += 1

    @property
    def activity(self) -> Activity:
        return Activity("scoring", 0, 0, self._finished, self.sampled_tokens)

    def requests(self, solutions: int) -> tuple[str, int]:
        return "solutions", solutions
