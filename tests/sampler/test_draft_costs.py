"""What a wide step costs: measured once, kept, and turned into a choice."""

from __future__ import annotations

import json

import pytest

from support import tiny_model as tiny_models
from thinkprm_jax.sampler import Sampler, draft_costs, engine
from thinkprm_jax.sampler.draft_costs import NO_DRAFTS, choose_drafts, expected_gain, step_seconds


@pytest.fixture(scope="module")
def model(mini_tokenizer):
    return tiny_models.make_decoder(mini_tokenizer, layers=1)


def test_a_measurement_is_kept_and_taken_from_there(model, tmp_path, monkeypatch) -> None:
    path = tmp_path / "somewhere" / "draft_costs.json"
    first = step_seconds(model, 2, path)
    assert sorted(first) == [0, 3, 7]
    assert min(first.values()) >= 0
    monkeypatch.setattr(draft_costs, "_measure", lambda model, counts: pytest.fail("measured again"))
    again = step_seconds(model, 2, path)
    assert again == pytest.approx(first, abs=1e-6)


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', "{"])
def test_a_file_that_cannot_be_read_is_measured_anew(model, tmp_path, monkeypatch, content) -> None:
    path = tmp_path / "draft_costs.json"
    path.write_text(content)
    monkeypatch.setattr(draft_costs, "_measure", lambda model, counts: [0.25 * tokens for tokens in counts])
    assert step_seconds(model, 2, path) == {0: 0.5, 3: 2.0, 7: 4.0}
    [(name, row)] = [item for item in json.loads(path.read_text()).items() if item[0] != "x"]
    assert "2 rows" in name
    assert row == {"0": 0.5, "3": 2.0, "7": 4.0}


@pytest.mark.parametrize(
    ("rows", "seconds", "tokens"),
    [
        (1, {0: 1.0, 3: 1.05, 7: 1.1}, 7),
        (1, {0: 1.0, 3: 1.1, 7: 4.0}, 3),
        (1, {0: 1.0, 3: 3.0, 7: 6.0}, 0),
        (16, {0: 1.0, 3: 1.5, 7: 2.5}, 3),
        (16, {0: 1.0, 3: 1.9, 7: 2.2}, 0),
        (16, {0: 1.0, 3: 0.9, 7: 0.9}, 7),  # noise: never less than nothing
    ],
)
def test_the_drafts_that_pay(model, tmp_path, monkeypatch, rows, seconds, tokens) -> None:
    monkeypatch.setattr(draft_costs, "step_seconds", lambda model, rows, path: seconds)
    found = choose_drafts(model, rows, tmp_path / "none.json")
    assert found.tokens == tokens
    assert found.price == pytest.approx(max(seconds[tokens] - 1, 0) if tokens else 0)
    assert (found == NO_DRAFTS) == (tokens == 0)


def test_one_row_alone_gains_at_a_price_at_which_many_lose() -> None:
    assert expected_gain(7, 1.2, 1) > 1.2 > 1.05 > expected_gain(7, 1.2, 2)


def test_a_sampler_asks_once_for_each_number_of_rows_and_says_what_it_took(
    model, mini_tokenizer, monkeypatch
) -> None:
    asked = []

    def choose(model, rows):
        asked.append(rows)
        return NO_DRAFTS

    monkeypatch.setattr(engine, "choose_drafts", choose)
    monkeypatch.setattr(draft_costs, "DRAFT_WEIGHT_BYTES", 0)
    sampler = Sampler(model, mini_tokenizer, slots=2, max_length=64, chunk=4, drafts=None)
    for _ in range(2):
        sampler.generate(["7", "8"], max_new_tokens=3)
    assert asked == [2]
    assert sampler.drafts == {2: NO_DRAFTS}
    assert sampler.stats.wide_steps == 0


def test_a_small_model_is_not_even_measured(model, mini_tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(engine, "choose_drafts", lambda model, rows: pytest.fail("measured"))
    sampler = Sampler(model, mini_tokenizer, slots=2, max_length=64, chunk=4, drafts=None)
    sampler.generate(["7"], max_new_tokens=3)
    assert sampler.drafts == {2: NO_DRAFTS}
    assert sampler._workers[0].store.columns == 4


def test_processes_that_would_measure_apart_have_none(model, monkeypatch) -> None:
    monkeypatch.setattr("jax.process_count", lambda: 2)
    assert choose_drafts(model, 1) == NO_DRAFTS
