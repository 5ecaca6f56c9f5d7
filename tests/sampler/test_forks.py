"""A sampler belongs to the process that made it: elsewhere there is one clear error, and no waiting for ever."""

from __future__ import annotations

import copy
import os
import pickle
import select
import signal
import warnings
from collections.abc import Callable

import pytest

from support.guess_verifier import Guess, GuessSettings
from thinkprm_jax import ThinkPRM, load_model, runtime
from thinkprm_jax.errors import UserError
from thinkprm_jax.sampler import Sampler


@pytest.fixture
def sampler(tiny_model, mini_tokenizer) -> Sampler:
    return Sampler(tiny_model, mini_tokenizer, slots=2, max_length=64)


def in_a_fork(work: Callable[[], object]) -> str:
    """What a child says: the error that ``work`` raises, or its result."""
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX and Python warn of forks
        child = os.fork()
    if not child:
        try:
            said = repr(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(theirs, said.encode())
        os._exit(0)
    os.close(theirs)
    try:
        assert select.select([ours], [], [], 20)[0], "the child waits for ever"
        return os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


REFUSED = "UserError: this process is a fork of one in which JAX was at work, and nothing can be computed here"


def test_in_a_fork_nothing_is_computed_and_nobody_waits(sampler, tiny_model, mini_tokenizer):
    waiting = sampler.submit(sampler.request("2 + 2", max_new_tokens=2))
    prm = ThinkPRM(sampler=sampler)
    for work in (
        lambda: sampler.generate(["2 + 2"], max_new_tokens=2),
        lambda: sampler.submit(sampler.request("2 + 2", max_new_tokens=2)),
        waiting.result,
        sampler.step,
        lambda: Sampler(tiny_model, mini_tokenizer),
        lambda: load_model("mini"),
        lambda: prm.predict_correctness_batch(["2 + 2?"], [["2 + 2 = 4."]]),
        lambda: ThinkPRM("mini"),
    ):
        said = in_a_fork(work)
        assert said.startswith(REFUSED)
        assert "spawn" in said
    assert waiting.result().error is None  # in the parent all goes on


def test_what_needs_no_device_works_in_a_fork():
    verdicts = in_a_fork(lambda: [v.prefix_score for _, v in Guess(GuessSettings()).verify([("?", ["1"])])])
    assert verdicts == "[0.5]"


def test_a_process_that_is_no_fork_is_not_refused(monkeypatch):
    assert not runtime.in_fork
    runtime.refuse_forked()
    monkeypatch.setattr(runtime, "in_fork", True)
    with pytest.raises(UserError, match="is a fork"):
        runtime.refuse_forked()


@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
def test_neither_samplers_nor_verifiers_can_be_sent(sampler, send):
    things = {"a Sampler": sampler, "a ThinkPRM": ThinkPRM(sampler=sampler), "a Guess": Guess(GuessSettings())}
    for name, thing in things.items():
        with pytest.raises(TypeError, match=rf"{name} cannot be pickled: .*\"spawn\""):
            send(thing)
