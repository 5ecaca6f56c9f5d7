"""Common beginnings of prompts: what is processed once, what is counted, and that it changes no sample."""

from __future__ import annotations

import random

import numpy as np
import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.sampler import Choose, Force, Request, Sampler, Think, cache_store

MAX_LENGTH = 250


@pytest.fixture(scope="module")
def make(tiny_model, mini_tokenizer):
    def make(slots=3, **kwargs):
        return Sampler(tiny_model, mini_tokenizer, slots=slots, max_length=MAX_LENGTH, chunk=8, **kwargs)

    return make


@pytest.fixture(scope="module")
def fresh(make, tiny_model):
    """Results of requests, each by a sampler that holds nothing of any other."""
    sampler = make(slots=1)

    def run(requests):
        found = []
        for request in requests:
            sampler.use(tiny_model)
            found += results(sampler, [request])
        return found

    return run


def results(sampler, requests):
    found = dict(sampler.run(requests))
    assert not [result.error for result in found.values() if result.error]
    return [found[i] for i in range(len(requests))]


def think(max_tokens=12, **kwargs):
    def script():
        thought = yield Think(max_tokens, **kwargs)
        return thought

    return script


def tokens_of(seed, length, vocab=400):
    return np.random.default_rng(seed).integers(20, vocab, length).tolist()


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.value.ids == b.value.ids
        np.testing.assert_allclose(a.value.logprobs, b.value.logprobs, atol=5e-5)  # 1.1e-5 was seen with jax 0.12


def test_of_a_prompt_only_what_no_row_holds_is_processed(make, fresh):
    sampler = make()
    first = tokens_of(1, 100)
    results(sampler, [Request(first, think())])
    longer = [Request([*first[:90], *tokens_of(2, 50)], think(), 1.0, seed=3)]  # leaves the first at 90
    assert_same(results(sampler, longer), fresh(longer))
    stats = sampler.stats
    assert (stats.prefilled_tokens, stats.reprefilled_tokens, stats.shared_tokens) == (99 + 49, 0, 90)


def test_new_prompts_with_a_common_beginning_process_it_once(make, fresh):
    head = tokens_of(1, 80)
    requests = [Request([*head, *tokens_of(i, 40)], think(), 1.0, seed=i) for i in (2, 3, 4)]
    sampler = make()
    assert_same(results(sampler, requests), fresh(requests))
    stats = sampler.stats
    assert (stats.prefilled_tokens, stats.reprefilled_tokens, stats.shared_tokens) == (80 + 3 * 39, 0, 2 * 80)


def beam_search(run, problems=4, beams=3, rounds=3):
    """More contexts than slots; of each problem two beams survive a round, and one of them forks."""
    live = [[*[9] * 30, *tokens_of(problem, 25)] for problem in range(problems) for _ in range(beams)]
    found = []
    for step in range(rounds):
        requests = [
            Request(context, think(9 + i % 4), 1.0, seed=100 * step + i, keep="context")
            for i, context in enumerate(live)
        ]
        found += run(requests)
        live = [[*context, *result.ids] for context, result in zip(live, found[-len(live) :], strict=True)]
        live = [live[i - i % beams + (0, 0, 2)[i % beams]] for i in range(len(live))]
    return found


@pytest.mark.parametrize("cache", ["rows", "pages"])
def test_a_search_in_a_prefix_cache_processes_no_token_of_a_beginning_twice(make, fresh, cache):
    sampler = make(prefix_cache=2000, share_from=1, cache=cache)
    assert_same(beam_search(lambda requests: results(sampler, requests)), beam_search(fresh))
    stats = sampler.stats
    assert stats.reprefilled_tokens == stats.evicted_tokens == 0
    assert stats.prefilled_tokens == 30 + 4 * 24
    # A prompt's last token is needed by each of its forks: three at first, then the pairs of two rounds.
    assert stats.refed_tokens == 4 * 2 + 2 * 4
    assert stats.processed_tokens == stats.busy_slot_steps + stats.prefilled_tokens


def test_without_a_prefix_cache_the_same_search_loses_rows_and_says_so(make):
    sampler = make(share_from=1)
    beam_search(lambda requests: results(sampler, requests), problems=2)
    assert sampler.stats.reprefilled_tokens > 0
    assert sampler.stats.saved_tokens == 0


