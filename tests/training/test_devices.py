"""Training over meshes: the same loss and weights on one device, on eight, and in two processes of four; a
checkpoint moves between them, and weights go from their files to the mesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support import processes

pytestmark = pytest.mark.slow

PROGRAM = """
import json, sys
from pathlib import Path
import jax
import numpy as np
from support import tiny_training
from jax.experimental import multihost_utils
from thinkprm_jax.checkpoint.training_state import CheckpointStore
from thinkprm_jax.data.batches import batches
from thinkprm_jax.distributed.mesh import make_mesh, start_processes
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.training.config import OptimizerConfig
from thinkprm_jax.training.optimizer import make_optimizer
from thinkprm_jax.training.trainer import Trainer

config = ModelConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_layers=1, num_heads=4, num_kv_heads=2, head_dim=8,
    qkv_bias=True, tie_embeddings=False, initializer_range=0.2,
)
optimizer = make_optimizer(OptimizerConfig(name="muon", learning_rate=0.02, adam_learning_rate=0.01), 10)
dataset = tiny_training.RandomExamples([17, 3, 9, 12, 5, 16, 8, 2, 17, 4, 6, 11, 13, 7, 10] * 3, 64)

def run(sizes, devices=None, micro_batches=1):
    trainer = Trainer(config, optimizer, make_mesh(*sizes, devices=devices), "float32", micro_batches)
    stream = batches(dataset, [16], lambda bucket: 16, local_rows=trainer.rows_wanted)
    state, losses = trainer.init(0), []
    for _ in range(2):
        state, metrics = trainer.train_step(state, trainer.place(next(stream)[0]))
        losses.append(float(metrics["loss"]))
    return trainer, state, losses

def main():
    folder, found = Path(sys.argv[1]), {}
    cases = {"1x1x1": ((1, 1, 1), jax.devices()[:1])} if jax.process_count() == 1 else {}
    for mesh in sys.argv[2:]:
        cases[mesh] = (tuple(map(int, mesh.split("x"))), None)
    for name, (sizes, devices) in cases.items():
        trainer, state, losses = run(sizes, devices, micro_batches=2 if name == "2x2x2" else 1)
        kernel, key = (state.params[f"layers.0.attention.{part}.kernel"] for part in ("query", "key"))
        pieces = [part.addressable_shards[0].data.shape for part in (kernel, key)]
        found[name] = {"losses": losses, "pieces": pieces, "compiles": trainer.compiles()}
        whole = multihost_utils.process_allgather(state.params, tiled=True)
        if jax.process_index() == 0:
            np.savez(folder / f"{jax.process_count()}_{name}.npz", **whole)
    with CheckpointStore(folder / f"checkpoints_{jax.process_count()}") as store:
        store.save(2, state, {"data": [1]})
    if jax.process_count() == 1:
        trainer, state, _ = run((1, 1, 1), jax.devices()[:1])
        trainer, there, _ = run((2, 2, 2))
        with CheckpointStore(folder / "checkpoints_alone") as store:
            store.save(2, state, {"data": [1]})
            store.wait()
            moved, record = store.restore(trainer.abstract_state())
        found["restored"] = record == {"data": [1]} and all(
            jax.tree.leaves(jax.tree.map(lambda a, b: np.array_equal(a, b), state, moved))
        )
        found["restored_piece"] = moved.params["layers.0.attention.query.kernel"].addressable_shards[0].data.shape
        stream = batches(dataset, [16], lambda bucket: 16)
        trainer.train_step(moved, trainer.place(next(stream)[0]))
        found["compiles"] = trainer.compiles()
    print(json.dumps(found))

with start_processes():
    main()
"""
MESHES = ["8x1x1", "1x8x1", "1x2x4", "2x2x2"]
SPREAD_MESHES = ["8x1x1", "2x2x2"]
PIECES = {  # of the query's and the key's kernel, [32, 32] and [32, 16]
    "8x1x1": [[32, 32], [32, 16]],  # copied
    "1x8x1": [[4, 32], [4, 16]],  # split by fsdp
    "1x2x4": [[16, 8], [16, 16]],  # and by query heads; two KV heads for four tensor devices are copied
    "2x2x2": [[16, 16], [16, 8]],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict:
    return processes.answer(PROGRAM, folder, *MESHES, devices=8)


@pytest.fixture(scope="module")
def together(folder: Path) -> dict:
    """What two processes of four devices say; the same."""
    common = {"JAX_COORDINATOR_ADDRESS": processes.free_address(), "JAX_NUM_PROCESSES": "2"}
    first, second = processes.answers(
        [
            processes.start(PROGRAM, folder, *SPREAD_MESHES, devices=4, **common, JAX_PROCESS_ID=str(number))
            for number in range(2)
        ]
    )
    assert first == second
    return first


def assert_equal_training(folder: Path, alone: dict, found: dict, count: int, mesh: str) -> None:
    expected = alone["1x1x1"]["losses"]
    assert np.abs(np.subtract(found[mesh]["losses"], expected)).max() < 1e-5
    ours, theirs = np.load(folder / f"{count}_{mesh}.npz"), np.load(folder / "1_1x1x1.npz")
    difference = max(float(np.abs(ours[name] - theirs[name]).max()) for name in theirs)
    print(f"{count} processes, {mesh}: largest difference of a weight {difference:.1e}")
    assert difference < 1e-5
    assert found[mesh]["pieces"] == PIECES[mesh]
    assert found[mesh]["compiles"] == 1


@pytest.mark.parametrize("mesh", MESHES)
def test_eight_devices_train_as_one(folder: Path, alone: dict, mesh: str) -> None:
    assert_equal_training(folder, alone, alone, 1, mesh)


@pytest.mark.parametrize("mesh", SPREAD_MESHES)
def test_two_processes_of_four_train_as_one_device(folder: Path, alone: dict, together: dict, mesh: str) -> None:
    assert_equal_training(folder, alone, together, 2, mesh)


def test_a_checkpoint_moves_to_another_mesh(alone: dict) -> None:
    assert alone["restored"]
    assert alone["restored_piece"] == [16, 16]
    assert alone["compiles"] == 1  # a restored state is laid out as a fresh one
