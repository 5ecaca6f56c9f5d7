"""What a step would hold, by the compiler's own account."""

from __future__ import annotations

import pytest

from support import processes

pytestmark = pytest.mark.slow

START = """
import dataclasses, json
import jax, optax
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.kernels import Execution
from thinkprm_jax.training.trainer import Trainer

def temporaries(shape, rows, length, fsdp=1, **execution):
    config = ModelConfig(vocab_size=64, num_heads=4, num_kv_heads=2, head_dim=8, qkv_bias=True, **shape)
    mesh = make_mesh(fsdp=fsdp, devices=jax.devices()[:fsdp])
    trainer = Trainer(config, optax.sgd(0.1), mesh, "float32", execution=Execution(**execution))
    return trainer.lower(rows, length, packed=True).compile().memory_analysis().temp_size_in_bytes
"""


def analysis(program: str, devices: int) -> dict[str, int]:
    """In a process of its own: XLA's usual CPU scheduler starts repeated work early, which keeps everything."""
    flags = (
        f"--xla_force_host_platform_device_count={devices}",
        "--xla_cpu_enable_concurrency_optimized_scheduler=false",
        "--xla_backend_optimization_level=0",
        "--xla_disable_hlo_passes=cse_barrier_expander,cpu-all-reduce-combiner",
    )
    return processes.answer(START + program, devices=devices, XLA_FLAGS=" ".join(flags))


def test_rematerialisation_saves_activations() -> None:
    memory = analysis(
        """
shape = {"hidden_size": 32, "intermediate_size": 64, "num_layers": 4}
print(json.dumps({name: temporaries(shape, 4, 512, remat=name) for name in ("none", "products", "layer")}))
""",
        devices=1,
    )
    assert memory["layer"] < memory["products"] < 0.7 * memory["none"]


@pytest.mark.parametrize("scan", [False, True])
def test_weights_split_by_fsdp_are_gathered_a_layer_at_a_time(scan: bool) -> None:
    memory = analysis(
        f"""
shape = {{"hidden_size": 512, "intermediate_size": 1024}}
options = {{"fsdp": 4, "remat": "layer", "scan": {scan}}}
print(json.dumps({{str(n): temporaries(shape | {{"num_layers": n}}, 4, 8, **options) for n in (2, 6)}}))
""",
        devices=4,
    )
    layer = 4 * 512 * (3 * 1024 + 2 * 32 + 2 * 16)  # bytes of its weights, gathered
    assert memory["2"] > layer
    # Four more layers: a device's quarter of their gradients, and not their gathered weights, nor copies of them.
    assert memory["6"] - memory["2"] < 1.5 * layer