def test_a_prompt_alone_is_kept_without_what_was_written_behind_it(make):
    sampler = make(slots=1, prefix_cache=1600)
    prompt, other = tokens_of(1, 100), tokens_of(2, 100)
    results(sampler, [Request(prompt, think(30), keep="prompt"), Request(other, think())])
    assert sampler.stats.saved_tokens == 100
    results(sampler, [Request([*prompt, *tokens_of(3, 40)], think())])
    assert sampler.stats.shared_tokens == 100
    assert sampler.stats.reprefilled_tokens == 0


def test_new_weights_find_nothing_in_the_prefix_cache(make, tiny_model):
    sampler = make(slots=1, prefix_cache=1600)
    prompt = tokens_of(1, 100)
    results(sampler, [Request(prompt, think(), keep="prompt")])
    sampler.use(tiny_model)
    results(sampler, [Request(prompt, think())])
    assert sampler.stats.shared_tokens == 0
    assert sampler.stats.prefilled_tokens == 2 * 99


def random_requests(dice, contexts, vocab):
    """Prompts that go on from anywhere in contexts that were, or begin anew."""
    requests = []
    for _ in range(dice.randint(1, 7)):
        start = dice.choice(contexts[-8:]) if contexts and dice.random() < 0.8 else []
        start = start[: dice.choice([len(start), dice.randint(0, len(start))])][:180]
        rest = [dice.randrange(vocab) for _ in range(dice.choice([1, 1, 5, 20, 60]))]
        prompt = rest if not start or dice.random() < 0.6 else start
        prompt = start + rest if prompt is rest else start
        requests.append(
            Request(
                prompt,
                think(dice.choice([1, 5, 12])),
                dice.choice([0.0, 1.0]),
                seed=dice.randrange(10**6),
                keep=dice.choice(["", "prompt", "context", "context"]),
            )
        )
    return requests


@pytest.mark.parametrize("cache", ["rows", "pages"])
@pytest.mark.parametrize(("prefix_cache", "share_from"), [(0, 1), (160, 1), (640, 16)])
def test_any_sequence_of_prompts_gives_the_samples_of_fresh_samplers(
    make, fresh, mini_tokenizer, prefix_cache, share_from, cache
):
    sampler = make(prefix_cache=prefix_cache, share_from=share_from, cache=cache)
    dice = random.Random(prefix_cache)
    contexts, wanted = [], 0
    for _ in range(10):
        requests = random_requests(dice, contexts, mini_tokenizer.vocab_size)
        ours = results(sampler, requests)
        assert_same(ours, fresh(requests))
        contexts += [[*request.prompt, *result.ids] for request, result in zip(requests, ours, strict=True)]
        wanted += sum(len(request.prompt) - 1 for request in requests)
    stats = sampler.stats
    assert stats.shared_tokens + stats.prefilled_tokens + stats.reprefilled_tokens == wanted
    assert stats.shared_tokens > wanted // 4
    assert (stats.evicted_tokens > 0) == (prefix_cache == 160)
    assert stats.fed_samples + stats.forced_tokens + stats.refed_tokens <= stats.busy_slot_steps


@pytest.mark.slow
def test_a_long_prompt_is_prefilled_in_pieces(make, fresh, monkeypatch):
    prompt = tokens_of(1, 230)
    requests = [Request(prompt, think(), 1.0, seed=1), Request([*prompt[:200], 5, 6], think(), 1.0, seed=1)]
    whole = fresh(requests)
    monkeypatch.setattr(cache_store, "PIECE_TOKENS", 64)
    sampler = make()
    widths = []
    for name in ("prefill", "extend"):
        function = getattr(sampler._device, name)
        monkeypatch.setattr(
            sampler._device, name, lambda *args, call=function: (widths.append(args[1].shape[1]), call(*args))[1]
        )
    assert_same(results(sampler, requests), whole)
    assert len(widths) == 4
    assert max(widths) <= 128
    assert sampler.stats.prefilled_tokens == 229 + 1  # the second prompt has one token of its own before its last


