"""What is counted of chains, and when a model is said to be no verifier."""

from __future__ import annotations

import pytest

from thinkprm_jax.records import ChainRecord, VerdictRecord
from thinkprm_jax.records.soundness import ChainCounts


def chain(labels, asked=None, score=0.9, finish="stop", **others) -> ChainRecord:
    asked = tuple(asked) if asked is not None else (False,) * len(labels)
    return ChainRecord("text", score, tuple(labels), tuple(map(float, labels)), asked, finish, **others)


def counts(*chains: ChainRecord) -> ChainCounts:
    return ChainCounts.of([VerdictRecord(0.5, (0.5,), (1,), chains=(one,)) for one in chains])


def test_a_chain_that_judges_everything_leaves_nothing_to_say() -> None:
    found = counts(chain((1, 1, 1)), chain((1, 0, 0), score=0.1))
    assert (found.chains, found.steps, found.forced) == (2, 5, 0)  # behind an error nothing is judged
    assert found.lines == []
    assert not found.is_no_verifier


@pytest.mark.parametrize(
    ("one", "remarks"),
    [
        (chain((1, 1), (False, True)), ["1 of 2 step verdicts asked for"]),
        (chain((0, 0), (True, False), 0.4549, "length"), ["1 of 1 step verdicts asked for", "cut"]),
        (chain((1, 1), finish="context"), ["cut"]),
        (chain((), score=0.2), []),
        (chain((1, 1), score=0.3), ["contradictory"]),
        (chain((1, 0), score=0.9999), ["contradictory"]),
        (chain((), (), None, label=None, forced=False), ["unreadable"]),
        (chain((), (), 0.7, label=None, forced=True), ["unreadable"]),
        (chain((), (), 0.7, label=1, forced=False), []),
    ],
)
def test_what_is_said_of_one_chain(one, remarks) -> None:
    assert counts(one).remarks == remarks


def test_most_chains_decide_whether_it_is_a_verifier() -> None:
    good, cut = chain((1, 1)), chain((1, 1), (True, True), finish="length")
    assert not counts(good, cut).is_no_verifier
    assert counts(good, cut, cut).is_no_verifier
    assert "2 of 3 chains were cut" in counts(good, cut, cut).lines[-1]
    assert "probably no verifier" in counts(cut).lines[-1]
    assert not ChainCounts().is_no_verifier


def test_counts_add_up() -> None:
    one, other = chain((1, 1), (False, True)), chain((1,), finish="length")
    assert counts(one, other) == counts(one) + counts(other)
    assert counts(one, other).lines[0] == "of 2 chains: 1 of 3 step verdicts asked for, 1 cut"
