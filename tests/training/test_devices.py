"""Training over a mesh: the same loss and weights on one and on eight devices; a checkpoint moves between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import tiny_training

PROGRAM = """
import json, sys
import jax
import numpy as np
import tiny_training
from thinkprm_jax.checkpoint.training_state import CheckpointStore
from thinkprm_jax.mesh import make_mesh
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.training.config import OptimizerConfig
from thinkprm_jax.training.optimizer import make_optimizer
from thinkprm_jax.training.trainer import Trainer

config = ModelConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_layers=1, num_heads=4, num_kv_heads=2, head_dim=8,
    qkv_bias=True, tie_embeddings=False, initializer_range=0.2,
)
optimizer = make_optimizer(OptimizerConfig(name="muon", learning_rate=0.02, adam_learning_rate=0.01), 10)
lengths = [17, 3, 9, 12, 5, 16, 8, 2, 17, 4, 6, 11, 13, 7, 10]
batches = [tiny_training.random_batch(lengths, [1] * 15, 16, 64, seed) for seed in range(2)]

def run(sizes, micro_batches):
    devices = jax.devices()[: int(np.prod(sizes))]
    trainer = Trainer(config, optimizer, make_mesh(*sizes, devices=devices), "float32", micro_batches)
    state, losses = trainer.init(0), []
    for batch in batches:
        state, metrics = trainer.train_step(state, trainer.place(batch))
        losses.append(float(metrics["loss"]))
    return trainer, state, losses

alone, state, losses = run((1, 1, 1), 1)
assert len(jax.devices()) == 8
found = {"losses": losses, "meshes": {}}
for sizes, micro_batches in (((8, 1, 1), 1), ((2, 2, 2), 2)):
    trainer, spread, losses = run(sizes, micro_batches)
    kernel = spread.params["layers.0.attention.query.kernel"]
    pairs = [(np.asarray(spread.params[name]), np.asarray(value)) for name, value in state.params.items()]
    found["meshes"]["x".join(map(str, sizes))] = {
        "losses": losses,
        "difference": max(float(np.abs(theirs - ours).max()) for theirs, ours in pairs),
        "piece": kernel.addressable_shards[0].data.shape,
        "compiles": trainer.compiles(),
    }
with CheckpointStore(sys.argv[1]) as store:
    store.save(2, state, {"data": [1]})
    store.wait()
    moved, record = store.restore(trainer.abstract_state())
found["restored"] = record == {"data": [1]} and all(
    jax.tree.leaves(jax.tree.map(lambda a, b: np.array_equal(a, b), state, moved))
)
found["restored_piece"] = moved.params["layers.0.attention.query.kernel"].addressable_shards[0].data.shape
trainer.train_step(moved, trainer.place(batches[0]))
found["compiles"] = trainer.compiles()
print(json.dumps(found))
"""


def test_the_same_training_on_eight_devices(tmp_path):
    environment = os.environ | {
        # Level 0: half the time to compile.
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(tiny_training.ROOT), str(tiny_training.ROOT / "tests")]),
    }
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "checkpoints")],
        env=environment,
        cwd=tiny_training.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    for mesh in found["meshes"].values():
        assert max(abs(a - b) for a, b in zip(found["losses"], mesh["losses"], strict=True)) < 1e-5
        assert mesh["difference"] < 1e-5
        assert mesh["compiles"] == 1
    assert found["meshes"]["8x1x1"]["piece"] == [32, 32]  # copied
    assert found["meshes"]["2x2x2"]["piece"] == [16, 16]  # split by fsdp and by heads
    assert found["restored"]
    assert found["restored_piece"] == [16, 16]
    assert found["compiles"] == 1  # a restored state is laid out as a fresh one