@pytest.mark.parametrize(
    ("name", "cache"),
    [("take", "rows"), ("extend", "rows"), ("save", "rows"), ("load", "rows"), ("copy_pages", "pages")],
)
def test_an_interrupt_while_moving_beginnings_leaves_the_sampler_usable(make, fresh, monkeypatch, name, cache):
    sampler = make(slots=1, prefix_cache=1600, cache=cache)
    first, second = tokens_of(1, 100), tokens_of(2, 100)
    requests = [Request(first, think(), keep="prompt"), Request(second, think(), keep="prompt")]
    requests.append(Request([*first, *tokens_of(3, 30)], think()))
    expected = fresh(requests)

    def interrupted(*args):
        function(*args)  # what is donated is gone, the result never arrives
        raise KeyboardInterrupt

    function = getattr(sampler._device, name)
    with monkeypatch.context() as patch:
        patch.setattr(sampler._device, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            results(sampler, requests)
    assert_same(results(sampler, requests), expected)


def test_what_stopped_a_phase_can_be_kept_and_gone_on_from(make, mini_tokenizer):
    prompt = tokens_of(1, 20)
    sampler = make()
    free = results(sampler, [Request(prompt, think(24))])[0].value
    pieces = [mini_tokenizer.token_bytes(i) for i in free.ids]
    text = next(piece for piece in pieces[4:] if piece.isascii() and len(piece) > 1)[:2].decode()
    end = next(i for i in range(len(pieces)) if text.encode() in b"".join(pieces[: i + 1]))
    by_text, by_id = results(
        sampler,
        [
            Request(prompt, think(24, stop_texts=(text,), keep_stop=True)),
            Request(prompt, think(24, stop_ids=(free.ids[6],), keep_stop=True)),
        ],
    )
    assert (by_text.value.finish, by_text.value.stop) == ("stop_text", text)
    assert by_text.value.ids == by_text.ids == free.ids[: end + 1]
    assert by_text.tokens == len(by_text.value.logprobs) == end + 1
    first = free.ids.index(free.ids[6])
    assert (by_id.value.finish, by_id.value.stop) == ("stop_id", free.ids[6])
    assert by_id.value.ids == by_id.ids == free.ids[: first + 1]
    assert by_id.tokens == len(by_id.value.logprobs) == first + 1


def test_what_is_sampled_behind_a_stop_text_is_counted_apart(make, mini_tokenizer):
    prompt = tokens_of(1, 20)
    (free,) = results(make(), [Request(prompt, think(24))])
    sampler = make()
    pieces = map(mini_tokenizer.token_bytes, free.value.ids)
    stop = next(piece for piece in pieces if piece.isascii() and len(piece) > 1).decode()
    (stopped,) = results(sampler, [Request(prompt, think(24, stop_texts=(stop,)))])
    stats = sampler.stats
    assert stats.discarded_tokens > 0
    assert stats.sampled_tokens - stats.discarded_tokens == stopped.tokens
    assert stats.first_time_tokens == stopped.tokens + stats.forced_tokens + stats.prefilled_tokens


def test_settings_of_the_prefix_cache_that_cannot_work_are_refused(make):
    for settings in ({"prefix_cache": -1}, {"share_from": 0}):
        with pytest.raises(UserError, match="prefix_cache="):
            make(**settings)
    found = dict(make().run([Request([1], think(), keep="all")]))  # type: ignore[arg-type]
    assert "keep is 'all'" in str(found[0].error)


def test_the_plan_of_memory_is_what_is_allocated(make):
    sampler = make(prefix_cache=330, cache="rows")
    results(sampler, [Request(tokens_of(1, MAX_LENGTH - 9), think(), keep="context")])
    store = sampler._workers[0].store
    arrays = [*store.cache.keys, *store.cache.values, *store._prefixes.keys, *store._prefixes.values]
    assert sum(x.nbytes for x in arrays) <= sampler.planned_bytes
    assert store._prefixes.keys[0].shape[0] == 21  # blocks of 16
    assert sampler.position_bytes == sum(x.nbytes // x.shape[0] // x.shape[2] for x in arrays[:4])


@pytest.mark.parametrize(
    "phase",
    [Think(3, stop_ids=(-1,)), Think(3, watch=(10**6,)), Choose((10**6,)), Force((1, 10**6))],
    ids=["stop", "watch", "choose", "force"],
)
def test_ids_outside_the_vocabulary_fail_the_request(make, phase):
    def script():
        yield phase

    found = dict(make().run([Request([1, 2], script), Request([1, 2], think(2))]))
    assert "outside the model's vocabulary" in str(found[0].error)
    assert found[1].error is None
