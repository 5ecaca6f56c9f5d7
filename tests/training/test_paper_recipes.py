"""The recipes that ship: they load, run on the devices they are stated for, and hold what the paper says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from thinkprm_jax.data.batches import plans
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.recipe import load_recipe
from thinkprm_jax.training import setup
from thinkprm_jax.training.config import TrainRecipe
from thinkprm_jax.training.trainer import Trainer

FOLDER = Path(__file__).parents[2] / "configs" / "train"
RECIPES = sorted(FOLDER.glob("*.yaml"))

# Recipe -> numbers of devices that its comments, or docs/pods.md, say it runs on, each with micro_batches there.
STATED = {
    "disc_prm_1.5b": [(1, 8), (2, 8)],
    "disc_prm_14b": [(8, 1)],
    "mini_disc": [(1, 1)],
    "mini_solver": [(1, 1)],
    "mini_verifier": [(1, 1)],
    "mini_verifier_rounds": [(1, 1)],
    "mini_weak": [(1, 1)],
    "qwq_32b_lora": [(2, 6), (1, 6), (4, 6), (8, 6)],
    "r1_distill_1.5b": [(16, 1), (8, 1), (1, 8)],
    "r1_distill_14b_lora": [(1, 6), (2, 3)],
    "r1_distill_7b": [(8, 1), (16, 1)],
}
# arXiv 2504.16828, appendix on training details: epochs, batch, learning rate, LoRA (rank, alpha).
PAPER = {
    "qwq_32b_lora": (5, 16, 4e-4, (32, 16)),
    "r1_distill_1.5b": (3, 32, 6e-5, None),
    "r1_distill_14b_lora": (3, 16, 4e-4, (32, 16)),
    "r1_distill_7b": (3, 32, 6e-5, None),  # not published: those of the 1.5B
}
# What may be long: a chain that the filter lets pass, and a problem with a solution of 53 steps.
LONGEST = 4096 + 2048
STEPS = {(32, 3): 94, (16, 3): 188, (16, 5): 313}  # of 1,000 chains


def load(name: str, *overrides: str) -> TrainRecipe:
    return load_recipe(TrainRecipe, FOLDER / f"{name}.yaml", overrides)


def test_every_recipe_is_in_the_tables() -> None:
    assert [path.stem for path in RECIPES] == sorted(STATED)


@pytest.mark.parametrize(
    ("name", "devices", "micro_batches"),
    [(name, *case) for name, cases in STATED.items() for case in cases],
)
def test_the_stated_devices_divide_the_rows_without_empty_ones(
    name: str, devices: int, micro_batches: int
) -> None:
    recipe = load(name, f"micro_batches={micro_batches}")
    trainer = trainer_on(recipe, devices)
    assert setup.filling(recipe, trainer) == ""
    assert trainer.parts(recipe.data.rows_of(recipe.data.buckets[-1])) == micro_batches


@pytest.mark.parametrize("devices", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("name", STATED)
def test_every_recipe_divides_its_rows_as_it_is(name: str, devices: int) -> None:
    recipe = load(name)
    trainer = trainer_on(recipe, devices)
    groups = trainer.mesh.shape["data"] * trainer.mesh.shape["fsdp"]
    for bucket in recipe.data.buckets:
        rows = recipe.data.rows_of(bucket)
        filled, most = trainer.filled_rows(rows), groups * recipe.micro_batches
        parts = trainer.parts(filled)
        assert filled % (groups * parts) == 0
        assert rows <= filled < rows + most
        assert parts == recipe.micro_batches or filled // parts == groups  # a row for each device


def trainer_on(recipe: TrainRecipe, devices: int) -> Trainer:
    # Only the sizes count; a device may stand in a mesh sixteen times as long as nothing runs there.
    mesh = make_mesh(**dataclasses.asdict(recipe.mesh), devices=[jax.devices()[0]] * devices)
    config = ModelConfig(64, 32, 32, 1, 1, 1, 32)
    return Trainer(config, optax.sgd(0.1), mesh, micro_batches=recipe.micro_batches)


def test_the_first_stated_devices_need_no_override() -> None:
    for name, cases in STATED.items():
        assert load(name).micro_batches == cases[0][1], name


def test_a_run_says_which_batches_get_empty_rows() -> None:
    recipe = load("mini_verifier")
    said = setup.filling(recipe, trainer_on(recipe, 8))
    assert said.startswith("so that the devices divide them, batches get empty rows, by bucket: 96 (53 to 56), ")
    assert ", 128 (" not in said  # 40 rows are 5 a device


@pytest.mark.parametrize("name", PAPER)
def test_what_the_paper_says(name: str) -> None:
    epochs, batch, rate, lora = PAPER[name]
    recipe = load(name)
    assert (recipe.epochs, recipe.data.examples, recipe.optimizer.learning_rate) == (epochs, batch, rate)
    assert (recipe.optimizer.schedule, recipe.optimizer.warmup_steps, recipe.optimizer.warmup_ratio) == (
        "constant",
        0,
        0,
    )
    assert (recipe.lora and (recipe.lora.rank, recipe.lora.alpha)) == lora
    assert recipe.data.train.chains == "launch/thinkprm-1K-verification-cots"


@pytest.mark.parametrize("name", PAPER)
def test_rows_hold_the_longest_chain_and_suit_the_kernels(name: str) -> None:
    (length,) = load(name).data.buckets
    assert length >= LONGEST
    assert length % 512 == 0  # the block of the splash kernel


class Lengths:
    """A thousand chains like the paper's 1K set: lengths drawn to its published mean and range."""

    fingerprint = "drawn"

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        chains = np.clip(rng.lognormal(np.log(930), 0.53, 1000), 207, 3669)
        prompts = np.clip(rng.lognormal(np.log(370), 0.45, 1000), 120, 1500)
        assert abs(chains.mean() - 1037) < 30
        self.lengths = (chains + prompts).astype(int)

    def __len__(self) -> int:
        return len(self.lengths)

    def length(self, index: int) -> int:
        return int(self.lengths[index])


@pytest.mark.parametrize("name", PAPER)
def test_a_batch_is_as_large_as_the_papers(name: str) -> None:
    """The rows hold the batch nearly always, so the run has the paper's number of steps."""
    recipe = load(name)
    data = recipe.data
    planned = plans(
        Lengths(),  # type: ignore[arg-type]
        data.buckets,
        data.rows_of,
        recipe.seed,
        data.shuffle,
        recipe.epochs,
        packing=True,
        examples=data.examples,
    )
    sizes = [sum(map(len, plan.members)) for plan in planned]
    assert sum(sizes) == 1000 * recipe.epochs
    assert np.mean(np.array(sizes[:-1]) == data.examples) > 0.99
    assert len(sizes) == STEPS[data.examples, recipe.epochs]
