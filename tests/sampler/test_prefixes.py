"""The tree of stored beginnings and the plan of an admission: host code, no model."""

from __future__ import annotations

import random

import numpy as np
import pytest

from thinkprm_jax.sampler import prefix_tree
from thinkprm_jax.sampler.cache_row import Beginnings, CacheRow
from thinkprm_jax.sampler.prefill_plan import SHORT_REST, plan
from thinkprm_jax.sampler.prefix_tree import BLOCK, PrefixTree, common_length


def brute_common(a, b):
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


def random_tokens(dice: random.Random, pool: list[list[int]]) -> list[int]:
    """Often the beginning of an earlier sequence, gone on from."""
    start = dice.choice(pool) if pool and dice.random() < 0.8 else []
    return start[: dice.randint(0, len(start))] + [dice.randrange(3) for _ in range(dice.randint(1, 50))]


def test_common_length_equals_counting():
    dice = random.Random(0)
    pool: list[list[int]] = []
    for _ in range(300):
        pool.append(random_tokens(dice, pool))
        a, b = dice.choice(pool), dice.choice(pool)
        assert common_length(a, b) == brute_common(a, b)


def test_a_tree_with_room_finds_the_longest_common_beginning_to_the_token():
    dice = random.Random(1)
    tree = PrefixTree(10_000)
    stored: list[list[int]] = []
    for _ in range(200):
        asked = random_tokens(dice, stored)
        length, blocks = tree.match(asked)
        assert length == max((brute_common(asked, tokens) for tokens in stored), default=0)
        assert len(blocks) == -(-length // BLOCK)
        tree.add(asked)
        stored.append(asked)
    assert tree.evicted == 0


@pytest.mark.parametrize("blocks", [1, 3, 20])
def test_what_a_full_tree_finds_is_what_was_written_there(blocks):
    dice = random.Random(blocks)
    tree, memory = PrefixTree(blocks), {}
    stored: list[list[int]] = []
    found = 0
    for _ in range(300):
        tokens = random_tokens(dice, stored[-6:])
        for block, i in tree.add(tokens):
            assert 0 <= block < blocks
            memory[block] = tokens[i * BLOCK : (i + 1) * BLOCK]
        stored.append(tokens)
        asked = random_tokens(dice, stored[-6:])
        length, places = tree.match(asked)
        assert [token for block in places for token in memory[block]][:length] == asked[:length]
        assert len(tree) <= blocks
        found += length
    assert found > 0
    assert tree.evicted > 0


def test_a_beginning_is_stored_once_and_an_end_grows_in_place():
    tree = PrefixTree(100)
    first = list(range(2 * BLOCK + 5))
    assert len(tree.add(first)) == 3
    assert tree.add(first) == []
    assert [i for _, i in tree.add([*first, 7, 7])] == [2]
    assert len(tree) == 3
    assert [i for _, i in tree.add([*first, 8])] == [2]  # leaves the other inside a block: one of its own
    assert len(tree) == 4


def test_the_one_unused_for_longest_goes_and_a_beginning_stays_while_something_stands_on_it():
    tree = PrefixTree(4)
    shared = [1] * BLOCK
    tree.add([*shared, 2])
    tree.add([*shared, 3])
    tree.add([4])
    tree.match([*shared, 2])
    tree.add([5])  # takes the place of the end with 3
    assert tree.match([*shared, 3])[0] == BLOCK
    assert tree.match([*shared, 2])[0] == BLOCK + 1
    assert tree.evicted == 1


def occupied(prompt: list[int], kept: int = 0) -> CacheRow:
    row = CacheRow()
    row.occupy(prompt, kept)
    return row


def held(tokens: list[int]) -> CacheRow:
    return CacheRow(context=tokens, fed=len(tokens))


def test_a_beginning_that_new_prompts_share_is_processed_for_one_of_them():
    head = [1] * 100
    rows = [occupied([*head, *[i] * 40, 0]) for i in (2, 3, 4)]
    works = plan(rows, rows, None, share_from=64)
    assert [(w.known, w.goal, w.stage) for w in works] == [(0, 140, 0), (100, 140, 1), (100, 140, 1)]
    assert works[1].source is works[2].source is works[0]


def test_a_prompt_that_begins_another_is_copied_from_it():
    rows = [occupied([1] * 20 + [9]), occupied([1] * 90)]
    works = plan(rows, rows, None, share_from=64)
    assert [(len(w.tokens), w.known, w.goal, w.stage) for w in works] == [(89, 0, 89, 0), (20, 20, 20, 1)]


def test_a_short_beginning_is_shared_only_when_asked_for():
    rows = [occupied([*[1] * 30, *[i] * 40]) for i in (2, 3)]
    assert [w.known for w in plan(rows, rows, None, share_from=64)] == [0, 0]
    assert [w.known for w in plan(rows, rows, None, share_from=1)] == [0, 30]


def test_the_longer_of_row_and_prefix_cache_is_the_source():
    tree = PrefixTree(100)
    tree.add([1] * 120)
    row, new = held([1] * 80), occupied([1] * 200)
    (work,) = plan([new], [row, new], tree, share_from=64)
    assert isinstance(work.source, list)
    assert work.known == 120
    longer = held([1] * 150)
    (work,) = plan([new], [row, longer, new], tree, share_from=64)
    assert work.source is longer


def test_a_short_rest_is_left_to_the_decode_loop_unless_others_need_it():
    row = held([1] * 100)
    alone = occupied([1] * 100 + [2] * SHORT_REST + [0])
    (work,) = plan([alone], [row, alone], None, share_from=64)
    assert work.goal == 100
    twins = [occupied(list(alone.context)) for _ in range(2)]
    (work,) = plan(twins, [row, *twins], None, share_from=64)
    assert work.goal == 100 + SHORT_REST
    cousins = [occupied([1] * 100 + [2] * 8 + [i] * 4 + [0]) for i in (3, 4)]
    works = plan(cousins, [row, *cousins], None, share_from=1)
    assert [(w.known, w.goal) for w in works] == [(100, 112), (108, 108)]


def test_a_sequence_among_many_is_found_by_a_few_comparisons(monkeypatch):
    """Of prompts of one template each has a block of its own behind a common one: a node with 500 children."""
    tree, compared = PrefixTree(2000), []
    prompts = [[7] * 20 + [(i * 37) % 1009, i] * 10 for i in range(500)]
    for prompt in prompts:
        tree.add(prompt)
    count = prefix_tree.common_length
    monkeypatch.setattr(prefix_tree, "common_length", lambda a, b: compared.append(1) or count(a, b))
    assert [tree.match(prompt)[0] for prompt in prompts] == [40] * 500
    assert len(compared) <= 500 * 2 * 3  # two a block


def test_a_prompt_is_looked_up_in_all_rows_as_one_by_one():
    dice = np.random.default_rng(0)
    rows = [held(dice.integers(0, 2, dice.integers(0, 200)).tolist()) for _ in range(40)]
    rows += [held([*rows[3].context, 5]), held(rows[3].context[:150] + [1] * 90)]
    for row in rows[::3]:
        row.fed = row.fed // 2
    beginnings = Beginnings(rows)
    for prompt in [[*row.context, 1] for row in rows] + [[], [3], [1] * 500]:
        expected = [min(common_length(row.context, prompt), row.fed) for row in rows]
        assert beginnings.common(np.asarray(prompt, np.int32)).tolist() == expected
