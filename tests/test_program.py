"""Signals and failures of the system, in processes that load nothing else."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thinkprm_jax import program

ROOT = Path(__file__).parents[1]
BEGINNING = """
import signal, sys, threading, time
from thinkprm_jax import program
"""
SLEEPS = """
def main(arguments):
    try:
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
    finally:
        print("closed", flush=True)
"""
SLEEPS_AND_CLOSES_SLOWLY = SLEEPS.replace('print("closed"', 'time.sleep(0.6), print("closed"')
# Python hears of a signal between two bytecodes: not while a device computes, nor here.
HEARS_NOTHING = """
program.GRACE_SECONDS = 0.3
import ctypes
def main(arguments):
    print("ready", flush=True)
    ctypes.CDLL(None).poll(None, 0, 30_000)
    for _ in range(30):
        ctypes.CDLL(None).poll(None, 0, 1_000)
"""
SWALLOWS = """
program.GRACE_SECONDS = 0.3
def main(arguments):
    while True:
        try:
            print("ready", flush=True)
            time.sleep(60)
        except BaseException:
            pass
"""
# What is raised there Python drops, and says so: JAX has such a callback.
IS_IN_A_CALLBACK = """
import gc
def callback(phase, info):
    if phase == "start":
        print("ready", flush=True)
        for _ in range(50):
            time.sleep(0.01)
def main(arguments):
    gc.callbacks.append(callback)
    gc.collect()
    gc.callbacks.clear()
    time.sleep(30)
"""
IS_LEFT_ALONE = """
def main(arguments):
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    print("ready", flush=True)
    while not heard:
        time.sleep(0.01)
    time.sleep(0.5)
    return 0
program.GRACE_SECONDS = 0.1
"""
COMPUTES_WHEN_IT_ENDS = """
def main(arguments):
    threading.Thread(target=time.sleep, args=(30,)).start()
    print("ready", flush=True)
    time.sleep(30)
"""


_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def none_is_left_behind():
    """A process that outlives a failed test would compute for ever."""
    yield
    while _started:
        process = _started.pop()
        process.kill()
        process.wait()


def start(text: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", f"{BEGINNING}{text}\nprogram.start(main, 'thinkprm x')"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    _started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("text", [SLEEPS, HEARS_NOTHING, SWALLOWS, IS_IN_A_CALLBACK, COMPUTES_WHEN_IT_ENDS])
def test_a_signal_is_one_line_and_a_status(text, number, status):
    process = start(text)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == status
    assert err == "thinkprm x: stopped\n"
    assert out == {SLEEPS: "closed\n", SWALLOWS: "ready\n"}.get(text, "")


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_two_signals_one_upon_the_other_are_one(second):
    process = start(SLEEPS_AND_CLOSES_SLOWLY)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(second)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "closed\n", "thinkprm x: stopped\n")


def test_a_second_signal_later_on_does_not_wait():
    process = start(HEARS_NOTHING.replace("GRACE_SECONDS = 0.3", "AGAIN_SECONDS = 0.2"))
    process.send_signal(signal.SIGINT)
    time.sleep(0.4)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=8)
    assert (process.returncode, err) == (130, "thinkprm x: stopped\n")


def test_a_program_that_handles_a_signal_by_itself_is_left_alone():
    process = start(IS_LEFT_ALONE)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")


def test_handlers_are_given_back_to_a_process_that_goes_on():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert program.run(lambda arguments: 0, []) == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and background jobs do
    try:
        assert program.run(lambda arguments: int(signal.getsignal(signal.SIGINT) != signal.SIG_IGN), []) == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG])
def test_what_the_system_refuses_is_one_line(capsys, number):
    def main(arguments):
        raise OSError(number, os.strerror(number), "runs/x/model.safetensors")

    assert program.run(main, [], "thinkprm x") == 2
    assert capsys.readouterr().err == f"thinkprm x: error: runs/x/model.safetensors: {os.strerror(number)}\n"


def test_a_mistake_of_ours_is_not_taken_for_the_systems(capsys):
    def main(arguments):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "bundled/mini")

    assert program.run(main, []) == 70
    assert "FileNotFoundError" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_standard_output_that_is_full_is_one_line():
    text = f"{BEGINNING}\ndef main(arguments): print('x'); return 0\nprogram.start(main, 'thinkprm x')"
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            [sys.executable, "-c", text], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
        )
    assert (found.returncode, found.stderr) == (2, "thinkprm x: error: No space left on device\n")
