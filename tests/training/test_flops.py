"""Operations of a training step: counted by hand, and by XLA; peaks of devices by their names."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from support import tiny_training
from thinkprm_jax.data.batches import Batch
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.lora import LoraSpec
from thinkprm_jax.training.config import OptimizerConfig
from thinkprm_jax.training.flops import StepFlops, attended_pairs, known_device, matrix_weights, step_flops
from thinkprm_jax.training.loss import Objective
from thinkprm_jax.training.optimizer import make_optimizer
from thinkprm_jax.training.trainer import Trainer, abstract_parameters

CONFIG = ModelConfig(
    vocab_size=640, hidden_size=96, intermediate_size=320, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=32
)
ADAPTERS = LoraSpec(rank=8, alpha=16.0)


def of_length(flops: StepFlops, tokens: int) -> float:
    """Operations of one example of so many tokens."""
    return flops.token * tokens + flops.pair * tokens * (tokens + 1) / 2


def test_by_hand() -> None:
    # Of one layer: query and output 96 x 128 each, key and value 96 x 64 each, feed-forward 3 of 96 x 320.
    layers, head = 2 * (2 * 12288 + 2 * 6144 + 3 * 30720), 96 * 640
    assert step_flops(CONFIG).token == 6 * (layers + head)
    assert step_flops(CONFIG, choices=2).token == 6 * (layers + 96 * 2)
    # Adapters of a layer: rank 8 times in + out of its seven maps.
    adapters = 2 * 8 * (2 * (96 + 128) + 2 * (96 + 64) + 3 * (96 + 320))
    assert step_flops(CONFIG, ADAPTERS).token == 4 * (layers + head) + 6 * adapters
    # A pair: q k and weight x v forward, twice that backward, 32 multiplications and additions in each of 4 heads.
    assert step_flops(CONFIG).pair == 2 * 6 * 2 * 4 * 32
    assert of_length(step_flops(CONFIG), 3) == 3 * 6 * (layers + head) + (1 + 2 + 3) * 2 * 6 * 2 * 4 * 32


@pytest.mark.parametrize("tied", [False, True])
def test_the_matrices_are_those_of_the_model(tied: bool) -> None:
    config = dataclasses.replace(CONFIG, tie_embeddings=tied)
    matrices = {name: math.prod(p.shape) for name, p in abstract_parameters(config).items() if len(p.shape) == 2}
    looked_up = 0 if tied else matrices["embed.embedding"]
    assert sum(matrix_weights(config)) == sum(matrices.values()) - looked_up


@pytest.mark.parametrize("lora", [None, ADAPTERS], ids=["full", "lora"])
def test_against_xla(lora: LoraSpec | None) -> None:
    """XLA also counts what is no product of matrices, and the masked parts of the blocks of attention: 4 to 8%."""
    optimizer = make_optimizer(OptimizerConfig(), 10)
    objective = Objective(chunk=4096)  # one chunk: XLA counts the body of a loop once
    mesh = make_mesh(devices=jax.devices()[:1])
    trainer = Trainer(CONFIG, optimizer, mesh, jnp.float32, objective=objective, lora=lora, frozen_dtype="float32")
    counted = trainer.lower(rows=1, length=640, packed=False).compile().cost_analysis()["flops"]
    assert 1.0 < counted / of_length(step_flops(CONFIG, lora), 640) < 1.1


def test_pairs_of_rows_and_of_packed_examples() -> None:
    lengths = [17, 3, 9]
    pairs = sum(n * (n - 1) / 2 for n in lengths)  # n ids are n - 1 places
    rows = tiny_training.random_batch(lengths, [2, 1, 3], 16, 64)
    assert attended_pairs(rows) == pairs
    segments = np.array([[1] * 16 + [2] * 2 + [0] * 2, [1] * 8 + [0] * 12])
    positions = np.array([[*range(16), *range(2), 0, 0], [*range(8), *[0] * 12]])
    zero = np.zeros((2, 20))
    packed = Batch(zero, zero, zero, 26, 0, positions=positions, segment_ids=segments)
    assert attended_pairs(packed) == pairs
    # Half of the tokens are on another process: they count as those here do.
    elsewhere = Batch(
        zero, zero, zero, 52, 0, positions=positions, segment_ids=segments, local_rows=[0, 1], rows=4
    )
    assert attended_pairs(elsewhere) == 2 * pairs
    flops = step_flops(CONFIG)
    assert flops.of(rows) == pytest.approx(sum(of_length(flops, n - 1) for n in lengths))


def test_a_batch_without_tokens() -> None:
    zero = np.zeros((2, 4), np.float32)
    assert attended_pairs(Batch(zero, zero, zero, 0, 0)) == 0


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", None),  # neither an L4 nor an L40S
        ("TPU v4 lite", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("cpu", None),
    ],
)
def test_peaks(kind: str, peak: float | None) -> None:
    device = known_device(kind)
    assert (device and device.peak) == peak
