"""Several decode loops in threads: the same samples, the caller's code in the caller's thread, clean ends."""

from __future__ import annotations

import dataclasses
import threading

import jax.numpy as jnp
import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.sampler import Request, Sampler, Think, cpu_lanes
from thinkprm_jax.sampler.engine import LANE_WEIGHT_BYTES
from thinkprm_jax.sampler.lanes import _taken

BUDGETS = [3, 30, 7, 19, 2, 25, 11, 5, 16, 9, 21, 4]


def think(budget: int):
    def script():
        thought = yield Think(budget)
        return thought.ids

    return script


@pytest.fixture(scope="module")
def sampler(tiny_model, mini_tokenizer) -> Sampler:
    return Sampler(tiny_model, mini_tokenizer, slots=4, max_length=128, chunk=8, lanes=2)


@pytest.fixture(scope="module")
def requests(mini_tokenizer) -> list[Request]:
    prompt = mini_tokenizer.encode("Compute 12 + 7.")
    return [Request(prompt, think(budget), 0.9, seed=i) for i, budget in enumerate(BUDGETS)]


def test_two_lanes_give_the_samples_of_one(tiny_model, mini_tokenizer, sampler, requests) -> None:
    alone = dict(Sampler(tiny_model, mini_tokenizer, slots=4, max_length=128, chunk=8).run(requests))
    found = dict(sampler.run(requests))
    assert {index: result.value for index, result in found.items()} == {
        index: result.value for index, result in alone.items()
    }
    assert sampler.stats.sampled_tokens == sum(BUDGETS)
    assert all(lane.stats.finished for lane in sampler._lanes)


def test_requests_are_made_in_the_callers_thread_and_scripts_are_not(sampler, requests) -> None:
    makers, runners = set(), set()

    def script():
        runners.add(threading.current_thread())
        yield Think(2)

    def source():
        for request in requests:
            makers.add(threading.current_thread())
            yield None
            yield Request(request.prompt, script)

    assert len(list(sampler.run(source()))) == len(requests)
    assert makers == {threading.current_thread()}
    assert threading.current_thread() not in runners


def test_what_a_script_raises_reaches_the_caller_and_the_sampler_goes_on(sampler, requests) -> None:
    def fails():
        yield Think(2)
        raise LookupError("of the script")

    with pytest.raises(LookupError, match="of the script"):
        list(sampler.run([*requests, Request(requests[0].prompt, fails)]))
    assert len(list(sampler.run(requests))) == len(requests)


def test_what_the_source_raises_ends_the_lanes(sampler, requests) -> None:
    def source():
        yield from requests[:3]
        raise LookupError("of the source")

    before = threading.active_count()
    with pytest.raises(LookupError, match="of the source"):
        list(sampler.run(source()))
    assert threading.active_count() == before


def test_leaving_early_ends_the_lanes_before_their_work_is_done(sampler, requests) -> None:
    before = sampler.stats.sampled_tokens
    running = sampler.run([Request(requests[0].prompt, think(1)), *[Request(requests[0].prompt, think(100))] * 9])
    next(running)
    running.close()
    assert not any(slot.busy for lane in sampler._lanes for slot in lane.store.slots)
    assert sampler.stats.sampled_tokens - before < 400  # of 901


def test_a_source_that_has_nothing_now_is_not_asked_for_more() -> None:
    waiting = iter([(0, "a"), None, (1, "b")])
    assert [_taken(waiting, 3), _taken(waiting, 3), _taken(waiting, 3)] == [[(0, "a"), None], [(1, "b")], []]


@pytest.mark.parametrize(("slots", "lanes"), [(4, 0), (4, 3)])
def test_lanes_that_cannot_be(tiny_model, mini_tokenizer, slots: int, lanes: int) -> None:
    with pytest.raises(UserError, match=f"lanes={lanes} must be at least 1, divide slots={slots}"):
        Sampler(tiny_model, mini_tokenizer, slots=slots, max_length=128, lanes=lanes)


def test_lanes_of_a_machine(monkeypatch, tiny_model) -> None:
    small = tiny_model.config
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr("jax.device_count", lambda: 1)
    assert cpu_lanes(small, "float32", 48) == 6
    assert cpu_lanes(small, "float32", 16) == 4  # four slots each
    assert cpu_lanes(small, "float32", 20) == 5
    assert cpu_lanes(small, "float32", 3) == 1
    large = dataclasses.replace(small, vocab_size=LANE_WEIGHT_BYTES // 4 // small.hidden_size)
    assert cpu_lanes(large, jnp.float32, 48) == 1
    monkeypatch.setattr("jax.device_count", lambda: 2)
    assert cpu_lanes(small, "float32", 48) == 1
