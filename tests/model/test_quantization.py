"""Weights in eight bits: what they are, what is computed with them, and that a row has no bit of another."""

from __future__ import annotations

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from thinkprm_jax.model import products
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder, use_products
from thinkprm_jax.model.memory import weight_bytes
from thinkprm_jax.model.parameters import parameter_axes, parameter_shapes
from thinkprm_jax.model.quantization import quantize

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler"
)
GROUP = 128  # of cc/kinds.h
CONFIG = ModelConfig(
    vocab_size=90,
    hidden_size=40,
    intermediate_size=72,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    tie_embeddings=True,
    eos_token_id=0,
    initializer_range=0.3,
)


@pytest.mark.parametrize("inputs", [0, 1])
@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_a_weight_is_off_by_half_a_scale_at_most(convert, inputs: int) -> None:
    weights = np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32)
    weights[:, 3] = 0
    weights[7] *= 100
    whole, scale = (np.asarray(x) for x in quantize(convert(weights), inputs))
    assert (whole.dtype, scale.dtype, scale.shape) == (np.int8, np.float32, (weights.shape[1 - inputs],))
    assert np.abs(whole).max() == 127  # -128 is none of them
    by = np.expand_dims(scale, inputs)
    assert (np.abs(whole * by - weights) <= by * 0.50001).all()


def by_hand(x: np.ndarray, whole: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """x [B, K] in groups of whole numbers times whole [K, N]."""
    y = np.zeros((len(x), whole.shape[1]))
    for k in range(0, x.shape[1], GROUP):
        part = x[:, k : k + GROUP]
        largest = np.abs(part).max(1, keepdims=True)
        numbers = np.rint(part * np.where(largest > 0, np.float32(127) / np.where(largest > 0, largest, 1), 0))
        y += numbers @ whole[k : k + GROUP].astype(np.float64) * (largest / np.float32(127))
    return y * scale


SIZES = [(7, 5), (128, 64), (130, 70), (200, 1100), (1000, 37), (576, 576)]
ROWS = (130, 33, 16, 7, 6, 2, 1)


def check(kernels: products.Kernels, inputs: int, outputs: int, transposed: bool) -> None:
    rng = np.random.default_rng(inputs)
    x = rng.normal(size=(max(ROWS), inputs)).astype(np.float32)
    whole, scale = quantize(rng.normal(size=(inputs, outputs)).astype(np.float32), 0)
    exact = by_hand(x, whole, scale)
    weights = jnp.asarray(whole.T.copy() if transposed else whole)
    all_rows = None
    for rows in ROWS:
        call = jax.ffi.ffi_call(kernels.target("products"), [jax.ShapeDtypeStruct((rows, outputs), jnp.float32)])
        y = np.asarray(call(jnp.asarray(x[:rows]), weights, jnp.asarray(scale), transposed=transposed)[0])
        np.testing.assert_allclose(y, exact[:rows], atol=2e-6 * np.abs(exact).max())
        all_rows = y if all_rows is None else all_rows
        np.testing.assert_array_equal(y, all_rows[:rows])


@needs_compiler
@pytest.mark.parametrize("transposed", [False, True], ids=["in-out", "out-in"])
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_products(inputs: int, outputs: int, transposed: bool) -> None:
    check(products.load_kernels(), inputs, outputs, transposed)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [("-march=native", "-mno-avx512vnni"), ("-march=native", "-mno-avx512f"), ("-march=x86-64",)],
    ids=["no-vnni", "avx2", "sse2"],
)
def test_products_of_lesser_processors(flags: tuple[str, ...]) -> None:
    kernels = products.load_kernels(flags)
    for inputs, outputs in SIZES:
        for transposed in (False, True):
            check(kernels, inputs, outputs, transposed)


@needs_compiler
def test_what_is_not_finite_stays_so_in_its_row_alone() -> None:
    x = np.ones((3, 300), np.float32)
    x[1, 200] = np.inf
    x[2, 7] = np.nan
    whole, scale = (jnp.asarray(part) for part in quantize(np.eye(300, 9, dtype=np.float32), 0))
    [y] = products.multiply(jnp.asarray(x), [whole], jnp.float32, scales=[scale]) or []
    finite = np.isfinite(np.asarray(y))
    assert finite[0].all()
    assert not finite[1:].any()


def make(tied: bool = True) -> tuple[Decoder, Decoder]:
    """(a decoder in eight bits, one in float32 with the same weights)."""
    config = dataclasses.replace(CONFIG, tie_embeddings=tied)
    small = Decoder(config, rngs=nnx.Rngs(0), quantization="int8")
    plain = Decoder(config, rngs=nnx.Rngs(0))
    values = {path: leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(small, nnx.Param))}
    for path, leaf in nnx.to_flat_state(nnx.state(plain, nnx.Param)):
        value, scale = values[path], values.get((*path[:-1], f"{path[-1]}_scale"))
        if scale is not None:
            by = scale[:, None] if path[-1] == "embedding" else scale
            value = value * by
        leaf[...] = value
    return small, plain


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_the_same_weights_in_floats(tied: bool) -> None:
    small, plain = make(tied)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 90, (2, 11)))
    expected = plain(tokens)
    np.testing.assert_allclose(small(tokens), expected, atol=1e-5 * float(jnp.abs(expected).max()))
    rows = small.head_rows(jnp.asarray([3, 89]))
    np.testing.assert_allclose(rows, plain.head_rows(jnp.asarray([3, 89])), atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("tied", [True, False])
def test_our_kernel_rounds_inputs_too(tied: bool) -> None:
    small, plain = make(tied)
    use_products(small, "native")
    states = jnp.asarray(np.random.default_rng(0).normal(size=(5, 40)), jnp.float32)
    expected = plain.unembed(states)
    error = np.abs(np.asarray(small.unembed(states) - expected)).max() / np.abs(expected).max()
    assert 0 < error < 0.02


def test_its_parameters_are_named_and_counted() -> None:
    small, _ = make(tied=False)
    state = {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(small, nnx.Param))}
    shapes = parameter_shapes(small.config, "int8")
    assert {name: value.shape for name, value in state.items()} == dict(shapes)
    axes = parameter_axes(small.config, quantization="int8")
    assert axes.keys() == state.keys()
    assert all(len(axes[name]) == value.ndim for name, value in state.items())
    assert axes["layers.1.mlp.down.kernel_scale"] == ("embed",)
    assert axes["embed.embedding_scale"] == ("vocab",)
    held = sum(value.nbytes for value in state.values())
    assert weight_bytes(small.config, "float32", quantization="int8") == held
