"""A cache of pages: which it is, what it holds, and what happens when there is too little of it."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from support import tiny_model as tiny_model_module
from thinkprm_jax.errors import UserError
from thinkprm_jax.model import pages
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.sampler import Force, Request, Rewind, Sampler, Think, engine, page_store
from thinkprm_jax.sampler.cache_kind import VARIABLE, CacheChoice, choose_cache

ROOM = 128 + 64 + 8  # of a context at max_length 64 with chunks of 8


def think(budget):
    def script():
        thought = yield Think(budget)
        return thought.ids

    return script


def tokens(seed, length):
    return np.random.default_rng(seed).integers(20, 400, length).tolist()


def results(sampler, requests):
    found = dict(sampler.run(requests))
    assert not [result.error for result in found.values() if result.error]
    return [found[i].value for i in range(len(requests))]


@pytest.fixture(scope="module")
def make(tiny_model, mini_tokenizer):
    def make(**settings):
        settings = {"slots": 4, "max_length": 64, "chunk": 8, "drafts": 0, "cache": "pages", **settings}
        return Sampler(tiny_model, mini_tokenizer, products="xla", **settings)

    return make


@pytest.fixture(scope="module")
def roomy(make):
    return make()


def store_of(sampler):
    [worker] = sampler._workers
    return worker.store


def test_with_too_few_pages_the_youngest_wait_and_all_tokens_are_the_same(make, roomy):
    requests = [Request(tokens(i, 30), think(30), 1.0, seed=i) for i in range(6)]
    scarce = make(cache_positions=ROOM)
    assert scarce.planned_bytes < roomy.planned_bytes / 3
    assert results(scarce, requests) == results(roomy, requests)
    pool = store_of(scarce).pool
    assert pool.pages * pool.size == 208 < 4 * 60  # what four contexts would take at their ends
    assert scarce.stats.peak_cache_bytes <= 208 * scarce.position_bytes
    assert scarce.stats.reprefilled_tokens + scarce.stats.refed_tokens > 0


def test_a_device_with_little_memory_gets_a_smaller_pool(make, roomy, tiny_model, monkeypatch, caplog):
    """And one again of the size that was meant once there is room."""
    sampler = make()
    room = 240 * sampler.position_bytes
    monkeypatch.setattr(page_store, "free_bytes", lambda _: room)
    requests = [Request(tokens(i, 30), think(30), 1.0, seed=i) for i in range(4)]
    with caplog.at_level("INFO"):
        assert results(sampler, requests) == results(roomy, requests)
    assert store_of(sampler).pool.pages == 240 // 16 - 1
    assert sampler.planned_bytes == room
    assert "a cache of 224 positions" in caplog.text
    sampler.release()
    monkeypatch.undo()
    sampler.use(tiny_model)
    assert results(sampler, requests) == results(roomy, requests)
    assert store_of(sampler).pool.pages == store_of(roomy).pool.pages


def test_what_forks_have_in_common_stands_there_once(make):
    sampler = make()
    head = tokens(1, 49)
    results(sampler, [Request(head, think(8), 1.0, seed=i) for i in range(4)])
    # Three pages of 16 for all, and one for what each has behind 48 tokens; then 8 more tokens fit there.
    assert sampler.stats.peak_cache_bytes == (3 + 4) * 16 * sampler.position_bytes
    assert sampler.stats.peak_live_bytes > 4 * 48 * sampler.position_bytes


def test_a_fork_copies_the_page_that_it_writes_to_and_no_other(make, monkeypatch):
    sampler = make(share_from=1)
    device, copied = store_of(sampler)._device, []
    copy = device.copy_pages
    monkeypatch.setattr(device, "copy_pages", lambda *args: (copied.append(int(args[3])), copy(*args))[1])
    results(sampler, [Request(tokens(1, 42), think(2), 1.0, seed=i) for i in range(3)])
    assert copied == [2]  # 41 tokens are shared, the last page by three rows: the third has it for itself then


@pytest.mark.parametrize("length", [5, 64])
def test_no_number_of_tokens_compiles_another_program(make, roomy, length):
    """The last prompt of the longer ones asks for a call of many pieces and one of few, as all of them do."""
    results(roomy, [Request(tokens(9, 40), think(2)), Request(tokens(8, 63), think(1))])
    before = roomy.compilations
    results(roomy, [Request(tokens(i, length - 3 + i % 3), think(1 + i)) for i in range(3)])
    assert roomy.compilations == before


def test_what_is_live_is_most_of_what_is_held(make, roomy):
    sampler = make(slots=2)
    results(sampler, [Request(tokens(1, 60), think(4)), Request(tokens(2, 10), think(4))])
    stats, page = sampler.stats, 16 * sampler.position_bytes
    assert stats.peak_live_bytes <= stats.peak_cache_bytes <= stats.peak_live_bytes + 2 * page
    # XLA's attention reads both rows as far as the longer one goes, by 128 positions.
    assert stats.cache_bytes_read == stats.decode_steps * 2 * 128 * sampler.position_bytes


def test_new_weights_find_nothing_of_the_old_ones(make, tiny_model):
    sampler = make(prefix_cache=128)
    prompt = tokens(1, 40)
    results(sampler, [dataclasses.replace(Request(prompt, think(3)), keep="prompt")])
    pool = store_of(sampler).pool
    assert pool.free < pool.pages
    sampler.use(tiny_model)
    pool = store_of(sampler).pool
    assert pool.free == pool.pages
    results(sampler, [Request(prompt, think(3))])
    assert sampler.stats.shared_tokens == 0


def test_what_is_abandoned_leaves_its_pages_to_others(make, roomy):
    sampler = make(cache_positions=ROOM, slots=2)
    running = sampler.run([Request(tokens(i, 40), think(2 + 20 * i)) for i in range(2)])
    next(running)
    running.close()
    requests = [Request(tokens(7 + i, 60), think(3)) for i in range(3)]
    assert results(sampler, requests) == results(roomy, requests)


def test_a_phrase_is_fed_in_pieces(make, roomy):
    def script():
        yield Force(range(20, 45))
        thought = yield Think(3)
        return thought.ids

    steps = make()
    results(steps, [Request(tokens(1, 9), script)])
    assert steps.stats.decode_steps == 3


@pytest.mark.slow
def test_the_tpus_kernels_decode_the_same_tokens(mini_tokenizer, monkeypatch):
    """Interpreted, in the sampler as it is: prompts, forced phrases, wide steps, forks and rewinds."""
    config = dataclasses.replace(tiny_model_module.make_config(mini_tokenizer, layers=1), head_dim=128)
    model = Decoder(config, rngs=nnx.Rngs(3))

    def script():
        first = yield Think(6)
        yield Force(range(20, 26))
        yield Rewind(70)
        second = yield Think(5)
        return first.ids, second.ids

    requests = [Request(tokens(i // 2, 66), script, 1.0, seed=i) for i in range(4)]
    settings = {"slots": 2, "max_length": 96, "chunk": 4, "drafts": 3, "products": "xla"}
    expected = results(Sampler(model, mini_tokenizer, cache="rows", **settings), requests)
    for name in ("attend_by_kernel", "write_by_kernel"):
        interpreted = functools.partial(getattr(pages, name), interpret=True)
        monkeypatch.setattr(pages, name, interpreted)
    choice = CacheChoice("pages", "kernel", "for this test")
    monkeypatch.setattr(engine, "choose_cache", lambda *_: choice)
    sampler = Sampler(model, mini_tokenizer, **settings)
    assert store_of(sampler).pool.size == 64
    assert results(sampler, requests) == expected
    assert sampler.stats.wide_steps > 0


def test_a_long_prompt_comes_in_pieces_between_the_chunks_of_others(make, roomy, monkeypatch):
    """With one piece at a time beside a row that runs; alone it comes at once."""
    monkeypatch.setattr(page_store, "AT_ONCE", 16)
    sampler = make(share_from=1)
    device, calls = store_of(sampler)._device, []
    for name in ("feed_pages", "decode"):
        function = getattr(device, name)
        count = {"feed_pages": lambda args: int((args[3][:, 0] >= 0).sum()), "decode": lambda args: "decode"}[name]
        monkeypatch.setattr(
            device, name, lambda *args, call=function, count=count: (calls.append(count(args)), call(*args))[1]
        )
    requests = [Request(tokens(1, 2), think(50)), Request(tokens(2, 58), think(4))]
    assert results(sampler, requests) == results(roomy, requests)
    # The short prompt and 16 tokens of the long one, 8 by steps, 16 more, the rest by steps.
    assert calls[:5] == [2, "decode", 1, "decode", "decode"]
    stats = sampler.stats
    assert (stats.prefilled_tokens, stats.reprefilled_tokens) == (1 + 57, 0)
    calls.clear()
    results(sampler, [Request(tokens(3, 58), think(4))])
    assert calls[0] == 2


def test_settings_that_cannot_work_are_refused(make, tiny_model, mini_tokenizer, monkeypatch):
    with pytest.raises(UserError, match="cache_positions=100 must be at least 208"):
        make(cache_positions=100)
    with pytest.raises(UserError, match="cache_positions is for a cache of pages"):
        make(cache="rows", cache_positions=1000)
    with pytest.raises(UserError, match="cache is 'page'"):
        make(cache="page")
    monkeypatch.setenv(VARIABLE, "page")
    with pytest.raises(UserError, match=f"{VARIABLE} is 'page'"):
        make(cache=None)


def test_pages_are_asked_for_and_read_by_the_kernel_where_it_takes_the_heads(tiny_model, monkeypatch):
    config = dataclasses.replace(tiny_model.config, head_dim=128)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    chosen = choose_cache("auto", config, "bfloat16", [None])
    assert (chosen.kind, "never run" in chosen.reason) == ("rows", True)
    assert choose_cache("pages", config, "bfloat16", [None]).attention == "kernel"
    chosen = choose_cache("auto", tiny_model.config, "bfloat16", [None])
    assert (chosen.kind, chosen.attention) == ("rows", "xla")
    assert "multiple of 128" in chosen.reason
    assert choose_cache("pages", tiny_model.config, "bfloat16", [None]).attention == "xla"


def test_a_model_that_is_split_has_rows(tiny_model, monkeypatch):
    class Split:
        size = 2

    assert choose_cache("auto", tiny_model.config, "float32", [Split()]).kind == "rows"  # type: ignore[list-item]
    with pytest.raises(UserError, match="split over devices"):
        choose_cache("pages", tiny_model.config, "float32", [Split()])  # type: ignore[list-item]
