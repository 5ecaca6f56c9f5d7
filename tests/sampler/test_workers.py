"""Several decode loops in threads: the same samples, scripts in the thread that waits, clean ends."""

from __future__ import annotations

import itertools
import threading

import pytest

from thinkprm_jax.model.memory import weight_bytes
from thinkprm_jax.sampler import Request, Sampler, Think, engine
from thinkprm_jax.sampler.slots import WORKER_WEIGHT_BYTES, worker_count

BUDGETS = [3, 30, 7, 19, 2, 25, 11, 5, 16, 9, 21, 4]


def think(budget: int):
    def script():
        thought = yield Think(budget)
        return thought.ids

    return script


@pytest.fixture(scope="module")
def sampler(tiny_model, mini_tokenizer) -> Sampler:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "worker_count", lambda *args: 2)
        return Sampler(tiny_model, mini_tokenizer, slots=4, max_length=128, chunk=8)


@pytest.fixture(scope="module")
def requests(mini_tokenizer) -> list[Request]:
    prompt = mini_tokenizer.encode("Compute 12 + 7.")
    return [Request(prompt, think(budget), 0.9, seed=i) for i, budget in enumerate(BUDGETS)]


def test_two_workers_give_the_samples_of_one(tiny_model, mini_tokenizer, sampler, requests) -> None:
    alone = dict(Sampler(tiny_model, mini_tokenizer, slots=3, max_length=128, chunk=8).run(requests))
    before = sampler.stats.sampled_tokens
    found = dict(sampler.run(requests))
    assert {index: result.value for index, result in found.items()} == {
        index: result.value for index, result in alone.items()
    }
    assert sampler.stats.sampled_tokens - before == sum(BUDGETS)
    assert len(sampler._workers) == 2
    assert all(worker.stats.finished for worker in sampler._workers)


def test_requests_and_scripts_run_in_the_thread_that_waits_and_the_device_in_others(
    sampler, requests, monkeypatch
) -> None:
    makers, runners, decoders = set(), set(), set()
    decode = sampler._device.decode

    def watched(*args):
        decoders.add(threading.current_thread())
        return decode(*args)

    def script():
        runners.add(threading.current_thread())
        yield Think(2)

    def source():
        for request in requests:
            makers.add(threading.current_thread())
            yield Request(request.prompt, script)

    monkeypatch.setattr(sampler._device, "decode", watched)
    assert len(list(sampler.run(source()))) == len(requests)
    assert makers == runners == {threading.current_thread()}
    assert threading.current_thread() not in decoders


def test_what_a_script_raises_reaches_the_caller_and_the_sampler_goes_on(sampler, requests) -> None:
    def fails():
        yield Think(2)
        raise LookupError("of the script")

    with pytest.raises(LookupError, match="of the script"):
        list(sampler.run([*requests, Request(requests[0].prompt, fails)]))
    assert len(list(sampler.run(requests))) == len(requests)


def test_what_the_source_raises_reaches_the_caller(sampler, requests) -> None:
    def source():
        yield from requests[:3]
        raise LookupError("of the source")

    with pytest.raises(LookupError, match="of the source"):
        list(sampler.run(source()))
    assert len(list(sampler.run(requests))) == len(requests)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_or_failure_in_a_chunk(sampler, requests, monkeypatch, error) -> None:
    decode, calls = sampler._device.decode, itertools.count()
    wanted = {index: result.value for index, result in sampler.run(requests)}

    def broken(*args):
        call = next(calls)
        result = decode(*args)
        if call == 2:
            raise error
        return result

    with monkeypatch.context() as patch:
        patch.setattr(sampler._device, "decode", broken)
        with pytest.raises(error):
            list(sampler.run(requests))
    assert {index: result.value for index, result in sampler.run(requests)} == wanted


def test_leaving_early_ends_the_work_before_it_is_done(sampler, tiny_model, requests) -> None:
    before = sampler.stats.sampled_tokens
    running = sampler.run([Request(requests[0].prompt, think(1)), *[Request(requests[0].prompt, think(100))] * 9])
    next(running)
    running.close()
    sampler.use(tiny_model)  # not while something runs
    assert sampler.stats.sampled_tokens - before < 400  # of 901


def test_workers_of_a_machine(monkeypatch, tiny_model, mini_tokenizer) -> None:
    small = weight_bytes(tiny_model.config, "float32")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr("jax.device_count", lambda: 1)
    assert worker_count(small, 48) == 6
    assert worker_count(small, 16) == 4  # four slots each
    assert worker_count(small, 20) == 5
    assert worker_count(small, 3) == 1
    assert len(Sampler(tiny_model, mini_tokenizer, slots=16)._workers) == 4
    assert len(Sampler(tiny_model, mini_tokenizer, slots=16, prefix_cache=160)._workers) == 1
    assert worker_count(WORKER_WEIGHT_BYTES + 1, 48) == 1
    monkeypatch.setattr("jax.device_count", lambda: 2)
    assert worker_count(small, 48) == 1
