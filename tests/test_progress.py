"""What a run says while it runs: on a clock that the test moves, and in processes, piped and on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from thinkprm_jax.activity import Activity, CompilationWatch, compiling
from thinkprm_jax.progress import ProgressBar, TrainingProgress, VerdictProgress, spell_rate


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


Lines = Callable[[float], list[str]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(clock: Clock, capsys: pytest.CaptureFixture) -> Callable[[ProgressBar, float], list[str]]:
    """Lets time pass, a look a second; returns what was said meanwhile, each line with its second."""

    def passing(bar: ProgressBar, seconds: float) -> list[str]:
        said = []
        for _ in range(int(seconds)):
            clock.now += 1
            bar.tick()
            said += [f"{clock.now:.0f}: {line}" for line in capsys.readouterr().err.splitlines()]
        return said

    return passing


def test_plain_lines(capsys: pytest.CaptureFixture) -> None:
    with TrainingProgress(40, 10, plain_seconds=0.0) as report:
        report.update(20, 1.25, 12345.0)
    assert capsys.readouterr().err == "step 20/40  loss 1.2500  12,345 tokens/s  ETA 0:00:00\n"
    late = TrainingProgress(40, 10, plain_seconds=1e9)
    late.update(39, 1.0, 1.0)
    late.update(40, 1.0, 1.0)  # the last one is always said
    assert capsys.readouterr().err.startswith("step 40/40  loss")
    quiet = TrainingProgress(40, 10, plain_seconds=0.0, quiet=True)
    quiet.update(40, 1.0, 1.0)
    quiet.say("nothing")
    assert capsys.readouterr().err == ""


def test_a_pipe_is_told_of_what_lasts_and_then_every_half_minute(clock, lines) -> None:
    bar = ProgressBar(8, name="solutions", clock=clock, tick_seconds=0)
    bar.phase("loading big")
    assert lines(bar, 70) == [
        "3: 0/8 solutions  loading big (3 s)  ETA ?",
        "33: 0/8 solutions  loading big (33 s)  ETA ?",
        "63: 0/8 solutions  loading big (63 s)  ETA ?",
    ]


def test_a_quick_run_says_nothing(clock, lines) -> None:
    bar = ProgressBar(8, name="solutions", clock=clock, tick_seconds=0)
    for phase in ("loading", "prefilling", "decoding", "saving"):
        bar.phase(phase)
        assert lines(bar, 2) == []


def test_what_comes_and_goes_is_told_once(clock, lines) -> None:
    doing = Activity("decoding", 4)
    bar = ProgressBar(8, clock=clock, tick_seconds=0)
    bar.follow({"": lambda: doing})
    said = []
    for phase in ("decoding", "prefilling", "decoding", "prefilling"):
        doing = Activity(phase, 4)
        said += lines(bar, 4)
    assert [line.split()[2] for line in said] == ["decoding,", "prefilling,"]


def test_how_many_chains_run_and_how_fast(clock, lines) -> None:
    doing = Activity("decoding", 16, finished=5, tokens=100)
    bar = ProgressBar(40, name="solutions", clock=clock, tick_seconds=0, plain_seconds=10)
    bar.follow({"": lambda: doing}, "chains", 80)
    lines(bar, 12)
    doing = Activity("decoding", 16, finished=9, tokens=116)
    bar.show(4)
    assert lines(bar, 1) == [
        "13: 4/40 solutions  decoding, 16 of 76 chains running, 1.2 tokens/s  ETA 0:01:57"
    ]  # (40 - 4) / 4 x 13 seconds


def test_the_time_left_is_of_all_waves(clock, lines) -> None:
    bar = ProgressBar(4, clock=clock, tick_seconds=0, plain_seconds=10)
    bar.follow({"": Activity})
    lines(bar, 9)
    bar.show(1)
    bar.follow({"": Activity})  # another wave
    assert lines(bar, 1) == ["10: 1/4  ETA 0:00:30"]


def test_two_models_are_named(clock, lines) -> None:
    sources = {"generator": lambda: Activity("decoding", 8), "verifier": lambda: Activity()}
    bar = ProgressBar(2, name="problems", clock=clock, tick_seconds=0)
    bar.follow(sources, "requests")
    assert lines(bar, 3) == ["3: 0/2 problems  generator decoding, 8 requests running; verifier idle  ETA ?"]


def test_a_compilation_is_counted_and_timed(clock, lines) -> None:
    lowered, compiled = (
        "/jax/core/compile/jaxpr_to_mlir_module_duration",
        "/jax/core/compile/backend_compile_duration",
    )
    bar = ProgressBar(2, clock=clock, tick_seconds=0)
    bar.phase("loading")
    watch = bar._compilations
    for seconds in (0.01, 7.0):  # only the second was worth a word
        watch.listen(lowered, 0.0)
        watch.listen(compiled, seconds)
    watch.listen(lowered, 0.0)
    assert lines(bar, 4) == ["3: 0/2  compiling program 2 (3 s)  ETA ?"]
    watch.listen(compiled, 4.0)
    assert watch.current is None


def test_jax_tells_the_watch_of_its_compilations() -> None:
    import jax

    seen = []

    class Watch(CompilationWatch):
        def listen(self, event: str, duration_secs: float, **more: str | int) -> None:
            super().listen(event, duration_secs, **more)
            seen.append(self.current is not None)

    watch = Watch()
    watch.start()
    try:
        jax.jit(lambda x: x * 3 + len(seen))(2.0)
    finally:
        watch.stop()
    heard = len(seen)
    jax.jit(lambda x: x * 5 + heard)(2.0)
    assert True in seen
    assert not seen[-1]
    assert len(seen) == heard


def test_what_is_compiled_beside_jax_is_shown_as_a_compilation() -> None:
    watch = CompilationWatch()
    assert watch.current is None
    with compiling():
        assert watch.current is not None
    assert watch.current is None


@pytest.mark.parametrize(
    ("count", "seconds", "text"),
    [
        (0, 10, ""),
        (5, 0, ""),
        (23_456, 10, "2,346 tokens/s"),
        (100, 10, "10 tokens/s"),
        (23, 10, "2.3 tokens/s"),
        (10, 12.83, "1.28 s a token"),
        (10, 400, "40 s a token"),
        (1, 300, "5.0 min a token"),
        (1, 7200, "120 min a token"),
    ],
)
def test_slow_rates_are_seconds_of_one(count, seconds, text) -> None:
    assert spell_rate(count, seconds, "token") == text


def test_a_verdict_in_minutes_is_no_rate_of_zero(clock, capsys) -> None:
    bar = VerdictProgress(8, unit="solution")
    bar._clock = clock
    bar._worked_from = bar._last_line = 0.0
    clock.now = 90
    bar.advance()
    assert "1/8 solutions  90 s a solution" in capsys.readouterr().err


def test_the_thread_that_looks_ends_with_the_bar() -> None:
    before = threading.active_count()
    with ProgressBar(3, tick_seconds=0.01):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_what_cannot_be_shown_ends_nothing(clock, lines) -> None:
    def broken() -> Activity:
        raise RuntimeError("the sampler is gone")

    with ProgressBar(3, tick_seconds=0.01) as bar:
        bar.phase("x")
        bar._sources = {"": broken}
        threading.Event().wait(0.05)
    assert bar.seconds > 0


_PROGRAM = """
import time
from thinkprm_jax.activity import Activity
from thinkprm_jax.progress import ProgressBar
with ProgressBar(8, name="solutions", plain_seconds=0.2, tick_seconds=0.05) as bar:
    bar.phase("loading tiny")
    time.sleep(0.5)
    bar.follow({"": lambda: Activity("decoding", 2, 0, 1, int(10 * time.monotonic()))}, "chains", 9)
    time.sleep(0.5)
    bar.show(1)
    print("for the file")
