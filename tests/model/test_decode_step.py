"""Our kernels of a decode step: what XLA computes, and the same bits wherever tokens stand."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thinkprm_jax.model.attention import attend_cache
from thinkprm_jax.model.cache import KVCache, readable
from thinkprm_jax.model.decode_step import attend_in_order, log_sum_exp, sum_of_squares
from thinkprm_jax.model.products import load_kernels

ROWS, HEADS, KV_HEADS, LENGTH, COLUMNS = 3, 6, 2, 40, 24

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu" or not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="the kernel is for CPUs with a C++ compiler",
)


def arrays(dtype, width: int, tokens: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    q = jnp.asarray(rng.normal(size=(ROWS, tokens, HEADS, width)), jnp.float32)
    cached = ROWS, KV_HEADS, LENGTH + COLUMNS, width
    keys, values = (jnp.asarray(rng.normal(size=cached), dtype) for _ in range(2))
    lengths = jnp.asarray([0, 17, LENGTH], jnp.int32)
    column = 11
    written = jnp.asarray(rng.random((ROWS, COLUMNS)) < 0.6) & (jnp.arange(COLUMNS) < column)
    return q, keys, values, lengths, written, jnp.int32(column)


@pytest.mark.parametrize(
    ("dtype", "width", "tokens", "tolerance"),
    [("float32", 16, 1, 2e-6), ("float32", 64, 8, 2e-6), ("float32", 96, 3, 2e-6), ("bfloat16", 128, 4, 2e-2)],
)
def test_it_is_attention(dtype, width, tokens, tolerance) -> None:
    q, keys, values, lengths, written, column = arrays(dtype, width, tokens)
    cache = KVCache([keys], [values], COLUMNS)
    expected = attend_cache(q, keys, values, readable(cache, lengths, written, column, tokens))
    found = jax.jit(attend_in_order)(q, keys, values, lengths, written, column)
    np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize("flags", [("-march=native",), ("-mavx2", "-mfma"), ()])
def test_scores_far_apart(flags, monkeypatch) -> None:
    """Weights from 1 down to nothing, by every width of vectors."""
    target = load_kernels(flags)
    monkeypatch.setattr("thinkprm_jax.model.decode_step.load_kernels", lambda: target)
    q, keys, values, lengths, written, column = arrays("float32", 32, 2)
    cache = KVCache([keys], [values], COLUMNS)
    seen = readable(cache, lengths, written, column, 2)
    expected = attend_cache(30 * q, keys, values, seen)
    found = jax.jit(lambda *x: attend_in_order(*x))(30 * q, keys, values, lengths, written, column)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_neither_columns_nor_lengths_nor_the_width_of_a_step_change_a_bit(dtype) -> None:
    """A row of 30 tokens and four that are new: in a narrow step each, or in a wide one; settled or in columns."""
    rng = np.random.default_rng(1)
    text = rng.normal(size=(2, KV_HEADS, 34, 64))  # keys and values, in the order of the text
    q = jnp.asarray(rng.normal(size=(1, 4, HEADS, 64)), jnp.float32)

    def attended(settled: int, gaps: int, length: int, tokens: int, begin: int, rows: int) -> np.ndarray:
        """Of the new tokens begin .. begin + tokens, with ``settled`` tokens in their places and the others in
        columns that have ``gaps`` between them."""
        known = 30 + begin
        columns = np.arange(known - settled) * (1 + gaps)
        column = int(columns[-1]) + 1 + gaps if len(columns) else 0
        total = length + column + tokens + 3
        cached = rng.normal(size=(2, rows, KV_HEADS, total, 64))
        cached[:, -1, :, :settled] = text[:, :, :settled]
        cached[:, -1, :, length + columns] = text[:, :, settled:known].transpose(2, 0, 1, 3)
        cached[:, -1, :, length + column : length + column + tokens] = text[:, :, known : known + tokens]
        written = np.zeros((rows, total - length), bool)
        written[-1, columns] = True
        keys, values = (jnp.asarray(x, dtype) for x in cached)
        lengths = jnp.asarray([5] * (rows - 1) + [settled], jnp.int32)
        queries = jnp.concatenate([jnp.ones((rows - 1, tokens, HEADS, 64)), q[:, begin : begin + tokens]])
        call = queries, keys, values, lengths, jnp.asarray(written), jnp.int32(column)
        return np.asarray(jax.jit(attend_in_order)(*call)[-1])

    wide = attended(settled=30, gaps=0, length=48, tokens=4, begin=0, rows=1)
    for begin in range(4):
        for settled, gaps, length, rows in [(30 + begin, 0, 64, 1), (20, 0, 40, 3), (7, 2, 32, 2)]:
            narrow = attended(settled, gaps, length, 1, begin, rows)
            np.testing.assert_array_equal(narrow[0], wide[begin])


def test_other_shapes_are_left_to_xla() -> None:
    q, keys, values, lengths, written, column = arrays("float32", 24, 1)
    assert attend_in_order(q, keys, values, lengths, written, column) is None


@pytest.mark.parametrize("width", [1, 15, 16, 896, 5001])
def test_sums_of_rows(width) -> None:
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 5, width)) * 4, jnp.float32)
    np.testing.assert_allclose(sum_of_squares(x), jnp.sum(x * x, -1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(log_sum_exp(x), jax.nn.logsumexp(x, -1, keepdims=True), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(sum_of_squares(x)[1, 3:], sum_of_squares(x[1, 3:]))
    np.testing.assert_array_equal(log_sum_exp(x)[1, 3:], log_sum_exp(x[1, 3:]))


def test_what_is_no_number_stays_none() -> None:
    one, no = [1.0] * 19, np.nan
    x = jnp.asarray([[-np.inf] * 20, [np.inf, *one], [no, *one], [*one, no], [no] * 20], jnp.float32)
    np.testing.assert_array_equal(log_sum_exp(x)[:, 0], [-np.inf, np.inf, no, no, no])
    q, keys, values, lengths, written, column = arrays("float32", 16, 1)
    found = attend_in_order(q, keys.at[1, 0, 3].set(no), values, lengths, written, column)
    assert np.isnan(found[1, 0, :3]).all()
    assert np.isfinite(found[1, 0, 3:]).all()
    assert np.isfinite(found[jnp.asarray([0, 2])]).all()
