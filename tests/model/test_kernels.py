"""Attention kernels against the plain one, and which one is chosen where."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from support import processes
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.kernels import Execution, choose_attention

LARGE = ModelConfig(
    vocab_size=64, hidden_size=1536, intermediate_size=64, num_layers=1, num_heads=12, num_kv_heads=2, head_dim=128
)
SMALL = ModelConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_layers=1, num_heads=4, num_kv_heads=2, head_dim=8
)


@pytest.mark.parametrize(
    ("platform", "config", "dtype", "length", "kernel"),
    [
        ("cpu", LARGE, "bfloat16", 4096, "xla"),
        ("gpu", LARGE, "bfloat16", 4096, "cudnn"),
        ("gpu", LARGE, "float32", 4096, "xla"),
        ("gpu", LARGE, "bfloat16", 4095, "xla"),
        ("tpu", LARGE, "bfloat16", 4096, "splash"),
        ("tpu", LARGE, "bfloat16", 4000, "xla"),
        ("tpu", SMALL, "bfloat16", 4096, "xla"),
    ],
)
def test_auto_takes_the_fastest_kernel_that_can_run(platform, config, dtype, length, kernel) -> None:
    assert choose_attention("auto", config, dtype, length, platform)[0] == kernel


@pytest.mark.parametrize(
    ("requested", "platform", "dtype", "said"),
    [
        ("cudnn", "cpu", "bfloat16", "attention cudnn cannot run: it needs an NVIDIA GPU, this is cpu"),
        ("cudnn", "gpu", "float32", "attention cudnn cannot run: it needs bfloat16 products, not float32"),
        ("splash", "gpu", "bfloat16", "attention splash cannot run: it needs a TPU, this is gpu"),
    ],
)
def test_a_kernel_asked_for_by_name_runs_or_is_refused(requested, platform, dtype, said) -> None:
    with pytest.raises(UserError, match=said):
        choose_attention(requested, LARGE, dtype, 4096, platform)


def inputs(batch: int, length: int, heads: int, kv_heads: int, head_dim: int) -> tuple[jax.Array, ...]:
    keys = jax.random.split(jax.random.key(0), 4)
    q = jax.random.normal(keys[0], (batch, length, heads, head_dim)) * head_dim**-0.5
    k, v = (jax.random.normal(key, (batch, length, kv_heads, head_dim)) for key in keys[1:3])
    return q, k, v, jax.random.normal(keys[3], q.shape)


@pytest.mark.slow
def test_splash_keeps_segments_apart_forward_and_backward() -> None:
    """The TPU kernel, interpreted: outputs and gradients of packed rows equal the plain kernel's."""
    q, k, v, cotangent = inputs(1, 256, 4, 2, 128)
    segments = jnp.asarray(np.repeat([1, 2, 3], [100, 90, 66])[None])

    def run(execution: Execution) -> tuple[jax.Array, ...]:
        output, pull = jax.vjp(lambda q, k, v: execution.attend(q, k, v, segments, jnp.float32), q, k, v)
        return output, *pull(cotangent)

    ours, theirs = run(Execution("xla")), run(Execution("splash", interpret=True))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def portable_attention(*arguments: object, implementation: str, **options: object) -> jax.Array:
    """What cuDNN is asked for, computed by XLA, which needs no GPU."""
    assert implementation == "cudnn"
    return ATTENTION(*arguments, implementation="xla", **options)


ATTENTION = jax.nn.dot_product_attention


@pytest.mark.parametrize("packed", [True, False])
def test_cudnn_is_asked_for_the_plain_kernels_attention(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.nn, "dot_product_attention", portable_attention)
    q, k, v, _ = inputs(2, 32, 4, 2, 8)
    segments = jnp.asarray(np.repeat([[1, 2, 0]], [10, 12, 10], axis=1).repeat(2, axis=0)) if packed else None
    ours, theirs = (Execution(kernel).attend(q, k, v, segments, jnp.float32) for kernel in ("cudnn", "xla"))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


SPREAD = """
import json
import jax, jax.numpy as jnp, numpy as np
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.model.kernels import Execution

attention = jax.nn.dot_product_attention
jax.nn.dot_product_attention = lambda *x, implementation, **options: attention(*x, implementation="xla", **options)
keys = jax.random.split(jax.random.key(0), 4)
q, cotangent = (jax.random.normal(key, (2, 128, 4, 128)) * 0.1 for key in keys[2:])
k, v = (jax.random.normal(key, (2, 128, 2, 128)) for key in keys[:2])
segments = jnp.asarray(np.repeat([[1, 2]], [70, 58], axis=1).repeat(2, axis=0))

def run(execution, segments):
    output, pull = jax.vjp(lambda *x: execution.attend(*x, segments, jnp.float32), q, k, v)
    return output, *pull(cotangent)

run = jax.jit(run, static_argnums=0)
found = {}
for kernel, ids, sizes in (
    ("splash", segments, (2, 1, 2)),
    ("splash", segments, (1, 1, 4)),
    ("cudnn", segments, (2, 1, 2)),
    ("cudnn", segments, (1, 1, 4)),
    ("cudnn", None, (1, 2, 2)),
):
    mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    pairs = zip(run(Execution("xla"), ids), run(Execution(kernel, mesh=mesh, interpret=True), ids), strict=True)
    found[f"{kernel} {sizes}"] = max(float(jnp.abs(alone - spread).max()) for alone, spread in pairs)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_fused_kernels_over_a_mesh_run_on_each_devices_rows_and_heads() -> None:
    """Forward and backward, also with fewer KV heads than tensor devices."""
    found = processes.answer(SPREAD, devices=4)
    assert all(difference < 2e-5 for difference in found.values()), found
