"""Rows that follow the work: as few as the requests need, the same samples, in few shapes."""

from __future__ import annotations

import pytest

from thinkprm_jax.model.memory import weight_bytes
from thinkprm_jax.sampler import Force, Request, Sampler, Think, slots
from thinkprm_jax.sampler.cache_store import ROWS_STRIDE


def think(budget: int):
    def script():
        first = yield Think(budget)
        yield Force((5, 6))
        second = yield Think(3)
        return first.ids + second.ids

    return script


@pytest.fixture
def following(tiny_model, mini_tokenizer, monkeypatch):
    """Makes a sampler whose rows follow the work, as those of a large model on a CPU."""
    monkeypatch.setattr(slots, "WORKER_WEIGHT_BYTES", 0)
    monkeypatch.setattr(slots, "FOLLOW_WEIGHT_BYTES", 0)

    def make(slots: int = 16, **settings) -> Sampler:
        settings = {"max_length": 256, "chunk": 8, **settings}
        return Sampler(tiny_model, mini_tokenizer, slots=slots, **settings)

    return make


def requests(tokenizer, budgets, **settings) -> list[Request]:
    prompts = [tokenizer.encode(f"Compute 12 + {number % 3}. Then think.") for number in range(len(budgets))]
    return [
        Request(prompt, think(budget), 0.9, seed=number, **settings)
        for number, (prompt, budget) in enumerate(zip(prompts, budgets, strict=True))
    ]


def rows_of(sampler: Sampler) -> int:
    [worker] = sampler._workers
    return len(worker.store.rows)


def watch_rows(sampler: Sampler, monkeypatch) -> list[int]:
    """The rows of every decode call."""
    seen, decode = [], sampler._device.decode

    def watched(parameters, cache, controls):
        seen.append(len(controls.active))
        return decode(parameters, cache, controls)

    monkeypatch.setattr(sampler._device, "decode", watched)
    return seen


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8), (9, 12), (30, 12)])
def test_as_many_rows_as_requests_in_few_sizes_and_no_more_than_slots(
    following, mini_tokenizer, monkeypatch, count, rows
) -> None:
    sampler = following(slots=12)
    seen = watch_rows(sampler, monkeypatch)
    assert len(list(sampler.run(requests(mini_tokenizer, [4] * count)))) == count
    assert seen[0] == max(seen) == rows


@pytest.mark.slow
def test_samples_do_not_depend_on_the_rows(following, tiny_model, mini_tokenizer, monkeypatch) -> None:
    budgets = [40, 3, 7, 60, 2, 5, 11, 5, 6, 9, 21, 4, 3, 3, 3, 50, 4, 90]
    wanted = requests(mini_tokenizer, budgets)
    sampler = following()
    seen = watch_rows(sampler, monkeypatch)
    found = {index: result.value for index, result in sampler.run(wanted)}
    monkeypatch.undo()
    fixed = Sampler(tiny_model, mini_tokenizer, slots=5, max_length=256, chunk=8)
    assert found == {index: result.value for index, result in fixed.run(wanted)}
    assert seen[0] == 16
    assert set(seen) == {16, 4, 1}  # the tail, in few shapes
    assert seen == sorted(seen, reverse=True)


def test_more_work_brings_rows_back(following, mini_tokenizer, monkeypatch) -> None:
    sampler = following()
    seen = watch_rows(sampler, monkeypatch)
    first = sampler.submit(requests(mini_tokenizer, [60])[0])
    sampler.step()
    others = [sampler.submit(request) for request in requests(mini_tokenizer, [3] * 7)]
    values = [handle.result().value for handle in [first, *others]]
    assert list(dict.fromkeys(seen))[:2] == [1, 8]
    alone = following()
    assert values[0] == alone.submit(requests(mini_tokenizer, [60])[0]).result().value
    assert all(len(value) == 6 for value in values[1:])


def test_a_prompt_is_still_shared_with_rows_that_stay(following, mini_tokenizer) -> None:
    sampler = following()
    prompt = mini_tokenizer.encode("Mia has 3 apples. " * 12)
    for seed in range(2):
        assert sampler.submit(Request(prompt, think(4), 0.9, seed=seed)).result().error is None
    assert sampler.stats.prefilled_tokens == len(prompt) - 1
    assert sampler.stats.shared_tokens == len(prompt) - 1


def test_contexts_that_are_kept_outlive_their_rows(following, mini_tokenizer) -> None:
    sampler = following(prefix_cache=4096)
    wanted = requests(mini_tokenizer, [60, *[3] * 15], keep="context")
    results = dict(sampler.run(wanted))
    assert rows_of(sampler) < 16
    before = sampler.stats.prefilled_tokens
    longer = [*wanted[5].prompt, *results[5].ids, 7]
    assert sampler.submit(Request(longer, think(2))).result().error is None
    assert sampler.stats.prefilled_tokens - before <= 1  # what ended a chain was never fed


def test_an_interruption_while_rows_change_loses_nothing(following, mini_tokenizer, monkeypatch) -> None:
    wanted = requests(mini_tokenizer, [40, *[3] * 15])
    expected = {index: result.value for index, result in following().run(wanted)}
    sampler = following()
    decode, calls = sampler._device.decode, iter(range(100))

    def broken(*arguments):
        result = decode(*arguments)
        if next(calls) == 3:
            raise KeyboardInterrupt
        return result

    handles = [sampler.submit(request) for request in wanted]
    with monkeypatch.context() as patch:
        patch.setattr(sampler._device, "decode", broken)
        with pytest.raises(KeyboardInterrupt):
            [handle.result() for handle in handles]
    assert {index: handle.result().value for index, handle in enumerate(handles)} == expected


def test_a_small_model_and_one_on_several_devices_keep_their_rows(tiny_model, monkeypatch) -> None:
    held = weight_bytes(tiny_model.config, "float32")
    assert slots.row_counts(held, 16) == (16,)
    monkeypatch.setattr(slots, "FOLLOW_WEIGHT_BYTES", 0)
    assert slots.row_counts(held, 6) == (1, 2, 4, 6)
    assert ROWS_STRIDE > 1
    monkeypatch.setattr("jax.device_count", lambda: 2)
    assert slots.row_counts(held, 16) == (16,)


def test_what_a_sampler_does_is_told(following, mini_tokenizer) -> None:
    sampler = following()
    assert sampler.activity.doing == ""
    handles = [sampler.submit(request) for request in requests(mini_tokenizer, [20, 20, 20])]
    assert sampler.activity.waiting == 3
    sampler.step()
    told = sampler.activity
    assert (told.doing, told.running, told.waiting, told.finished) == ("decoding", 3, 0, 0)
    assert told.tokens == sampler.stats.sampled_tokens > 0
    [handle.result() for handle in handles]
    assert (sampler.activity.running, sampler.activity.finished) == (0, 3)
