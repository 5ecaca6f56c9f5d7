"""One engine for many callers: threads, coroutines, cancellation, interruption, and calls where none can be."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.sampler import CancelledError, Force, Request, RequestHandle, Sampler, Think, gather

BUDGETS = [3, 30, 7, 19, 2, 25, 11, 5, 16, 9, 21, 4]
LONG = 100


@pytest.fixture
def sampler(tiny_model, mini_tokenizer) -> Sampler:
    return Sampler(tiny_model, mini_tokenizer, slots=3, max_length=128, chunk=8)


@pytest.fixture(scope="module")
def prompt(mini_tokenizer) -> list[int]:
    return mini_tokenizer.encode("Compute 12 + 7.")


def thinking(prompt: list[int], budget: int, seed: int = 0) -> Request:
    def script():
        thought = yield Think(budget)
        return thought.ids

    return Request(prompt, script, 0.9, seed=seed)


@pytest.fixture(scope="module")
def requests(prompt) -> list[Request]:
    return [thinking(prompt, budget, seed) for seed, budget in enumerate(BUDGETS)]


@pytest.fixture(scope="module")
def wanted(tiny_model, mini_tokenizer, requests) -> list[list[int]]:
    """What each request gives alone."""
    sampler = Sampler(tiny_model, mini_tokenizer, slots=1, max_length=128, chunk=32)
    return [sampler.submit(request).result().value for request in requests]


def in_threads(*functions: Callable[[], object]) -> None:
    """Runs them at once; raises what one of them raises."""
    errors: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_a_handle_steps_until_it_is_done(sampler, requests, wanted) -> None:
    handles = [sampler.submit(request) for request in requests]
    assert not any(handle.done() for handle in handles)
    assert sampler.stats.decode_steps == 0  # nothing runs before somebody waits
    assert handles[4].result().value == wanted[4]
    assert not handles[1].done()
    assert [handle.result().value for handle in handles] == wanted
    assert not sampler.step()


def test_threads_are_served_from_the_same_slots(sampler, requests, wanted) -> None:
    found: dict[int, list[int]] = {}

    def submits(mine: range) -> None:
        handles = [(i, sampler.submit(requests[i])) for i in mine]
        found.update((i, handle.result(60).value) for i, handle in handles)

    def runs(mine: range) -> None:
        found.update((mine[i], result.value) for i, result in sampler.run([requests[j] for j in mine]))

    in_threads(lambda: submits(range(4)), lambda: runs(range(4, 8)), lambda: runs(range(8, 12)))
    assert [found[i] for i in range(12)] == wanted
    assert sampler.stats.finished == 12
    assert sampler.stats.decode_steps < sum(BUDGETS)  # together, not one after the other


def test_a_short_run_is_not_kept_waiting_by_a_long_one(sampler, prompt) -> None:
    order: list[str] = []
    begun = threading.Event()

    def long() -> None:
        for _ in sampler.run(thinking(prompt, 30, seed) for seed in range(40)):
            order.append("long")
            begun.set()

    def short() -> None:
        begun.wait(60)
        list(sampler.run([thinking(prompt, 5)]))
        order.append("short")

    in_threads(long, short)
    assert order.index("short") < 30


def test_requests_are_taken_as_slots_become_free(sampler, prompt) -> None:
    taken: list[int] = []

    def source():
        for i in range(9):
            taken.append(i)
            yield thinking(prompt, 10 + 8 * i, i)

    running = sampler.run(source())
    next(running)
    assert len(taken) == 3
    next(running)
    assert len(taken) == 4
    running.close()


def test_coroutines(sampler, requests, wanted) -> None:
    async def one(i: int) -> list[int]:
        return (await sampler.submit(requests[i])).value

    async def all_of_them() -> list[list[int]]:
        return await asyncio.gather(*map(one, range(len(requests))))

    assert asyncio.run(all_of_them()) == wanted
    for thread in threading.enumerate():
        if thread.name == "thinkprm awaits":
            thread.join(60)  # the thread that waited for them goes when none is left
            assert not thread.is_alive()
    assert asyncio.run(all_of_them()) == wanted


def test_a_coroutine_that_gives_up_cancels_its_request(sampler, requests, prompt, wanted) -> None:
    async def impatient() -> RequestHandle:
        handle = sampler.submit(thinking(prompt, LONG))
        waiting = asyncio.ensure_future(_await(handle))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return handle

    assert asyncio.run(impatient()).cancelled()
    assert sampler.submit(requests[0]).result().value == wanted[0]


def test_an_event_loop_goes_on_while_a_handle_is_awaited(sampler, prompt) -> None:
    async def both() -> int:
        ticks = 0
        waiting = asyncio.ensure_future(_await(sampler.submit(thinking(prompt, LONG))))
        while not waiting.done():
            ticks += 1
            await asyncio.sleep(0)
        return ticks

    assert asyncio.run(both()) > 3


async def _await(handle: RequestHandle):
    return await handle


def test_cancelled_in_the_queue_it_never_runs(sampler, prompt, requests, wanted) -> None:
    started: list[int] = []

    def script():
        started.append(1)
        yield Think(3)

    running = [sampler.submit(thinking(prompt, LONG, seed)) for seed in range(3)]
    queued = sampler.submit(Request(prompt, script))
    behind = sampler.submit(requests[0])
    assert sampler.cancel(queued)
    assert not queued.cancel()
    assert behind.result().value == wanted[0]
    assert not started
    with pytest.raises(CancelledError):
        queued.result()
    assert all(len(handle.result().value) == LONG for handle in running)


def test_cancelled_by_another_thread_a_slot_is_free_and_the_waiting_thread_is_told(sampler, prompt) -> None:
    closed = threading.Event()

    def script():
        try:
            for _ in range(40):
                yield Think(2)
                yield Force((1,))
        finally:
            closed.set()

    handle = sampler.submit(Request(prompt, script))

    def waits() -> None:
        with pytest.raises(CancelledError):
            handle.result(60)

    def cancels() -> None:
        while not handle.ids:
            time.sleep(0.001)
        assert handle.cancel()

    in_threads(waits, cancels)
    assert sampler.submit(thinking(prompt, 2)).result(60).error is None
    assert closed.is_set()
    assert sampler.stats.sampled_tokens < 80


def test_what_a_script_raises_is_its_own(sampler, requests, wanted, prompt) -> None:
    def fails():
        yield Think(2)
        raise LookupError("of the script")

    def waits(handle: RequestHandle) -> None:
        with pytest.raises(LookupError, match="of the script"):
            handle.result(60)

    bad = sampler.submit(Request(prompt, fails))
    found: dict[int, list[int]] = {}
    in_threads(
        lambda: waits(bad),
        lambda: found.update((i, sampler.submit(request).result().value) for i, request in enumerate(requests)),
    )
    assert [found[i] for i in range(len(requests))] == wanted
    assert isinstance(bad.exception(), LookupError)
    no_script = sampler.submit(Request(prompt, lambda: iter(())))  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="generator function"):
        no_script.result()


def test_what_fails_on_the_device_is_told_to_all_that_ran(sampler, requests, wanted, monkeypatch) -> None:
    def broken(*args):
        raise MemoryError("of the device")

    handles = [sampler.submit(request) for request in requests]
    with monkeypatch.context() as patch:
        patch.setattr(sampler._device, "decode", broken)
        assert sampler.step()
    assert [isinstance(handle.exception(), MemoryError) for handle in handles[:3]] == [True] * 3
    assert [handle.result().value for handle in handles[3:]] == wanted[3:]


@pytest.mark.parametrize("where", ["decode", "prefill"])
def test_an_interrupt_reaches_its_thread_and_the_requests_of_others_go_on(
    sampler, requests, wanted, monkeypatch, where
) -> None:
    function, calls = getattr(sampler._device, where), []

    def interrupted(*args):
        calls.append(1)
        result = function(*args)  # what is donated is gone
        if len(calls) == (2 if where == "decode" else 1):
            raise KeyboardInterrupt
        return result

    handles = [sampler.submit(request) for request in requests]
    monkeypatch.setattr(sampler._device, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        handles[1].result()
    assert not handles[1].done()
    found: list[list[int]] = []
    in_threads(lambda: found.extend(handle.result(60).value for handle in handles))
    assert found == wanted


def test_an_iterator_that_is_left_cancels_its_own_and_nothing_else(sampler, requests, wanted, prompt) -> None:
    mine = sampler.submit(thinking(prompt, 40, 7))
    running = sampler.run([thinking(prompt, 1 + 50 * i) for i in range(9)])
    next(running)
    running.close()
    assert len(mine.result().value) == 40
    assert sampler.submit(requests[2]).result().value == wanted[2]
    assert sampler.stats.sampled_tokens < 250


def test_ids_and_text_come_as_they_are_decoded(sampler, prompt, mini_tokenizer) -> None:
    def script():
        first = yield Think(30)
        yield Force(mini_tokenizer.encode(" And then"))
        second = yield Think(20)
        return first, second

    handle = sampler.submit(Request(prompt, script, 0.9, seed=3))
    seen: list[int] = []
    for id in handle:
        if not seen:
            assert not handle.done()
        seen.append(id)
    first, second = handle.result().value
    assert seen == [*first.ids, *second.ids] == handle.ids
    assert "".join(handle.text()) == mini_tokenizer.decode(seen)


def test_what_a_stop_text_may_take_back_is_not_given(tiny_model, mini_tokenizer, prompt) -> None:
    sampler = Sampler(tiny_model, mini_tokenizer, slots=1, max_length=128, chunk=3)
    stopped = 0
    for seed in range(6):
        free = sampler.submit(sampler.request(prompt, max_new_tokens=40, temperature=1.0, seed=seed)).result()
        text = free.value.text
        stop = next((text[i : i + 7] for i in range(20, len(text) - 7) if text[i : i + 7].isascii()), None)
        if stop is None:
            continue
        request = sampler.request(prompt, max_new_tokens=40, temperature=1.0, seed=seed, stop=stop)
        handle = sampler.submit(request)
        given = list(handle)
        completion = handle.result().value
        assert completion.finish_reason == "stop"
        assert given == completion.ids == handle.ids
        stopped += 1
    assert stopped > 2


def test_a_reader_in_another_thread(sampler, prompt) -> None:
    handle, seen = sampler.submit(thinking(prompt, 50, 1)), []
    in_threads(lambda: seen.extend(handle), lambda: handle.result(60))
    assert seen == handle.result().value
    with pytest.raises(RequestError, match="the prompt is empty"):
        list(sampler.submit(thinking([], 5)))


def test_a_request_that_can_never_run_has_its_result_at_once(sampler) -> None:
    handle = sampler.submit(thinking([1] * 500, 5))
    assert handle.done()
    assert "max_length is 128" in str(handle.result().error)


def test_time_is_up(sampler, prompt) -> None:
    handle = sampler.submit(thinking(prompt, LONG))
    with pytest.raises(TimeoutError):
        handle.result(0.0)
    assert len(handle.result().value) == LONG


def test_callbacks_may_submit_and_not_wait(sampler, requests, wanted) -> None:
    found: list[object] = []

    def again(handle: RequestHandle) -> None:
        next_one = sampler.submit(requests[0])
        next_one.add_done_callback(lambda done: found.append(done.result().value))
        try:
            next_one.result()
        except RuntimeError as error:
            found.append(str(error))

    handle = sampler.submit(requests[4])
    handle.add_done_callback(again)
    handle.result()
    while sampler.step():
        pass
    assert "cannot wait" in found[0]
    assert found[1] == wanted[0]
    handle.add_done_callback(lambda done: found.append(done is handle))
    assert found[2] is True


def test_several_handles_as_one(sampler, requests, wanted, prompt) -> None:
    parts = [sampler.submit(request) for request in requests[:4]]
    both = gather(sampler.loop, parts, lambda results: [result.value for result in results])
    assert both.then(len).result() == 4
    assert both.result() == wanted[:4]
    parts = [sampler.submit(thinking(prompt, LONG)) for _ in range(2)]
    assert gather(sampler.loop, parts, len).cancel()
    assert all(part.cancelled() for part in parts)

    def fails():
        yield Think(1)
        raise LookupError

    parts = [sampler.submit(thinking(prompt, LONG)), sampler.submit(Request(prompt, fails))]
    with pytest.raises(LookupError):
        gather(sampler.loop, parts, len).result()
    assert parts[0].cancelled()
    with pytest.raises(ZeroDivisionError):
        sampler.submit(requests[0]).then(lambda result: 1 / 0).result()


def test_inside_jit_it_says_so_and_goes_on_outside(sampler, requests, wanted) -> None:
    handle = sampler.submit(requests[1])

    def calls(x):
        for call in (
            lambda: sampler.submit(requests[0]),
            lambda: sampler.generate(["7"]),
            lambda: list(sampler.run(requests)),
            handle.result,
            sampler.step,
        ):
            with pytest.raises(UserError, match="while JAX traces"):
                call()
        return x

    jax.jit(calls)(1.0)
    jax.lax.scan(lambda carry, x: (carry, calls(x)), 0.0, jnp.zeros(2))
    with pytest.raises(UserError, match="traced values"):
        jax.vmap(lambda x: sampler.submit(thinking([x], 3)) and x)(jnp.arange(2))
    assert handle.result().value == wanted[1]
    assert [result.value for _, result in sorted(sampler.run(requests))] == wanted


def test_a_sampler_goes_when_nobody_holds_it(tiny_model, mini_tokenizer, requests) -> None:
    gc.collect()
    gc.disable()
    try:
        sampler = Sampler(tiny_model, mini_tokenizer, slots=2, max_length=128, chunk=8)
        handle = sampler.submit(requests[0])
        assert dict(sampler.run(requests[:3]))
        gone = weakref.ref(sampler)
        del sampler
        assert handle.done()
        assert gone() is None
    finally:
        gc.enable()
