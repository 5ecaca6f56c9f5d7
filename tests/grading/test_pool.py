"""The workers behind the algebra: what is cut, what goes on, what is said when they cannot start."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.grading.compare import answers_equal
from thinkprm_jax.grading.pool import WorkerPool, shared_pool
from thinkprm_jax.grading.worker import _alarm

# Next to a number, sympy works out all its factors: hours.
HANGS = r"\sum_{k=1}^{1} \binom{10^9}{5 \cdot 10^8}"
LIMIT = 0.5
LATE = 60.0  # seconds: far beyond the limit and a worker's start on a busy machine, far below the hang


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(2)
    yield pool
    pool.close()


def read(pool: WorkerPool, answer: str, limit: float = 30.0) -> list | None:
    return pool.run("read", {"answer": answer}, limit)


SUM = r"\sum_{k=1}^{10} k"
READ = [["55", "0"]]


def test_a_comparison_that_hangs_is_cut_and_the_next_one_works(pool: WorkerPool) -> None:
    assert read(pool, SUM) == READ
    cut, start = pool.cut, time.monotonic()
    assert read(pool, HANGS, limit=LIMIT) is None
    assert LIMIT <= time.monotonic() - start < LATE
    assert pool.cut == cut + 1
    assert read(pool, SUM) == READ


def test_a_worker_that_dies_costs_its_comparison_only(pool: WorkerPool) -> None:
    read(pool, SUM)
    threading.Timer(LIMIT, pool._idle[-1]._process.kill).start()
    assert read(pool, HANGS) is None
    assert read(pool, SUM) == READ


def test_a_worker_that_dies_while_it_waits_costs_nothing(pool: WorkerPool) -> None:
    read(pool, SUM)
    for worker in pool._idle:
        worker._process.kill()
        worker._process.wait()
    cut = pool.cut
    assert read(pool, SUM) == READ
    assert pool.cut == cut


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarms on this system")
def test_the_alarm_of_a_task_ends_with_it() -> None:
    with _alarm(100.0):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 90
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0  # else a worker would be dead when it is needed again


def test_threads_share_the_workers(pool: WorkerPool) -> None:
    results: dict[int, list | None] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.update({i: read(pool, rf"\sum_{{k=1}}^{{2}} {i} k")}))
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: [[str(3 * i), "0"]] for i in range(6)}
    assert len(pool._idle) <= pool.size


def test_many_tasks_come_back_in_order(pool: WorkerPool) -> None:
    arguments = [{"answer": rf"\sum_{{k=1}}^{{2}} {i} k"} for i in range(40)]
    assert pool.run_many("read", arguments, 30.0) == [[[str(3 * i), "0"]] for i in range(40)]


def test_what_is_cut_is_compared_as_text() -> None:
    assert not answers_equal(HANGS, "7", timeout=LIMIT)
    assert answers_equal(HANGS, HANGS, timeout=LIMIT)
    shared_pool().close()


def test_a_missing_math_verify_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('no such thing here')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"math-verify \(pip install math-verify\): no such thing here"):
        read(WorkerPool(1), SUM)


def test_a_worker_that_cannot_start_gives_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "math_verify.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="status 7"):
        read(WorkerPool(1), SUM)


def test_a_forked_process_leaves_its_parents_workers_alone() -> None:
    program = """if True:
        import os
        from thinkprm_jax.grading.pool import shared_pool
        pool = shared_pool()
        pool._idle.append(None)
        pid = os.fork()
        if pid == 0:
            os._exit(len(shared_pool()._idle))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert pool._idle.pop() is None
    """
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
