"""Attention over pages and writing them, beside attention over rows; the TPU's kernels interpreted."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from thinkprm_jax.model import pages as page_arrays
from thinkprm_jax.model import pages_tpu
from thinkprm_jax.model.attention import attend_cache
from thinkprm_jax.model.pages import attend_pages, page_places, write_pages
from thinkprm_jax.model.pages_tpu import kernel_obstacle

ROWS, HEADS = 4, 4
STARTS = np.array([0, 21, 37, 150])  # the tokens that each row has before


def scene(page: int, kv_heads: int, width: int, head_dim: int, dtype: str, junk: float = np.nan):
    """q, rows' keys and values [B, K, S, h], and pages that hold the same in any order."""
    rng = np.random.default_rng(page + width)
    length = 192
    q = jnp.asarray(rng.normal(size=(ROWS, width, HEADS, head_dim)) * head_dim**-0.5, jnp.float32)
    rows = jnp.asarray(rng.normal(size=(2, ROWS, kv_heads, length, head_dim)), dtype)
    count = -(-length // page)
    table = np.zeros((ROWS, count), np.int32)
    order = iter(rng.permutation(np.arange(1, ROWS * count + 1)))
    pages = np.full((ROWS * count + 1, page, 2 * kv_heads, head_dim), junk, np.float32)
    for row, start in enumerate(STARTS):
        for number in range(-(-(start + width) // page)):
            table[row, number] = next(order)
        for place in range(start):
            both = np.asarray(rows[:, row, :, place], np.float32)  # [2, K, h]
            pages[table[row, place // page], place % page] = both.swapaxes(0, 1).reshape(2 * kv_heads, head_dim)
    return q, rows, jnp.asarray(pages, dtype), jnp.asarray(table)


def by_rows(q, rows, width):
    seen = np.arange(rows.shape[3]) <= (STARTS[:, None] + np.arange(width))[:, :, None]
    return attend_cache(q, rows[0], rows[1], jnp.asarray(seen))


def by_pages(attention, q, rows, pages, table, width):
    places = page_places(table, jnp.asarray(STARTS), width, pages.shape[1])
    at = STARTS[:, None] + np.arange(width)
    new = [np.take_along_axis(np.asarray(x), at[:, None, :, None], axis=2) for x in rows]
    k, v = (jnp.asarray(x.swapaxes(1, 2).reshape(ROWS * width, -1, x.shape[-1])) for x in new)
    pages = write_pages(attention, pages, k, v, places)
    return attend_pages(attention, q, pages, table, jnp.asarray(STARTS))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("page", "width", "kv_heads"), [(16, 1, 2), (64, 5, 1), (5, 3, 4), (256, 2, 2)])
def test_xlas_attention_reads_in_pages_what_it_reads_in_rows(dtype, page, width, kv_heads):
    """What nobody wrote is no number, and reaches no result."""
    q, rows, pages, table = scene(page, kv_heads, width, 8, dtype)
    found = by_pages("xla", q, rows, pages, table, width)
    tolerance = 2e-6 if dtype == "float32" else 6e-3  # weights of a running sum are rounded elsewhere
    np.testing.assert_allclose(found, by_rows(q, rows, width), atol=tolerance)


def test_a_row_is_the_same_bits_beside_longer_ones():
    q, _, pages, table = scene(16, 2, 1, 8, "float32", junk=0.0)
    places = page_places(table, jnp.asarray(STARTS), 1, 16)
    new = jnp.ones((ROWS, 2, 8))
    pages = write_pages("xla", pages, new, new, places)
    together = attend_pages("xla", q, pages, table, jnp.asarray(STARTS))
    starts = np.where(np.arange(ROWS) == 1, STARTS, 0)
    alone = attend_pages("xla", q, pages, table, jnp.asarray(starts))
    np.testing.assert_array_equal(together[1], alone[1])


def test_tokens_go_to_their_pages_and_those_without_one_to_nobodys():
    table = jnp.asarray([[3, 1], [2, 0]], jnp.int32)
    places = page_places(table, jnp.asarray([3, 4]), 2, 4)
    assert places.tolist() == [[3, 1, 0, 0], [3, 0, 0, 1]]
    beyond = page_places(table, jnp.asarray([7, 0]), 2, 4)
    assert beyond[0].tolist() == [1, 0, 2, 2]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("width", "kv_heads"), [(1, 2), (5, 1), (1, 4)])
def test_the_tpus_kernel_reads_what_xla_does(dtype, width, kv_heads, monkeypatch):
    """Interpreted on this machine, its copies included; in blocks of two pages, so that rows have one to three."""
    columns = 2 * 32 * 2 * kv_heads
    monkeypatch.setattr(pages_tpu, "_SCORES", columns * HEADS * width)
    q, rows, pages, table = scene(32, kv_heads, width, 128, dtype, junk=0.0)
    expected = by_pages("xla", q, rows, pages, table, width)
    kernel = functools.partial(pages_tpu.attend_by_kernel, interpret=True)
    monkeypatch.setattr(page_arrays, "_attend_by_pieces", kernel)
    found = by_pages("xla", q, rows, pages, table, width)
    np.testing.assert_allclose(found, expected, atol=2e-6 if dtype == "float32" else 6e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_tpus_kernel_writes_what_xla_does(dtype):
    rng = np.random.default_rng(0)
    pages = jnp.asarray(rng.normal(size=(9, 16, 4, 128)), dtype)
    new = jnp.asarray(rng.normal(size=(5, 4, 128)), dtype)
    places = jnp.asarray([[3, 3, 8, 1, 5], [0, 1, 15, 7, 7]], jnp.int32)
    expected = write_pages("xla", pages, new[:, ::2], new[:, 1::2], places)
    found = pages_tpu.write_by_kernel(pages, new, places, interpret=True)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("kv_heads", "head_dim", "dtype", "why"),
    [
        (2, 128, "bfloat16", None),
        (8, 128, "bfloat16", None),
        (1, 128, "float32", None),
        (2, 64, "bfloat16", "multiple of 128"),
        (3, 128, "bfloat16", "not for 3"),
        (2, 128, "float16", "float16"),
    ],
)
def test_which_caches_the_kernel_is_for(kv_heads, head_dim, dtype, why):
    obstacle = kernel_obstacle(kv_heads, head_dim, dtype)
    assert obstacle is None if why is None else why in obstacle
