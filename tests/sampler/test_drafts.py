"""Drafts: the same tokens with them as without, in fewer steps; what is looked up, and when it is tried."""

from __future__ import annotations

import random
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from support import tiny_model as tiny_models
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.cache import KVCache, settle
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.sampler import Choose, Force, Mark, Request, Rewind, Sampler, Think
from thinkprm_jax.sampler.cache_row import CacheRow
from thinkprm_jax.sampler.drafts import LONGEST_MATCH, Drafts, clip, learn, look_up, worth_it
from thinkprm_jax.sampler.job import Job
from thinkprm_jax.sampler.scheduler import Siblings, _lay_out

SETTINGS = {"slots": 3, "max_length": 100, "chunk": 8}  # one length of the cache, so one program
TEXT = "Step 1: 12 + 7 = 19. The step is correct. Step 2: 12 + 7 = 19. The step is correct. Step 3: "


@pytest.fixture(scope="module")
def model(mini_tokenizer) -> Decoder:
    """One layer, so that two decode programs compile in little more than the time of one."""
    return tiny_models.make_decoder(mini_tokenizer, seed=5, layers=1)


@pytest.fixture(scope="module")
def plain(model, mini_tokenizer) -> Sampler:
    return Sampler(model, mini_tokenizer, drafts=0, **SETTINGS)


@pytest.fixture(scope="module")
def drafting(model, mini_tokenizer) -> Sampler:
    return Sampler(model, mini_tokenizer, drafts=7, cache="rows", **SETTINGS)


@pytest.fixture(scope="module")
def drafting_in_pages(model, mini_tokenizer) -> Sampler:
    return Sampler(model, mini_tokenizer, drafts=7, cache="pages", **SETTINGS)


def results(sampler: Sampler, requests: list[Request]) -> list:
    found = dict(sampler.run(requests))
    return [found[i] for i in range(len(requests))]


def assert_equal(ours, expected) -> None:
    """Two results whose values are lists of outcomes."""
    assert (ours.ids, ours.tokens, str(ours.error)) == (expected.ids, expected.tokens, str(expected.error))
    for a, b in zip(ours.value, expected.value, strict=True):
        if isinstance(a, np.ndarray):
            np.testing.assert_allclose(a, b, atol=1e-4)
            continue
        assert (a.ids, a.text, a.finish, a.stop) == (b.ids, b.text, b.finish, b.stop)
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
        np.testing.assert_allclose(a.watched, b.watched, atol=1e-4)


def every_phase(tokenizer, budget: int, stop_ids=(), stop_texts=()):
    phrase = tokenizer.encode("</think>\nIs the solution correct?")

    def script():
        start = yield Mark()
        first = yield Think(budget, stop_ids, stop_texts, watch=(5, 6), reserve=20)
        yield Force(phrase)
        asked = yield Choose((3, (4, 5), 6))
        yield Rewind(start)
        yield Force(phrase[:3])
        second = yield Think(17, stop_ids, watch=(7,), reserve=4)
        return [first, asked, second]

    return script


