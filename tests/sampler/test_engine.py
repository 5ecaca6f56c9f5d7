"""The engine against the naive sampler, and what must never change a sample."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from support.naive_sampler import NaiveSampler
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.sampler import Choose, Force, Mark, Request, Rewind, Sampler, Think

PROMPTS = ["7", "Step 1: 12 + 7 = 19", "Compute 12 + 7.\nThe answer is 19.", "Mia has 3 apples. " * 9]


def ids_of(tokenizer, text):
    return [tokenizer.bos_id, *tokenizer.encode(text)]


def think(max_tokens=24, stop_ids=(), **kwargs):
    def script():
        thought = yield Think(max_tokens, stop_ids, **kwargs)
        return thought

    return script


def results(sampler, requests):
    found = {}
    for index, result in sampler.run(requests):
        assert index not in found
        assert result.error is None, result.error
        found[index] = result
    return [found[i] for i in range(len(requests))]


@pytest.mark.parametrize("cache", ["rows", "pages"])
def test_greedy_tokens_and_log_probabilities_equal_the_naive_loop(tiny_model, mini_tokenizer, cache):
    requests = [Request(ids_of(mini_tokenizer, p), think(40, watch=(5, 9))) for p in PROMPTS]
    ours = results(Sampler(tiny_model, mini_tokenizer, slots=3, max_length=256, chunk=8, cache=cache), requests)
    naive = results(NaiveSampler(tiny_model, mini_tokenizer, max_length=256), requests)
    for a, b in zip(ours, naive, strict=True):
        assert a.value.ids == b.value.ids
        assert a.value.finish == b.value.finish == "length"
        np.testing.assert_allclose(a.value.logprobs, b.value.logprobs, atol=1e-4)
        np.testing.assert_allclose(a.value.watched, b.value.watched, atol=1e-4)
        assert a.ids == b.ids
        assert a.tokens == b.tokens == 40


def forcing_script(tokenizer):
    """Thinks, forces a phrase, thinks again, decides, rewinds, and asks something else on a scratch extension."""

    def script():
        first = yield Think(11, stop_ids=(3, 17), watch=(5,))
        yield Force(tokenizer.encode("\n\nLet me double check"))
        second = yield Think(9)
        mark = yield Mark()
        yield Force(tokenizer.encode("</think>\nIs the solution correct?"))
        decision = yield Choose((tokenizer.token_id(" Yes"), tokenizer.token_id(" No")))
        yield Rewind(mark)
        yield Force(tokenizer.encode("\n\nStep 1: The step is \\boxed{"))
        verdict = yield Choose((tokenizer.token_id("correct"), tokenizer.token_id("incorrect")))
        yield Rewind(mark)
        again = yield Choose((1, 2, 3, 4))
        third = yield Think(5)
        return first.ids, first.finish, second.ids, decision, verdict, again, third.ids

    return script


@pytest.mark.parametrize("cache", ["rows", "pages"])
def test_forced_phrases_decisions_and_rewinds_equal_the_naive_loop(tiny_model, mini_tokenizer, cache):
    requests = [Request(ids_of(mini_tokenizer, p), forcing_script(mini_tokenizer)) for p in PROMPTS]
    ours = results(Sampler(tiny_model, mini_tokenizer, slots=2, max_length=256, chunk=5, cache=cache), requests)
    naive = results(NaiveSampler(tiny_model, mini_tokenizer, max_length=256), requests)
    for a, b in zip(ours, naive, strict=True):
        for x, y in zip(a.value, b.value, strict=True):
            if isinstance(x, np.ndarray):
                np.testing.assert_allclose(x, y, atol=1e-4)
            else:
                assert x == y
        assert a.ids == b.ids


@pytest.fixture(scope="module")
def sampled_reference(tiny_model, mini_tokenizer):
    """Samples of eight requests, decoded one at a time."""
    requests = sampled_requests(mini_tokenizer)
    sampler = Sampler(tiny_model, mini_tokenizer, slots=1, max_length=256, chunk=32)
    return [results(sampler, [request])[0].value.ids for request in requests]


def sampled_requests(tokenizer):
    settings = [(1.0, 1.0, 0), (0.7, 0.9, 0), (1.3, 1.0, 20), (0.0, 1.0, 0)]
    return [
        Request(ids_of(tokenizer, PROMPTS[i % 4]), think(12 + 5 * i), *settings[i % 4], seed=2**40 + i % 5)
        for i in range(8)
    ]


@pytest.mark.parametrize(
    ("slots", "chunk", "max_length", "cache"),
    [(8, 32, 256, "rows"), (3, 7, 256, "rows"), (5, 1, 192, "rows"), (16, 16, 512, "rows"), (3, 7, 256, "pages")],
)
def test_a_sample_does_not_depend_on_mates_slots_chunks_or_room(
    tiny_model, mini_tokenizer, sampled_reference, slots, chunk, max_length, cache
):
    sampler = Sampler(tiny_model, mini_tokenizer, slots=slots, max_length=max_length, chunk=chunk, cache=cache)
    got = results(sampler, sampled_requests(mini_tokenizer))
    assert [r.value.ids for r in got] == sampled_reference


def test_a_sample_does_not_depend_on_the_order_of_requests(tiny_model, mini_tokenizer, sampled_reference):
    sampler = Sampler(tiny_model, mini_tokenizer, slots=3, max_length=256, chunk=8)
    got = results(sampler, sampled_requests(mini_tokenizer)[::-1])
    assert [r.value.ids for r in got][::-1] == sampled_reference


def test_larger_requests_start_first_and_change_nothing(tiny_model, mini_tokenizer):
    prompt = ids_of(mini_tokenizer, PROMPTS[1])
    sizes = [3, 3, 3, 3, 40]
    plain = [Request(prompt, think(n), 1.0, seed=n) for n in sizes]
    hinted = [Request(prompt, think(n), 1.0, seed=n, size_hint=n) for n in sizes]
    steps = []
    for requests in (plain, hinted):
        sampler = Sampler(tiny_model, mini_tokenizer, slots=2, max_length=256, chunk=1)
        steps.append(([r.value.ids for r in results(sampler, requests)], sampler.stats.decode_steps))
    assert steps[0][0] == steps[1][0]
    assert steps[1][1] == 40 < steps[0][1]


def test_seeds_matter_and_repeat(tiny_model, mini_tokenizer):
    prompt = ids_of(mini_tokenizer, PROMPTS[1])
    requests = [Request(prompt, think(), 1.0, seed=seed) for seed in (1, 2, 1 + 2**32, 1)]
    sampler = Sampler(tiny_model, mini_tokenizer, slots=4, max_length=256)
    a, b, c, d = (r.value.ids for r in results(sampler, requests))
    assert a == d
    assert len({tuple(x) for x in (a, b, c)}) == 3


def straddling_stops(tokenizer, ids):
    """Texts from the middle of one token of ``ids`` to the middle of a later one, found first where they lie."""
    ends = np.cumsum([len(tokenizer.token_bytes(i)) for i in ids])
    text = b"".join(tokenizer.token_bytes(i) for i in ids)
    for token in range(1, len(ids) - 3):
        begin, end = ends[token] - 1, ends[token + 3] - 1
        try:
            stop = text[begin:end].decode()
        except UnicodeDecodeError:  # the random model wrote half a character
            continue
        if len(stop) > 1 and text.find(stop.encode()) == begin:
            yield stop


def test_a_stop_text_may_straddle_tokens_and_chunks(tiny_model, mini_tokenizer):
    sampler = Sampler(tiny_model, mini_tokenizer, slots=4, max_length=256, chunk=3)
    naive = NaiveSampler(tiny_model, mini_tokenizer, max_length=256)
    tested = 0
    for prompt in PROMPTS:
        ids = ids_of(mini_tokenizer, prompt)
        free = results(sampler, [Request(ids, think(30))])[0].value
        for stop in itertools.islice(straddling_stops(mini_tokenizer, free.ids), 3):
            requests = [Request(ids, think(30, stop_texts=(stop, "never there")))]
            ours, expected = (results(s, requests)[0].value for s in (sampler, naive))
            assert (ours.finish, ours.stop) == ("stop_text", stop)
            assert ours.ids == expected.ids
            assert len(ours.logprobs) == len(ours.watched) == len(ours.ids)
            tested += 1
    assert tested >= 4


def test_of_several_stop_texts_the_first_complete_one_counts_whatever_the_chunk(tiny_model, mini_tokenizer):
    prompt = ids_of(mini_tokenizer, PROMPTS[1])
    samplers = [Sampler(tiny_model, mini_tokenizer, slots=1, max_length=256, chunk=chunk) for chunk in (1, 32)]
    free = results(samplers[0], [Request(prompt, think(30))])[0].value
    pieces = [mini_tokenizer.token_bytes(i) for i in free.ids]
    first = next(i for i in range(3, 20) if b"".join(pieces[i : i + 4]).isascii() and len(pieces[i + 1]) > 1)
    outer, inner = b"".join(pieces[first : first + 4]).decode(), pieces[first + 1].decode()
    assert free.text.index(inner) > free.text.index(outer)
    a, b = (results(s, [Request(prompt, think(30, stop_texts=(outer, inner)))])[0] for s in samplers)
    assert a.value.stop == b.value.stop == inner
    assert a.ids == b.ids == free.ids[: first + 1]
    assert a.tokens == b.tokens == first + 2  # not what the longer chunk sampled behind the stop


def test_a_stop_id_is_taken_back_even_where_it_is_also_the_padding_id(tiny_model, mini_tokenizer):
    assert mini_tokenizer.pad_id == mini_tokenizer.eos_id
    prompt = ids_of(mini_tokenizer, PROMPTS[1])
    sampler = Sampler(tiny_model, mini_tokenizer, slots=2, max_length=256, chunk=4)
    free = results(sampler, [Request(prompt, think(20))])[0].value
    stop = free.ids[10]
    first = free.ids.index(stop)
    # The end id inside a prompt is a token like any other.
    with_end = [*prompt, mini_tokenizer.eos_id, *prompt]
    requests = [Request(prompt, think(20, stop_ids=(stop,))), Request(with_end, think(20))]
    stopped, after_end = results(sampler, requests)
    assert stopped.value.ids == free.ids[:first]
    assert stopped.value.stop == stop
    assert after_end.value.ids == results(NaiveSampler(tiny_model, mini_tokenizer), requests[1:])[0].value.ids


def test_the_context_limit_keeps_the_reserve(tiny_model, mini_tokenizer):
    prompt = ids_of(mini_tokenizer, PROMPTS[1])
    tail = mini_tokenizer.encode("</think>\nIs the solution correct?")

    def script():
        thought = yield Think(10_000, reserve=len(tail))
        yield Force(tail)
        choice = yield Choose((1, 2))
        return thought, choice

    sampler = Sampler(tiny_model, mini_tokenizer, slots=2, max_length=64, chunk=16)
    result = results(sampler, [Request(prompt, script)])[0]
    thought, choice = result.value
    assert thought.finish == "context"
    assert len(prompt) + len(result.ids) == 64
    naive = results(NaiveSampler(tiny_model, mini_tokenizer, max_length=64), [Request(prompt, script)])[0]
    assert naive.ids == result.ids
    np.testing.assert_allclose(choice, naive.value[1], atol=1e-4)


def test_a_request_that_cannot_run_fails_alone(tiny_model, mini_tokenizer):
    good = ids_of(mini_tokenizer, PROMPTS[1])

    def too_much():
        yield Think(3)
        yield Force([1] * 100)

    def survives():
        try:
            yield Force([1] * 100)
        except RequestError:
            thought = yield Think(3)
            return thought.ids

    requests = [
        Request(good, think(5)),
        Request([1] * 64, think()),
        Request([], think()),
        Request(good, too_much),
        Request(good, survives),
        Request(good, think(), temperature=-1.0),
        Request(good, think(5)),
    ]
    requests += [
        Request([*good, mini_tokenizer.vocab_size], think()),
        Request(good, think(stop_texts=("",))),
        Request(good, think(stop_texts=("\ud800",))),
        Request(good, think(stop_ids=tuple(range(9)))),
        Request(good, lambda: (phase for phase in [Rewind(len(good) + 1)])),
        Request(good, lambda: (phase for phase in [Rewind(0)])),
    ]
    sampler = Sampler(tiny_model, mini_tokenizer, slots=2, max_length=64, chunk=4)
    got = dict(sampler.run(requests))
    assert sorted(got) == list(range(13))
    assert [i for i in range(13) if got[i].error] == [1, 2, 3, 5, 7, 8, 9, 10, 11, 12]
    assert "64 tokens, max_length is 64" in str(got[1].error)
    assert got[0].value.ids == got[6].value.ids
    assert len(got[4].value) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupt_leaves_the_sampler_usable(tiny_model, mini_tokenizer, error):
    prompt = ids_of(mini_tokenizer, PROMPTS[1])

    def fails():
        yield Think(6)
        raise error

    sampler = Sampler(tiny_model, mini_tokenizer, slots=2, max_length=128, chunk=4)
    before = results(sampler, [Request(prompt, think(9))])[0].value.ids
    with pytest.raises(error):
        list(sampler.run([Request(prompt, think(50)), Request(prompt, fails)]))
    assert results(sampler, [Request(prompt, think(9))])[0].value.ids == before


def test_a_prompt_that_never_reached_the_cache_is_not_taken_for_one_that_did(tiny_model, mini_tokenizer):
    prompt, other = (ids_of(mini_tokenizer, text) for text in PROMPTS[1:3])

    def fails():
        raise ZeroDivisionError
        yield

    sampler = Sampler(tiny_model, mini_tokenizer, slots=2, max_length=128, chunk=4)
    before = results(sampler, [Request(prompt, think(9))])[0].value.ids
    results(sampler, [Request(other, think(9)), Request(other, think(9))])  # the cache holds the other prompt now
    with pytest.raises(ZeroDivisionError):  # when the first prompt has its slot, but nothing has been prefilled
        list(sampler.run([Request(prompt, think(9)), Request(other[:-2], fails)]))
    assert results(sampler, [Request(prompt, think(9))])[0].value.ids == before


@pytest.mark.parametrize(
    ("cache", "calls"), [("rows", ("decode", "insert", "prefill")), ("pages", ("decode", "feed_pages"))]
)
def test_an_interrupt_inside_a_device_call_leaves_the_sampler_usable(
    tiny_model, mini_tokenizer, monkeypatch, cache, calls
):
    prompt = ids_of(mini_tokenizer, PROMPTS[1])
    sampler = Sampler(tiny_model, mini_tokenizer, slots=2, max_length=128, chunk=4, cache=cache)
    before = results(sampler, [Request(prompt, think(9))])[0].value.ids

    def interrupted(function):
        def call(*args):
            function(*args)  # the cache is donated, the result never arrives
            raise KeyboardInterrupt

        return call

    for name in calls:
        with monkeypatch.context() as patch:
            patch.setattr(sampler._device, name, interrupted(getattr(sampler._device, name)))
            with pytest.raises(KeyboardInterrupt):
                list(sampler.run([Request(prompt[:-1], think(9)), Request(prompt, think(9))]))
        assert results(sampler, [Request(prompt, think(9))])[0].value.ids == before


def test_leaving_the_iterator_early_frees_the_slots(tiny_model, mini_tokenizer):
    prompt = ids_of(mini_tokenizer, PROMPTS[1])
    sampler = Sampler(tiny_model, mini_tokenizer, slots=2, max_length=128, chunk=4)
    running = sampler.run([Request(prompt, think(3 + 20 * i)) for i in range(4)])
    assert next(running)[0] == 0
    with pytest.raises(RuntimeError, match="is running"):
        sampler.use(tiny_model)
    running.close()
    sampler.use(tiny_model)
    assert len(results(sampler, [Request(prompt, think(9))])) == 1


def test_equal_prompts_are_prefilled_once(tiny_model, mini_tokenizer):
    prompt = ids_of(mini_tokenizer, PROMPTS[3])
    sampler = Sampler(tiny_model, mini_tokenizer, slots=4, max_length=256, chunk=8)
    # Ten chains of one prompt on four slots: the late ones copy it from a row that still holds it.
    requests = [Request(prompt, think(4 + 3 * i), 1.0, seed=i) for i in range(10)]
    shared = [r.value.ids for r in results(sampler, requests)]
    assert sampler.stats.prefilled_tokens == len(prompt) - 1
    assert sampler.stats.shared_tokens == 9 * (len(prompt) - 1)
    fresh = Sampler(tiny_model, mini_tokenizer, slots=1, max_length=256, chunk=8)
    assert shared == [results(fresh, [request])[0].value.ids for request in requests]


@pytest.mark.slow
def test_the_cache_follows_the_longest_row_and_not_max_length(tiny_model, mini_tokenizer):
    prompt = ids_of(mini_tokenizer, PROMPTS[1])
    long = ids_of(mini_tokenizer, PROMPTS[3] * 4)
    sampler = Sampler(tiny_model, mini_tokenizer, slots=2, max_length=4096, chunk=8)
    results(sampler, [Request(prompt, think(9))])
    assert sampler._workers[0].store.cache.length == 128
    mixed = results(sampler, [Request(prompt, think(150)), Request(long, think(5))])
    assert sampler._workers[0].store.cache.length in (192, 256)
    results(sampler, [Request(prompt, think(9))])
    assert sampler._workers[0].store.cache.length == 128
    alone = Sampler(tiny_model, mini_tokenizer, slots=1, max_length=512, chunk=8)
    assert results(alone, [Request(prompt, think(150))])[0].value.ids == mixed[0].value.ids


def test_other_lengths_settings_and_seeds_compile_nothing(tiny_model, mini_tokenizer):
    sampler = Sampler(tiny_model, mini_tokenizer, slots=4, max_length=256, chunk=8)

    def batch(lengths, temperature, top_p, top_k, seed):
        return [
            Request([10 * seed + i] * n, think(20, (seed,), watch=(seed,)), temperature, top_p, top_k, seed)
            for i, n in enumerate(lengths)
        ]

    results(sampler, batch([2, 29, 12, 47], 0.0, 1.0, 0, 1))
    before = sampler.compilations
    results(sampler, batch([9, 21, 31, 40], 0.7, 0.9, 12, 2))
    results(sampler, batch([2, 29, 12, 47], 1.2, 1.0, 0, 3))
    assert sampler.compilations == before
    another = Sampler(tiny_model, mini_tokenizer, slots=4, max_length=256, chunk=8)
    results(another, batch([2, 29, 12, 47], 1.2, 1.0, 0, 4))
    assert another.compilations == before


def test_generate_returns_n_completions_a_prompt(tiny_model, mini_tokenizer):
    sampler = Sampler(tiny_model, mini_tokenizer, slots=4, max_length=256)
    got = sampler.generate(PROMPTS[:2], max_new_tokens=8, temperature=1.0, n=3, seed=5)
    assert [len(x) for x in got] == [3, 3]
    assert len({c.text for c in got[0]}) == 3
    again = sampler.generate(PROMPTS[1:2], max_new_tokens=8, temperature=1.0, n=3, seed=5)
    assert [c.ids for c in again[0]] == [c.ids for c in got[1]]
    text = got[0][0].text
    stopped = sampler.generate(PROMPTS[:1], max_new_tokens=8, temperature=1.0, seed=5, stop=text[2:5])
    assert text[2:5] not in stopped[0][0].text
    assert stopped[0][0].finish_reason == "stop"
    with pytest.raises(UserError, match="give a list"):
        sampler.generate("7")
    with pytest.raises(RequestError, match="prompt 1"):
        sampler.generate(["7", [1] * 300])


def test_settings_that_cannot_work_are_refused(tiny_model, mini_tokenizer):
    with pytest.raises(UserError, match="max_length 999999"):
        Sampler(tiny_model, mini_tokenizer, max_length=999_999)
    with pytest.raises(UserError, match="slots=0"):
        Sampler(tiny_model, mini_tokenizer, slots=0)
    with pytest.raises(UserError, match="slots is 99999999999, it may be 65,536 at most"):
        Sampler(tiny_model, mini_tokenizer, slots=99_999_999_999)
