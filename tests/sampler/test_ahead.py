"""Chunks that are launched before the results of the last one are given: the same tokens, clean ends."""

from __future__ import annotations

import numpy as np
import pytest

from thinkprm_jax.sampler import Choose, Force, Mark, Request, Rewind, Sampler, Think

SETTINGS = {"slots": 4, "max_length": 128, "chunk": 8}


@pytest.fixture(scope="module")
def plain(tiny_model, mini_tokenizer) -> Sampler:
    return Sampler(tiny_model, mini_tokenizer, ahead=False, **SETTINGS)


@pytest.fixture
def ahead(tiny_model, mini_tokenizer) -> Sampler:
    return Sampler(tiny_model, mini_tokenizer, ahead=True, **SETTINGS)


def think(prompt: list[int], budget: int, seed: int = 0) -> Request:
    def script():
        return (yield Think(budget)).ids

    return Request(prompt, script, 0.9, seed=seed)


def verdict(prompt: list[int], budget: int, seed: int, stop: str) -> Request:
    """Thinks, is made to decide, goes back, and thinks on."""

    def script():
        first = yield Think(budget, stop_texts=(stop,), watch=(3, 4))
        mark = yield Mark()
        yield Force(range(20, 32))
        answers = yield Choose((5, 6))
        yield Rewind(mark)
        second = yield Think(9)
        return first.ids, first.finish, first.logprobs, first.watched, answers, second.ids

    return Request(prompt, script, 0.9, seed=seed)


def test_tokens_stops_and_forced_phrases_are_the_same(plain, ahead, mini_tokenizer) -> None:
    prompt = mini_tokenizer.encode("Compute 12 + 7. Then say what is right.")
    stops = ("no such text", "e")
    requests = [verdict(prompt[: 3 + i % 5], 5 + 7 * (i % 4), i, stops[i % 2]) for i in range(14)]
    found, expected = dict(ahead.run(requests)), dict(plain.run(requests))
    for index, result in expected.items():
        assert result.error is None
        assert found[index].ids == result.ids
        for ours, theirs in zip(found[index].value, result.value, strict=True):
            if isinstance(theirs, np.ndarray):
                np.testing.assert_allclose(ours, theirs, atol=1e-5)
            else:
                assert ours == theirs
    assert {result.value[1] for result in expected.values()} == {"stop_text", "length"}


def test_the_device_works_while_a_caller_has_results(ahead, mini_tokenizer) -> None:
    """All but the last: a request that waits has the row of one that ended before anybody is told of its end."""
    prompt = mini_tokenizer.encode("Compute 12 + 7.")
    [worker] = ahead._workers
    launched, launch = [], worker.launch
    worker.launch = lambda parameters: launched.append(len(worker.jobs)) or launch(parameters)
    read = []
    take = worker.read
    worker.read = lambda: read.append(1) or take()
    busy = []
    for _index, _result in ahead.run([think(prompt, 6 + 5 * i, i) for i in range(9)]):
        busy.append(bool(ahead._under_way))
    assert len(busy) == 9
    assert busy[-1] is False
    assert sum(busy) >= 5
    assert len(launched) == len(read)
    assert launched[1] == 4  # the first chunk ended one of them; another had its row at once


def test_rows_that_callers_may_fill_are_not_left_empty_for_a_chunk(ahead, mini_tokenizer) -> None:
    """One that submits on from what it gets: half of the rows are free, so it is told before the next chunk."""
    prompt = mini_tokenizer.encode("Compute 12 + 7.")
    first = [ahead.submit(think(prompt, budget, budget)) for budget in (4, 4, 40)]
    first[0].result()
    assert not ahead._under_way
    assert first[1].done()
    assert len(first[2].result().value) == 40


def test_a_failing_device_fails_what_runs_and_not_what_ended(ahead, mini_tokenizer) -> None:
    prompt = mini_tokenizer.encode("Compute 12 + 7.")
    [worker] = ahead._workers
    take, reads = worker.read, []

    def read():
        reads.append(1)
        found = take()
        if len(reads) == 2:
            raise RuntimeError("out of memory")
        return found

    worker.read = read
    handles = [ahead.submit(think(prompt, budget, budget)) for budget in (3, 30, 31, 32, 33)]
    assert len(handles[0].result().value) == 3
    assert ahead._under_way
    for handle in handles[1:]:
        with pytest.raises(RuntimeError, match="out of memory"):
            handle.result()
    assert len(ahead.submit(think(prompt, 5)).result().value) == 5


def test_it_can_be_released_and_given_weights_while_a_chunk_runs(ahead, plain, mini_tokenizer, tiny_model) -> None:
    prompt = mini_tokenizer.encode("Compute 12 + 7.")
    handles = [ahead.submit(think(prompt, budget, budget)) for budget in (3, 30, 31, 32, 33)]
    handles[0].result()
    assert ahead._under_way
    with pytest.raises(RuntimeError, match="is running"):
        ahead.release()
    for handle in handles[1:]:
        handle.cancel()
    ahead.use(tiny_model)
    [expected] = [result.value for _, result in plain.run([think(prompt, 12, 5)])]
    assert ahead.submit(think(prompt, 12, 5)).result().value == expected


def test_on_a_cpu_it_is_off_unless_it_is_asked_for(tiny_model, mini_tokenizer, monkeypatch) -> None:
    assert not Sampler(tiny_model, mini_tokenizer, slots=1, max_length=64).ahead
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert Sampler(tiny_model, mini_tokenizer, slots=1, max_length=64, products="xla").ahead
