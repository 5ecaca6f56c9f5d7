"""The generator on a random model: what a step is, and that going on is the same as never having stopped."""

from __future__ import annotations

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.sampler import Sampler
from thinkprm_jax.search.engine import Continuation, Piece, Problem
from thinkprm_jax.search.generator import Generator, Prompts, ids_with
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

PROBLEM = Problem(0, "What is 3 + 4?")
SEPARATOR = "e"  # a text that the random model writes often


@pytest.fixture(scope="module")
def sampler(tiny_model, mini_tokenizer) -> Sampler:
    return Sampler(tiny_model, mini_tokenizer, slots=4, max_length=256, chunk=8, prefix_cache=2048, share_from=1)


def make(sampler: Sampler, temperature: float = 1.0, **settings) -> Generator:
    prompts = Prompts(sampler.tokenizer, "Be brief.")
    return Generator(sampler, prompts, temperature=temperature, **{"separator": SEPARATOR, **settings})


def ask(generator: Generator, *continuations: Continuation) -> list[Piece]:
    pieces = [generator.generate(continuation) for continuation in continuations]
    return [piece.result() for piece in pieces]


def continuation(
    prefix: tuple[int, ...] = (), one_step: bool = True, seed: int = 5, tokens: int = 60
) -> Continuation:
    return Continuation(PROBLEM, prefix, seed, tokens, one_step)


def test_a_step_ends_with_the_token_that_completes_the_separator(sampler: Sampler) -> None:
    (piece,) = ask(make(sampler), continuation())
    assert piece.finish == "step"
    assert piece.text == sampler.tokenizer.decode(piece.ids)
    assert SEPARATOR in sampler.tokenizer.decode(piece.ids[-1:])
    assert SEPARATOR not in sampler.tokenizer.decode(piece.ids[:-1])


def test_step_by_step_is_what_one_go_writes(sampler: Sampler) -> None:
    generator = make(sampler)
    (whole,) = ask(generator, continuation(one_step=False))
    ids: tuple[int, ...] = ()
    rounds = 0
    while len(ids) < len(whole.ids):
        (piece,) = ask(generator, continuation(ids, tokens=60 - len(ids)))
        ids += piece.ids
        rounds += 1
    assert ids == whole.ids
    assert rounds > 2


def test_no_token_is_processed_twice(sampler: Sampler) -> None:
    generator = make(sampler)
    before = sampler.stats.reprefilled_tokens
    first = ask(generator, *(continuation(seed=seed) for seed in range(12)))
    for round in range(1, 3):
        first = ask(
            generator,
            *(continuation(piece.ids, seed=100 * round + i) for i, piece in enumerate(first) for _ in range(1)),
        )
    assert sampler.stats.reprefilled_tokens == before


def test_tokens_are_counted_through_the_one_that_ends(sampler: Sampler) -> None:
    pieces = ask(make(sampler), *(continuation(seed=seed) for seed in range(6)))
    assert [piece.tokens for piece in pieces] == [len(piece.ids) + (piece.finish == "stop") for piece in pieces]


def test_the_device_stops_at_ids_that_hold_the_separator(mini_tokenizer: Tokenizer) -> None:
    ids = ids_with(mini_tokenizer, "ee")
    assert ids
    texts = [mini_tokenizer.decode([id]) for id in ids]
    assert all("ee" in text for text in texts)
    assert texts == sorted(texts, key=len)


def test_the_budget_ends_a_piece(sampler: Sampler) -> None:
    (piece,) = ask(make(sampler, separator="no such text"), continuation(tokens=7))
    assert (piece.finish, len(piece.ids), piece.tokens) == ("length", 7, 7)


def test_greedy_is_greedy_at_any_temperature(sampler: Sampler) -> None:
    wanted = ask(make(sampler, temperature=0.0), continuation(one_step=False))
    request = Continuation(PROBLEM, (), 9, 60, False, greedy=True)
    assert ask(make(sampler, temperature=1.0), request)[0].ids == wanted[0].ids


def test_a_stop_text_ends_the_solution_and_is_no_part_of_it(sampler: Sampler) -> None:
    (whole,) = ask(make(sampler), continuation(one_step=False))
    stop = whole.text[10:13]
    generator = make(sampler, stop=(stop,), separator="no such text")
    for one_step in (True, False):
        (piece,) = ask(generator, continuation(one_step=one_step))
        assert piece.finish == "stop"
        assert piece.text == whole.text[: whole.text.index(stop)]


@pytest.mark.parametrize("one_step", [True, False])
def test_a_stop_text_that_begins_in_the_step_before_is_found(sampler: Sampler, one_step: bool) -> None:
    (first,) = ask(make(sampler), continuation())
    (free,) = ask(make(sampler), continuation(first.ids, one_step=False))
    begin = len(first.text) - 1
    (piece,) = ask(make(sampler, stop=(free.text[begin : begin + 3],)), continuation(first.ids, one_step=one_step))
    assert (piece.finish, piece.text) == ("stop", first.text[:-1])


def test_blank_text_is_no_step(sampler: Sampler) -> None:
    """Whatever ends a step, a piece that could go on has words in it."""
    generator = make(sampler, separator=" ")
    pieces = ask(generator, *(continuation(seed=seed, tokens=100) for seed in range(24)))
    assert all(piece.text.strip() for piece in pieces if piece.finish == "step")


def test_a_solution_at_the_models_last_position_is_cut(sampler: Sampler) -> None:
    full = tuple([7] * 300)
    (piece,) = ask(make(sampler), continuation(full, tokens=5))
    assert (piece.ids, piece.finish, piece.error) == ((), "length", None)


def test_a_prompt_that_does_not_fit_is_said_of_this_piece_alone(sampler: Sampler) -> None:
    long = Continuation(Problem(1, "word " * 400), (), 1, 10, True)
    bad, good = ask(make(sampler), long, continuation())
    assert "max_length is 256" in str(bad.error)
    assert good.error is None


def test_the_prompt_is_the_chat(mini_tokenizer: Tokenizer) -> None:
    tokenizer = Tokenizer(mini_tokenizer._model.backend, mini_tokenizer._config, mini_tokenizer.chat_template)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROBLEM.text}]
    assert Prompts(tokenizer, "Be brief.")(PROBLEM.text) == tokenizer.encode_chat(turns)
    assert Prompts(tokenizer, None)(PROBLEM.text) == tokenizer.encode_chat(turns[1:])


def test_the_day_of_the_run_does_not_reach_the_prompt(mini_tokenizer: Tokenizer) -> None:
    template = (
        "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
        "Today Date: {{ date_string }}\n{% for message in messages %}{{ message['content'] }}{% endfor %}"
    )
    tokenizer = Tokenizer(mini_tokenizer._model.backend, mini_tokenizer._config, None)
    ids = Prompts(tokenizer, None, template)("x")
    assert tokenizer.decode(ids) == "Today Date: 26 Jul 2024\nx"


def test_a_model_without_chat_template_is_refused(mini_tokenizer: Tokenizer) -> None:
    tokenizer = Tokenizer(mini_tokenizer._model.backend, mini_tokenizer._config, None)
    with pytest.raises(UserError, match="custom_chat_template"):
        Prompts(tokenizer, None)