"""


def test_a_process_in_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60)
    lines = done.stderr.splitlines()
    assert "0/8 solutions  loading tiny  ETA ?" in lines
    assert any(line.startswith("0/8 solutions  decoding, 2 of 9 chains running") for line in lines)
    assert 3 <= len(lines) <= 8
    assert "\x1b" not in done.stderr
    assert done.returncode == 0


def on_a_terminal(stdout: int | None) -> tuple[str, str, int]:
    """Runs the program with stderr on a terminal, and stdout too or (subprocess.PIPE) elsewhere."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-c", _PROGRAM]
    with subprocess.Popen(command, stderr=theirs, stdout=stdout or theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # the other side has closed
            while piece := os.read(ours, 65536):
                seen += piece
        elsewhere = b"" if process.stdout is None else process.stdout.read()
    os.close(ours)
    return seen.decode(), elsewhere.decode(), process.returncode


def test_what_goes_elsewhere_is_not_drawn_on_the_terminal() -> None:
    seen, elsewhere, status = on_a_terminal(subprocess.PIPE)
    assert elsewhere == "for the file\n"
    assert "for the file" not in seen
    assert status == 0


def test_a_process_on_a_terminal() -> None:
    text, _, status = on_a_terminal(None)
    assert text.count("loading tiny") >= 5  # drawn anew at every look
    assert re.search(r"decoding, 2 of 9 chains running, [0-9.]+ tokens/s", text)
    assert "1/8" in text
    assert "for the file" in text
    assert status == 0
