"""A seed is a whole number of 32 bits, by every door; none of them is another one under another name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from thinkprm_jax.arithmetic.task import ArithmeticSource
from thinkprm_jax.collect.recipe import CollectionSource, CollectRecipe, Teacher
from thinkprm_jax.data.batches import epoch_order
from thinkprm_jax.errors import RequestError
from thinkprm_jax.evaluation.tasks.arithmetic import arithmetic_task
from thinkprm_jax.sampler.job import Limits, check_request
from thinkprm_jax.sampler.request import Request
from thinkprm_jax.search.recipe import SearchRecipe
from thinkprm_jax.seeds import MOST_SEED, check_seed
from thinkprm_jax.training.config import DataConfig, DataSource, ModelSource, TrainRecipe
from thinkprm_jax.verifier.judge import JudgeSettings
from thinkprm_jax.verifier.thinkprm import ThinkPRMSettings

ARITHMETIC = ArithmeticSource(examples=1)


def train(seed: Any) -> TrainRecipe:
    data = DataConfig(DataSource(arithmetic=ARITHMETIC), rows=1)
    return TrainRecipe("runs/x", ModelSource(pretrained="mini"), data, steps=1, seed=seed)


def collect(seed: Any) -> CollectRecipe:
    return CollectRecipe("runs/x", CollectionSource(arithmetic=ARITHMETIC), Teacher("mini"), seed=seed)


DOORS: dict[str, Callable[[Any], Any]] = {
    "train": train,
    "arithmetic data": lambda seed: ArithmeticSource(examples=1, seed=seed),
    "collect": collect,
    "search": lambda seed: SearchRecipe(seed=seed),
    "search, chains": lambda seed: SearchRecipe(prm_seed=seed),
    "search, data": lambda seed: SearchRecipe(dataset_seed=seed),
    "ThinkPRM": lambda seed: ThinkPRMSettings(seed=seed),
    "judge": lambda seed: JudgeSettings(seed=seed),
    "evaluate": lambda seed: arithmetic_task(seed, "test", 1),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("seed", [-1, 2**32, 2**32 + 5, 2**64, 1.5, True])
def test_what_is_no_seed_is_refused_by_every_door(door: str, seed: Any) -> None:
    with pytest.raises(ValueError, match=r"seed is .*, it must be a whole number"):
        DOORS[door](seed)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("seed", [0, MOST_SEED])
def test_the_first_and_the_last_seed_are_taken(door: str, seed: int) -> None:
    DOORS[door](seed)


def test_a_seed_of_numpy_is_one() -> None:
    check_seed(np.uint32(7))


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5])
def test_a_request_with_a_seed_that_another_one_would_share_fails_alone(seed: Any) -> None:
    check_request(Request([1], lambda: iter(()), seed=2**64 - 1), Limits(8, 9))
    with pytest.raises(RequestError, match="it must be a whole number from 0 to"):
        check_request(Request([1], lambda: iter(()), seed=seed), Limits(8, 9))


def test_no_two_seeds_share_the_order_of_an_epoch() -> None:
    seeds = [0, 1, 5, 2**16, 2**31, MOST_SEED]
    orders = {tuple(epoch_order(40, seed, epoch, True)) for seed, epoch in itertools.product(seeds, range(6))}
    assert len(orders) == 36


def test_the_orders_of_earlier_versions_stay() -> None:
    assert list(epoch_order(8, 5, 1, True)) == [4, 2, 5, 0, 7, 6, 3, 1]


def test_no_two_seeds_share_a_key() -> None:
    keys = {tuple(jax.random.key_data(jax.random.key(seed)).tolist()) for seed in (0, 1, 2**31, MOST_SEED)}
    assert len(keys) == 4