def some_requests(tokenizer, count: int = 9) -> list[Request]:
    """Siblings and others, greedy and sampled, with budgets that end in the middle of a wide step."""
    ids = tokenizer.encode(TEXT)
    return [
        Request(
            ids[: len(ids) - i // 3],
            every_phase(tokenizer, 13 + 5 * i, (9,) if i % 2 else (), ("7",) if i % 4 == 1 else ()),
            (0.0, 0.6, 1.2)[i % 3],
            top_p=0.9 if i % 4 == 2 else 1.0,
            top_k=5 if i % 5 == 3 else 0,
            seed=i // 2,
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("drafts_in", ["drafting", "drafting_in_pages"])
def test_tokens_log_probabilities_and_stops_are_those_without_drafts(
    plain, drafts_in, mini_tokenizer, request
) -> None:
    drafting = request.getfixturevalue(drafts_in)
    requests = some_requests(mini_tokenizer)
    before = drafting.stats.accepted_tokens
    for ours, expected in zip(results(drafting, requests), results(plain, requests), strict=True):
        assert expected.error is None
        assert_equal(ours, expected)
    assert drafting.stats.accepted_tokens > before


def test_a_chain_that_was_written_before_is_quoted(plain, drafting, mini_tokenizer) -> None:
    """Each token of the second one is in the first: eight a step, but for where it begins."""
    request = Request(mini_tokenizer.encode(TEXT)[:20], lambda: think(64), 1.0, seed=7)
    drafting.release(), drafting.use(nnx.merge(drafting._weights.graph, plain._weights._state))
    [first] = results(drafting, [request])
    before = drafting.stats.decode_steps
    [second] = results(drafting, [request])
    assert second.value.ids == first.value.ids == results(plain, [request])[0].value.ids
    assert drafting.stats.decode_steps - before <= 64 // 8 + 6


def think(budget: int):
    return (yield Think(budget))


def test_a_forced_phrase_of_twelve_tokens_is_two_steps(drafting, plain) -> None:
    def script():
        yield Force(range(20, 32))
        return (yield Choose((3, 4)))

    request = Request([40, 41], script)
    [fed], [expected] = results(drafting, [request]), results(plain, [request])
    np.testing.assert_allclose(fed.value, expected.value, atol=1e-4)
    before = drafting.stats.decode_steps
    results(drafting, [Request([50, 51], script)])
    assert drafting.stats.decode_steps - before == 2  # its prompt's last token and twelve


def test_a_row_at_the_end_of_its_room_takes_no_token_too_many(drafting, plain) -> None:
    """All of max_length, reserve and budget, where every next token has a draft."""

    def repeats(reserve: int, budget: int):
        def script():
            return [(yield Think(budget, reserve=reserve))]

        return script

    requests = [Request([7] * n, repeats(reserve, budget)) for n, reserve, budget in
                [(95, 0, 99), (60, 30, 99), (80, 3, 20), (30, 0, 1), (30, 0, 2), (30, 0, 9)]]  # fmt: skip
    for ours, expected in zip(results(drafting, requests), results(plain, requests), strict=True):
        assert_equal(ours, expected)


def test_what_is_cancelled_leaves_the_others_as_they_are(drafting, plain, mini_tokenizer) -> None:
    requests = some_requests(mini_tokenizer, 4)
    handles = [drafting.submit(request) for request in requests]
    drafting.step()
    handles[1].cancel()
    expected = results(plain, requests)
    for i in (0, 2, 3):
        assert_equal(handles[i].result(), expected[i])


@pytest.mark.slow
@pytest.mark.parametrize(("slots", "chunk", "drafts"), [(1, 32, 3), (8, 1, 7), (2, 5, 15), (4, 8, 1)])
def test_neither_slots_nor_chunks_nor_lengths_of_drafts_matter(
    plain, model, mini_tokenizer, slots, chunk, drafts
) -> None:
    requests = some_requests(mini_tokenizer, 12)
    other = Sampler(model, mini_tokenizer, slots=slots, max_length=100, chunk=chunk, drafts=drafts)
    for ours, expected in zip(results(other, requests), results(plain, requests), strict=True):
        assert_equal(ours, expected)


@pytest.mark.slow
def test_bfloat16_rows_go_the_same_way(model, mini_tokenizer) -> None:
    """The cache in bit patterns and the order of its columns; greedy tokens where the margin is clear."""
    half = Decoder(model.config, rngs=nnx.Rngs(5), param_dtype=jnp.bfloat16, dtype=jnp.bfloat16)
    ids = mini_tokenizer.encode(TEXT)
    requests = [Request(ids[:n], lambda: think(30)) for n in (20, 30, 41)]
    found = [results(Sampler(half, mini_tokenizer, drafts=drafts, **SETTINGS), requests) for drafts in (0, 7)]
    for ours, expected in zip(*found, strict=True):
        assert ours.value.ids[:3] == expected.value.ids[:3]
        np.testing.assert_allclose(ours.value.logprobs[:3], expected.value.logprobs[:3], atol=0.1)


# What is looked up


def slow_look_up(texts: list[int], others: int, known: int, most: int) -> list[int]:
    """The same, the obvious way."""
    end = others + known - 1
    own = texts[others : end + 1]
    best: tuple[int, int] = (0, 0)
    for i in range(end):
        if texts[i + 1] < 0:
            continue
        length = 0
        while length < min(LONGEST_MATCH, len(own), i + 1) and texts[i - length] == own[-1 - length]:
            length += 1
        best = max(best, (length, i))
    if not best[0]:
        return []
    draft = []
    for token in texts[best[1] + 1 : min(best[1] + 1 + most, end + 1)]:
        if token < 0:
            break
        draft.append(token)
    return draft


def test_look_up_finds_the_longest_and_then_the_last_match() -> None:
    dice = random.Random(0)
    others, own, most, rows = 24, 40, 5, 64
    texts = np.full((rows, others + own), -1, np.int32)
    known = np.asarray([dice.choice([1, 2, 3, 9, 25, 39, 40]) for _ in range(rows)], np.int32)
    for row in range(rows):
        letters = dice.choice([2, 3, 6])
        chains = [np.asarray(dice.choices(range(letters), k=n)) for n in dice.choices([0, 1, 9, 40], k=2)]
        _lay_out(texts[row, :others], chains)
        texts[row, others : others + known[row]] = [dice.randrange(letters) for _ in range(known[row])]
    found = jax.jit(look_up, static_argnums=(1, 3))(texts, others, known, most)
    for row in range(rows):
        draft = np.asarray(found.tokens)[row, : int(found.count[row])].tolist()
        assert draft == slow_look_up(texts[row].tolist(), others, int(known[row]), most), row
    assert 10 < int(jnp.sum(found.count > 0)) < rows
    assert bool(jnp.all((found.expected > 0) == (found.count > 0)))


def test_texts_of_siblings_are_those_of_the_same_prompt() -> None:
    def chain(number: int, prompt: list[int], *written: int) -> Job:
        row = CacheRow(number)
        job = Job(SimpleNamespace(prompt=prompt), row, think(1), None, None)
        row.occupy([*prompt, *written], 0)
        return job

    siblings = Siblings()
    siblings.add(chain(0, [1, 2], 10, 11, 12))
    siblings.add(chain(0, [3], 20))
    texts = siblings.texts([chain(0, [1, 2], 13), chain(2, [1, 2], 14, 15), chain(1, [3])], 4, 9)
    assert texts.shape == (4, 2 * 9 + 16)
    assert texts[0, :12].tolist() == [-1, -1, 10, 11, 12, -1, 14, 15, -1, 1, 2, 13]
    assert texts[2, :13].tolist() == [-1, -1, -1, 10, 11, 12, -1, 13, -1, 1, 2, 14, 15]
    assert texts[1, :10].tolist() == [-1] * 7 + [20, -1, 3]
    assert (texts[3] == -1).all()
    for number in range(2 * Siblings.PROMPTS):
        siblings.add(chain(0, [number, number], number))
    assert len(siblings._ended) == Siblings.PROMPTS


def test_a_wide_step_is_taken_where_it_gains_more_than_it_costs() -> None:
    drafts = Drafts(jnp.zeros((2, 3), jnp.int32), jnp.asarray([3, 0]), jnp.asarray([2.0, 0.0]))
    no, one = jnp.asarray([0, 0]), jnp.asarray([1.0, 1.0])
    both = jnp.asarray([True, True])

    def says(given=no, trust=one, active=both, price=0.9) -> bool:
        return bool(worth_it(drafts, given, trust, active, jnp.float32(price)))

    assert says()
    assert not says(price=1.1)  # two rows pay for what one gains
    assert says(price=1.1, active=jnp.asarray([True, False]))
    assert not says(trust=jnp.asarray([0.4, 1.0]))
    assert not says(active=jnp.asarray([False, True]))
    assert says(price=3.0, given=jnp.asarray([0, 7]))
    assert clip(drafts, jnp.asarray([1, -4])).count.tolist() == [1, 0]


def test_a_row_whose_drafts_fail_stops_drafting_for_a_while() -> None:
    drafts = Drafts(jnp.zeros((2, 3), jnp.int32), jnp.asarray([3, 3]), jnp.asarray([2.0, 2.0]))
    trust = jnp.ones(2)
    for _ in range(10):
        trust = learn(trust, drafts, jnp.asarray([True, True]), jnp.asarray([0, 3]))
    assert trust[0] < 0.25
    assert 1.3 < trust[1] <= 1.5
    for _ in range(400):
        trust = learn(trust, drafts, jnp.asarray([False, False]), jnp.asarray([0, 0]))
    np.testing.assert_allclose(trust, 1.0, atol=0.15)


def test_settle_takes_the_columns_of_each_row_in_its_order() -> None:
    length, columns = 6, 4
    keys = np.arange(2 * (length + columns), dtype=np.float32).reshape(2, 1, -1, 1)
    cache = KVCache([jnp.asarray(keys)], [jnp.asarray(-keys)], columns)
    order = jnp.asarray([[1, 3, 0, 2], [0, 1, 2, 3]])
    moved = settle(cache, jnp.asarray([2, 1]), jnp.asarray([2, 0]), order)
    assert moved.keys[0][0, 0, :length, 0].tolist() == [0, 1, 7, 9, 4, 5]
    assert moved.values[0][1, 0, :length, 0].tolist() == [-10, -11, -12, -13, -14, -15]


@pytest.mark.parametrize("tokens", [-1, 16])
def test_a_setting_that_cannot_work_is_refused(model, mini_tokenizer, tokens) -> None:
    with pytest.raises(UserError, match=r"drafts is -?\d+, it must be a number of tokens from 0 \(none\) to 15"):
        Sampler(model, mini_tokenizer, drafts=tokens, **SETTINGS)
