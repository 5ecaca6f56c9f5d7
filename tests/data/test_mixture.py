"""Mixtures: shares, passes, positions, and what a recipe may ask of them."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import yaml

from support.tiny_training import RECIPE
from thinkprm_jax.arithmetic.source import ArithmeticChains
from thinkprm_jax.data.batches import BatchState, TokenisedExample, batches, plans
from thinkprm_jax.data.chains import LabelledChain
from thinkprm_jax.data.mixture import BLOCK, MixedDataset
from thinkprm_jax.errors import UserError
from thinkprm_jax.recipe import load_recipe
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.training import setup
from thinkprm_jax.training.config import TrainRecipe


class Part:
    """Examples of one length, whose ids say which they are; none where the length is 0."""

    unusable = 0

    def __init__(self, name: int, size: int, length: int = 4) -> None:
        self.name, self.size, self._length, self.fingerprint = name, size, length, f"{name} {size}"

    def __len__(self) -> int:
        return self.size

    def length(self, index: int) -> int | None:
        return self._length or None

    def targets(self, index: int) -> int:
        return self._length

    def __getitem__(self, index: int) -> TokenisedExample | None:
        return TokenisedExample(np.array([self.name, index, 0, 0, 0], np.int32), np.ones(5, np.float32))


def mixed(seed: int = 0, shuffle: bool = True) -> MixedDataset:
    return MixedDataset([Part(1, 100), Part(2, 7), Part(3, 5000)], [6, 1, 3], seed, [shuffle] * 3)


def test_each_part_has_its_share_and_every_pass_has_every_example_once() -> None:
    dataset = mixed()
    read = [dataset.locate(index) for index in range(3 * BLOCK)]
    for blocks in (1, 2, 3):
        shares = Counter(part for part, _ in read[: blocks * BLOCK])
        assert [round(shares[part] / (blocks * BLOCK), 3) for part in range(3)] == [0.6, 0.1, 0.3]
    for part, size in enumerate((100, 7, 5000)):
        mine = [within for found, within in read if found == part]
        passes = [mine[begin : begin + size] for begin in range(0, len(mine) - size + 1, size)]
        assert all(sorted(passed) == list(range(size)) for passed in passes)
        assert len(passes) == 1 or passes[0] != passes[1]  # a new order each time


def test_an_example_follows_from_its_index_and_the_seed() -> None:
    first, second = mixed(), mixed()
    far = [5 * BLOCK + 3, 7, 2 * BLOCK, 10**9]
    assert [first.locate(index) for index in far] == [second.locate(index) for index in reversed(far)][::-1]
    assert [mixed(1).locate(index) for index in range(50)] != [first.locate(index) for index in range(50)]
    ordered = [within for part, within in map(mixed(shuffle=False).locate, range(500)) if part == 0]
    assert ordered[:120] == [*range(100), *range(20)]


def test_a_stream_goes_on_exactly() -> None:
    def stream(state: BatchState | None = None) -> list:
        found = batches(mixed(), [4], lambda bucket: 8, shuffle=False, state=state)
        return [(batch.tokens.tolist(), position) for batch, position in islice(found, 40)]

    whole = stream()
    assert stream(BatchState.from_json(whole[24][1]))[:15] == whole[25:]


def test_what_is_no_mixture_is_refused() -> None:
    with pytest.raises(UserError, match=r"a weight below 1 / 8192 of all is no share"):
        MixedDataset([Part(1, 5), Part(2, 5)], [1e6, 1.0], 0, [True, True])
    dataset = MixedDataset([Part(1, 5, 0), Part(2, 5, 0)], [1.0, 1.0], 0, [True, True])
    with pytest.raises(UserError, match=r"the training data: no example fits into a bucket"):
        next(plans(dataset, [4], lambda bucket: 2, shuffle=False))


def written(folder: Path, train: object, **changes: object) -> TrainRecipe:
    path = folder / "r.yaml"
    data = {**RECIPE["data"], "train": train}
    path.write_text(yaml.safe_dump({**RECIPE, "output": "x", "data": data, **changes}), encoding="utf-8")
    return load_recipe(TrainRecipe, path)


def test_a_recipe_mixes_files_with_the_synthetic_task(tmp_path: Path, mini_tokenizer: Tokenizer) -> None:
    draw = ArithmeticChains(3, "train", 0)
    file = tmp_path / "chains.jsonl"
    file.write_text("".join(json.dumps(row_of(draw(index))) + "\n" for index in range(20)), encoding="utf-8")
    mixture = [{"chains": str(file), "weight": 3}, {"arithmetic": {"examples": 50, "seed": 9}, "weight": 1}]
    recipe = written(tmp_path, {"mixture": mixture})
    dataset = setup.make_dataset(recipe.data.train, recipe, mini_tokenizer, "training data")
    assert isinstance(dataset, MixedDataset)
    alone = written(tmp_path, {"chains": str(file)})
    chains = setup.make_dataset(alone.data.train, alone, mini_tokenizer, "training data")
    found = [dataset.locate(index) for index in range(60)]
    assert {part for part, _ in found} == {0, 1}
    for index, (part, within) in enumerate(found):
        example, expected = dataset[index], chains[within] if part == 0 else None
        assert example is not None
        assert expected is None or example.ids.tolist() == expected.ids.tolist()


def row_of(chain: LabelledChain) -> dict:
    marks = ["+" if label else "-" for label in chain.labels]
    names = {"problem": chain.problem, "prefix_steps": chain.steps, "cot": chain.chain}
    return {**names, "gt_step_labels": marks, "prefix_label": chain.correct}


@pytest.mark.parametrize(
    ("train", "changes", "said"),
    [
        ({"mixture": []}, {}, "mixture must name at least one source"),
        (
            {"mixture": [{"chains": "a"}], "chains": "b"},
            {},
            "give one of arithmetic, chains, prm800k, solutions and",
        ),
        ({"mixture": [{"chains": "a", "weight": 0}]}, {}, "weight must be positive"),
        ({"mixture": [{"weight": 1}]}, {}, "give one of arithmetic, chains, prm800k and solutions"),
        ({"mixture": [{"chains": "a"}]}, {"steps": None, "epochs": 1}, "a mixture has no end, so epochs says"),
        ({"mixture": [{"prm800k": "a"}]}, {}, "prm800k holds no chains"),
        ({"mixture": [{"chains": "a"}], "limit": 3}, {}, "limit belongs to a part of the mixture"),
    ],
)
def test_recipes_that_are_refused(tmp_path: Path, train: object, changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        written(tmp_path, train, **changes)
