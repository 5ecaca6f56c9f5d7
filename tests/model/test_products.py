"""Our kernel for the products of few rows: against numpy, and against itself with other rows."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from thinkprm_jax.errors import UserError
from thinkprm_jax.model import products
from thinkprm_jax.model.decoder import Decoder, use_products
from thinkprm_jax.model.matmul import contract
from thinkprm_jax.model.native import load_library

LARGE = 2**30  # bytes of a model
# in, out: less than a vector, no multiple of one, several panels
SIZES = [(1, 1), (7, 5), (33, 31), (64, 96), (129, 47), (200, 1100), (576, 576)]
ROWS = (130, 64, 33, 17, 16, 7, 5, 2, 1)

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")


def check(kernels: products.Kernels, inputs: int, outputs: int, dtype: jnp.dtype, transposed: bool) -> None:
    """Near numpy's product in float64, and every row the same bits whatever the number of rows."""
    rng = np.random.default_rng(inputs)
    weights = jnp.asarray(rng.normal(size=(outputs, inputs) if transposed else (inputs, outputs)), dtype)
    x = jnp.asarray(rng.normal(size=(max(ROWS), inputs)), dtype)
    exact = np.asarray(x, np.float64) @ np.asarray(weights.T if transposed else weights, np.float64)
    all_rows = None
    for rows in ROWS:
        call = jax.ffi.ffi_call(kernels.target("products"), [jax.ShapeDtypeStruct((rows, outputs), jnp.float32)])
        y = np.asarray(call(x[:rows], weights, transposed=transposed)[0])
        np.testing.assert_allclose(y, exact[:rows], atol=1e-5 * inputs**0.5)
        all_rows = y if all_rows is None else all_rows
        np.testing.assert_array_equal(y, all_rows[:rows])


