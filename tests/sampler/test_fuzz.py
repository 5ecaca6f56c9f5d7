"""Random scripts: the engine against the naive sampler, and against itself with other slots, chunks and mates."""

from __future__ import annotations

import random

import numpy as np
import pytest

from support.naive_sampler import NaiveSampler
from thinkprm_jax.errors import RequestError
from thinkprm_jax.sampler import Choose, Force, Mark, Request, Rewind, Sampler, Think

MAX_LENGTH = 150  # more than the first bucket of the cache


def random_think(dice: random.Random, vocab: int, texts: list[str], ids: list[int]) -> Think:
    """Often with stops that earlier phases have written, so that they are met again after a rewind."""
    stop_texts = []
    for text in texts[-3:]:
        begin = dice.randrange(max(len(text), 1))
        stop = text[begin : begin + dice.randint(1, 9)]
        if stop.isascii() and stop and dice.random() < 0.5:
            stop_texts.append(stop)
    pool = ids if ids and dice.random() < 0.5 else range(vocab)
    return Think(
        max_tokens=dice.choice([0, 1, 2, 7, 7, 20, 20, 1000]),
        stop_ids=tuple(dice.choice(pool) for _ in range(dice.choice([0, 0, 2]))),
        stop_texts=tuple(stop_texts),
        watch=tuple(dice.randrange(vocab) for _ in range(dice.randint(0, 4))),
        reserve=dice.choice([0, 0, 5, 120]),
    )


def random_phase(kind: str, dice: random.Random, vocab: int, texts: list[str], ids: list[int]):
    if kind == "force":
        return Force([dice.randrange(vocab) for _ in range(dice.choice([0, 1, 2, 40]))])
    if kind == "choose":
        options = [tuple(dice.randrange(vocab) for _ in range(dice.choice([1, 1, 2]))) for _ in range(4)]
        return Choose(tuple(options[: dice.randint(1, 4)]))
    return Mark() if kind == "mark" else random_think(dice, vocab, texts, ids)


def random_script(seed: int, vocab: int, log: list):
    """A script of up to seven random phases that writes down each phase with its outcome."""

    def script():
        dice = random.Random(seed)
        marks, texts, ids = [(yield Mark())], [], []  # texts and ids that were thought so far
        for _ in range(dice.randint(1, 7)):
            kind = dice.choice(["think", "think", "again", "again", "force", "choose", "mark"])
            if kind == "again":
                marks = marks[: dice.randint(1, len(marks))]
                yield Rewind(marks[-1])
            phase = random_phase(kind, dice, vocab, texts, ids)
            try:
                outcome = yield phase
            except RequestError as error:
                outcome = type(error)
            log.append((phase, outcome))
            if kind == "mark":
                marks.append(outcome)
            elif kind in ("think", "again"):
                texts.append(outcome.text)
                ids += outcome.ids

    return script


def run(sampler, requests, vocab):
    """Per request: its log, and what its result says."""
    logs = [[] for _ in requests]
    given = [
        Request(prompt, random_script(seed, vocab, log), temperature, seed=2**64 - 1 - seed)
        for (prompt, seed, temperature), log in zip(requests, logs, strict=True)
    ]
    found = dict(sampler.run(given))
    return [(log, found[i].ids, found[i].tokens, str(found[i].error)) for i, log in enumerate(logs)]


def assert_same(a, b, where):
    assert a[1:] == b[1:], where
    for (phase, x), (other, y) in zip(a[0], b[0], strict=True):
        assert phase == other, where
        if isinstance(phase, Think):
            assert (x.ids, x.text, x.finish, x.stop) == (y.ids, y.text, y.finish, y.stop), (where, phase)
            np.testing.assert_allclose(x.logprobs, y.logprobs, atol=2e-4)
            np.testing.assert_allclose(x.watched, y.watched, atol=2e-4)
        elif isinstance(phase, Choose) and not isinstance(x, type):
            np.testing.assert_allclose(x, y, atol=2e-4)
        else:
            assert x == y, (where, phase)


def random_requests(dice: random.Random, vocab: int, temperatures: list[float]) -> list[tuple]:
    lengths = [1, 2, 12, 31, MAX_LENGTH]
    prompts = [[dice.randrange(vocab) for _ in range(dice.choice(lengths))] for _ in range(3)]
    return [
        (dice.choice(prompts), dice.randrange(10**6), dice.choice(temperatures)) for _ in range(dice.randint(1, 9))
    ]


@pytest.fixture(
    scope="module", params=[(0, "rows", None), (7, "rows", None), (7, "pages", None), (0, "pages", 320)]
)
def sampler(request, tiny_model, mini_tokenizer):
    """One for all trials: what earlier ones leave in its cache must not matter. The last has pages for a context
    and a little more, so that the others wait and are fed again."""
    drafts, cache, positions = request.param
    return Sampler(
        tiny_model, mini_tokenizer, slots=3, max_length=MAX_LENGTH, chunk=8, drafts=drafts, cache=cache,
        cache_positions=positions,
    )  # fmt: skip


@pytest.mark.slow
def test_random_scripts_equal_the_naive_loop(tiny_model, mini_tokenizer, sampler):
    naive = NaiveSampler(tiny_model, mini_tokenizer, max_length=MAX_LENGTH)
    vocab, stopped = mini_tokenizer.vocab_size, 0
    for trial in range(7):
        requests = random_requests(random.Random(trial), vocab, [0.0])
        ours, expected = (run(s, requests, vocab) for s in (sampler, naive))
        for i, (a, b) in enumerate(zip(ours, expected, strict=True)):
            assert_same(a, b, (trial, i))
            stopped += sum(isinstance(p, Think) and x.finish == "stop_text" for p, x in a[0])
    assert stopped >= 5


@pytest.mark.slow
def test_random_scripts_do_not_depend_on_slots_chunks_or_mates(tiny_model, mini_tokenizer, sampler):
    alone = Sampler(tiny_model, mini_tokenizer, slots=1, max_length=MAX_LENGTH, chunk=32)
    vocab = mini_tokenizer.vocab_size
    for trial in range(100, 108):
        requests = random_requests(random.Random(trial), vocab, [0.0, 0.7, 1.3])
        ours, expected = (run(s, requests, vocab) for s in (sampler, alone))
        for i, (a, b) in enumerate(zip(ours, expected, strict=True)):
            assert_same(a, b, (trial, i))