@pytest.mark.parametrize("transposed", [False, True], ids=["in-out", "out-in"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_products(inputs: int, outputs: int, dtype: jnp.dtype, transposed: bool) -> None:
    check(products.load_kernels(), inputs, outputs, dtype, transposed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ("-march=native", "-mno-amx-tile", "-mno-amx-bf16"),
        ("-march=native", "-mno-amx-tile", "-mno-amx-bf16", "-mno-avx512bf16"),
        ("-march=native", "-mno-avx512f"),
        ("-march=x86-64",),
    ],
    ids=["no-tiles", "no-bf16", "avx2", "sse2"],
)
def test_products_of_lesser_processors(flags: tuple[str, ...]) -> None:
    kernels = products.load_kernels(flags)
    for inputs, outputs in SIZES:
        for dtype in (jnp.float32, jnp.bfloat16):
            for transposed in (False, True):
                check(kernels, inputs, outputs, dtype, transposed)


@pytest.mark.parametrize("transposed", [False, True], ids=["in-out", "out-in"])
def test_float32_products_lose_no_more_digits_than_numpys(transposed: bool) -> None:
    """A running sum over all 4,864 inputs lost three times as many."""
    rng = np.random.default_rng(0)
    x, weights = (rng.normal(size=size).astype(np.float32) for size in ((4, 4_864), (4_864, 128)))
    exact = x.astype(np.float64) @ weights.astype(np.float64)

    def error(y: np.ndarray) -> float:
        return float(np.sqrt(np.mean((y.astype(np.float64) - exact) ** 2)))

    found = products.multiply(
        jnp.asarray(x), [jnp.asarray(weights.T if transposed else weights)], jnp.float32, transposed
    )
    assert found is not None
    assert error(np.asarray(found[0])) < 1.75 * error(x @ weights)


def test_several_weights_of_one_x() -> None:
    rng = np.random.default_rng(0)
    weights = [jnp.asarray(rng.normal(size=(200, size)), jnp.float32) for size in (300, 7, 640)]
    x = jnp.asarray(rng.normal(size=(3, 5, 200)), jnp.float32)
    together = products.multiply(x, weights, jnp.float32)
    assert together is not None
    for y, weight in zip(together, weights, strict=True):
        assert y.shape == (3, 5, weight.shape[1])
        [alone] = products.multiply(x, [weight], jnp.float32) or []
        np.testing.assert_array_equal(y, alone)
        np.testing.assert_allclose(y, x @ weight, atol=1e-4)


def test_many_rows_are_left_to_xla() -> None:
    weight = jnp.ones((8, 8), jnp.float32)
    assert products.multiply(jnp.ones((3, 1000, 8)), [weight], jnp.float32) is None


def test_no_rows() -> None:
    [y] = products.multiply(jnp.ones((0, 8)), [jnp.ones((8, 4))], jnp.float32) or []
    assert y.shape == (0, 4)


def test_it_has_no_derivative() -> None:
    def loss(x: jax.Array) -> jax.Array:
        [y] = products.multiply(x, [jnp.ones((8, 4))], jnp.float32) or []
        return y.sum()

    with pytest.raises(ValueError, match="cannot be differentiated"):
        jax.grad(loss)(jnp.ones((2, 8)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_of_weights_are_those_of_xlas_products(dtype: jnp.dtype) -> None:
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((2, 24, 32), (32, 48)))
    slopes = jnp.asarray(rng.normal(size=(2, 24, 48)), jnp.float32)

    def gradients(weight_gradient: products.Products) -> tuple[jax.Array, jax.Array]:
        _, back = jax.vjp(lambda *given: contract("bti,io->bto", *given, dtype, weight_gradient), x, weight)
        return back(slopes)

    for ours, theirs in zip(gradients("native"), gradients("xla"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_logits_of_a_decoder(tiny_model: Decoder) -> None:
    graph, state = nnx.split(tiny_model)
    ours = nnx.merge(graph, state)
    use_products(ours, "native")
    tokens = jnp.asarray([[5, 9, 2, 7, 1], [8, 8, 3, 1, 4]])
    np.testing.assert_allclose(ours(tokens), tiny_model(tokens), atol=1e-4)
    # A row does not depend on the one beside it.
    state = jnp.asarray(np.random.default_rng(0).normal(size=(7, tiny_model.config.hidden_size)), jnp.float32)
    np.testing.assert_array_equal(ours.unembed(state)[3], ours.unembed(state[3:4])[0])


# What computes them


@pytest.fixture
def no_compiler(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("THINKPRM_JAX_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    for function in (load_library, products.load_kernels, products._say_once):
        function.cache_clear()
    yield
    for function in (load_library, products.load_kernels, products._say_once):
        function.cache_clear()


def test_a_large_model_on_a_cpu_takes_the_kernel() -> None:
    assert products.choose_products("auto", jnp.float32, LARGE) == "native"
    assert products.choose_products("native", jnp.float32, 1000) == "native"
    assert products.choose_products("auto", jnp.float32, 1000) == "xla"
    assert products.choose_products("xla", jnp.float32, LARGE) == "xla"


def test_the_variable_counts_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(products.VARIABLE, "native")
    assert products.choose_products(None, jnp.float32, 1000) == "native"
    assert products.choose_products("xla", jnp.float32, 1000) == "xla"
    monkeypatch.setenv(products.VARIABLE, "fast")
    with pytest.raises(UserError, match=r"THINKPRM_JAX_PRODUCTS is 'fast' \(it may be auto, xla, native\)"):
        products.choose_products(None, jnp.float32, LARGE)


@pytest.mark.parametrize(
    ("dtype", "devices", "backend", "said"),
    [
        (jnp.float16, 1, "cpu", "not float16"),
        (jnp.float32, 2, "cpu", "one device"),
        (jnp.float32, 1, "gpu", "this is gpu"),
    ],
)
def test_where_it_cannot_run(dtype, devices, backend, said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert products.choose_products("auto", dtype, LARGE) == "xla"
    with pytest.raises(UserError, match=f"products native cannot run: .*{said}"):
        products.choose_products("native", dtype, LARGE)


def test_without_a_compiler_xla_computes_and_it_is_said_once(no_compiler, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        assert products.choose_products("auto", jnp.float32, LARGE) == "xla"
        assert products.choose_products("auto", jnp.float32, LARGE) == "xla"
    [line] = [record.getMessage() for record in caplog.records]
    assert "no C++ compiler" in line


def test_the_kernel_by_name_without_a_compiler_is_refused(no_compiler) -> None:
    with pytest.raises(UserError, match=r"products native cannot run: there is no C\+\+ compiler"):
        products.choose_products("native", jnp.float32, LARGE)
