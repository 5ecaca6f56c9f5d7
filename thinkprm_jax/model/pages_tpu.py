"""Pages of keys and values on TPUs, by kernels in Pallas: one reads them for decode steps, one writes new ones.

JAX ships a kernel for the same (``jax.experimental.pallas.ops.tpu.ragged_paged_attention``). Ours reads less: of a
row's last block its pages only, where JAX's fetches a whole block, of 1,024 positions and more as it is tuned. And
ours can be interpreted, so that the tests compare it with XLA's attention on any machine.

**Reading.** A row after the other, and of a row block after block, the next one under way while one is computed.
All heads are one product: a block's keys and values are rows [positions x 2 K, h] as they lie in memory, a query
meets all of them, and a mask leaves it the keys of its own head. The weights of keys, moved by one, are those of
their values. That is 2 K times the products that are needed, on a unit that would wait for the memory otherwise.

**Writing** is a copy for every token, all under way at once. XLA would scatter, and for a scatter a TPU's compiler
lays the whole array out anew, and back.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from thinkprm_jax.model.attention import MASKED

PAGE = 64  # positions of a page: a copy of 64 KiB with two heads of 128 numbers in bfloat16
_LANES = 128  # a head's width is a multiple of it
_BLOCK = 2**21  # bytes of a block, at most
_SCORES = 2**18  # of a block, at most: 1 MiB
_MOST_QUERIES = 512  # of a row: tokens x heads


def kernel_obstacle(kv_heads: int, head_dim: int, dtype: DTypeLike) -> str | None:
    """Why the kernels are not for such a cache; None: they are."""
    dtype = jnp.dtype(dtype)
    if dtype not in (jnp.bfloat16, jnp.float32):
        return f"the TPU's kernel for pages is for bfloat16 and float32, not {dtype.name}"
    if head_dim % _LANES:
        return f"the TPU's kernel for pages is for heads of a multiple of {_LANES} numbers, not {head_dim}"
    packed = 4 // dtype.itemsize  # numbers in 32 bits
    tiles = 2 * kv_heads // packed
    if 2 * kv_heads % packed or (tiles not in (1, 2, 4) and tiles % 8):  # else memory has gaps between positions
        return f"the TPU's kernel for pages is not for {kv_heads} key-value heads in {dtype.name}"
    return None


def reads_by_kernel(width: int, heads: int) -> bool:
    """Whether W = ``width`` tokens a row are few enough: a decode step's are. Pieces of prompts are bound by
    arithmetic, and not by memory: XLA's attention is for them."""
    return width * heads <= _MOST_QUERIES


def attend_by_kernel(
    q: jax.Array, pages: jax.Array, table: jax.Array, starts: jax.Array, interpret: bool = False
) -> jax.Array:
    """See :func:`thinkprm_jax.model.pages.attend_pages`. interpret: on this machine, for tests."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    batch, width, heads, head_dim = q.shape
    page, both = pages.shape[1:3]
    queries = width * heads
    # float32 is multiplied as three of bfloat16, each with a place of its own.
    most = _BLOCK // head_dim // (2 if pages.dtype.itemsize == 2 else 8)
    at_once = max(min(most, _SCORES // queries) // (page * both), 1)
    columns = at_once * page * both
    place, ahead, foreign = _constants(width, heads, columns, both)
    # Heads side by side, as products with weights give and take them: to split them here would be a copy.
    q = q.astype(jnp.float32).reshape(batch, width, heads * head_dim)
    block = pl.BlockSpec((1, width, heads * head_dim), lambda row, *_: (row, 0, 0))
    whole = [pl.BlockSpec(x.shape, lambda *_: (0, 0)) for x in (place, ahead, foreign)]
    output = pl.pallas_call(
        functools.partial(_attend, width=width, interpret=interpret),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(batch,),
            in_specs=[block, *whole, pl.BlockSpec(memory_space=pl.ANY)],
            out_specs=block,
            scratch_shapes=[
                pltpu.VMEM((2, at_once, page, both, head_dim), pages.dtype),
                pltpu.SemaphoreType.DMA((2,)),
                pltpu.SMEM((1,), jnp.int32),
            ],
        ),
        out_shape=jax.ShapeDtypeStruct(q.shape, jnp.float32),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
        interpret=pltpu.InterpretParams() if interpret else False,
        name="attend_pages",
    )(starts.astype(jnp.int32), table, q, place, ahead, foreign, pages)
    return output.reshape(batch, width, heads, head_dim)


def _constants(width: int, heads: int, columns: int, both: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a block: int32 [1, columns], the position of every key or value; int32 [H x W, 1], how far every query
    stands behind its row's first; float32 [H x W, columns], MASKED but for the keys of a query's own head."""
    column, query = np.arange(columns)[None], np.arange(heads * width)[:, None]
    own = column % both == 2 * (query // width // (2 * heads // both))
    foreign = np.where(own, 0, MASKED).astype(np.float32)
    return (column // both).astype(np.int32), (query % width).astype(np.int32), foreign


def _attend(
    starts: Any, table: Any, q: Any, place: Any, ahead: Any, foreign: Any, pages: Any, output: Any, blocks: Any,
    done: Any, turn: Any, *, width: int, interpret: bool,
) -> None:  # fmt: skip
    """One row. ``pages`` is the pool in its own memory; ``blocks``, ``done`` and ``turn`` stay from row to row:
    two blocks, whether their copies are done, and which of them is next."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    row, rows = pl.program_id(0), pl.num_programs(0)
    _, at_once, page, both, head_dim = blocks.shape
    size = at_once * page
    precision = jax.lax.Precision.HIGHEST if blocks.dtype == jnp.float32 else None

    def copies(row: Any, block: Any, slot: Any, act: Any) -> None:
        """Begins or awaits the copies of the pages that a row has in a block."""
        for i in range(at_once):
            number = block * at_once + i

            @pl.when(number * page < starts[row] + width)
            def _(i: int = i, number: Any = number) -> None:
                act(pltpu.make_async_copy(pages.at[table[row, number]], blocks.at[slot, i], done.at[slot]))

    @pl.when(row == 0)
    def begin() -> None:
        blocks[...] = jnp.zeros_like(blocks)  # what no copy has filled must be numbers
        turn[0] = 0
        copies(0, 0, 0, lambda copy: copy.start())

    heads = [slice(i, i + head_dim) for i in range(0, q.shape[2], head_dim)]
    queries = jnp.concatenate([q[0, :, head] for head in heads]).astype(blocks.dtype)  # [H x W, h]
    first = starts[row]
    count = jax.lax.div(first + (width + size - 1), size)
    own = first + ahead[...]

    def block(i: Any, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        best, total, sums = state
        slot = turn[0]
        last = i + 1 == count
        next_row, next_block = jnp.where(last, row + 1, row), jnp.where(last, 0, i + 1)

        @pl.when(next_row < rows)
        def go_ahead() -> None:
            copies(next_row, next_block, 1 - slot, lambda copy: copy.start())

        copies(row, i, slot, lambda copy: copy.wait())
        turn[0] = 1 - slot
        shape = size * both, head_dim
        found = blocks[slot].reshape(shape) if interpret else blocks.at[slot].reshape(*shape)[...]
        scores = jax.lax.dot_general(
            queries, found, (((1,), (1,)), ((), ())), precision=precision, preferred_element_type=jnp.float32
        )
        scores = jnp.where(place[...] + i * size <= own, scores + foreign[...], MASKED)
        new = jnp.maximum(best, jnp.max(scores, axis=1, keepdims=True))
        weights = jnp.exp(scores - new)
        fade = jnp.exp(best - new)
        total = total * fade + jnp.sum(weights, axis=1, keepdims=True)
        weights = pltpu.roll(weights, 1, 1).astype(found.dtype)  # from every key to its value
        read = jnp.dot(weights, found, precision=precision, preferred_element_type=jnp.float32)
        return new, total, sums * fade + read

    state = (
        jnp.full((len(queries), 1), MASKED, jnp.float32),
        jnp.zeros((len(queries), 1), jnp.float32),
        jnp.zeros(queries.shape, jnp.float32),
    )
    _, total, sums = jax.lax.fori_loop(0, count, block, state)
    results = sums / total
    for i, head in enumerate(heads):
        output[0, :, head] = results[i * width : (i + 1) * width]


def write_by_kernel(pages: jax.Array, new: jax.Array, places: jax.Array, interpret: bool = False) -> jax.Array:
    """See :func:`thinkprm_jax.model.pages.write_pages`. new: [N, 2 K, h] in the dtype of the pages. interpret: on
    this machine, for tests."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    return pl.pallas_call(
        _write,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(1,),
            in_specs=[pl.BlockSpec(new.shape, lambda *_: (0, 0, 0)), pl.BlockSpec(memory_space=pl.ANY)],
            out_specs=pl.BlockSpec(memory_space=pl.ANY),
            scratch_shapes=[pltpu.SemaphoreType.DMA],
        ),
        out_shape=jax.ShapeDtypeStruct(pages.shape, pages.dtype),
        input_output_aliases={2: 0},
        interpret=pltpu.InterpretParams() if interpret else False,
        name="write_pages",
    )(places, new, pages)


def _write(places: Any, new: Any, before: Any, pages: Any, done: Any) -> None:
    """All copies are begun, then all are waited for."""
    from jax.experimental.pallas import tpu as pltpu

    del before  # the same memory as ``pages``

    def copy(i: jax.Array) -> Any:
        return pltpu.make_async_copy(new.at[i], pages.at[places[0, i], places[1, i]], done)

    def begin(i: jax.Array, _: None) -> None:
        copy(i).start()

    def end(i: jax.Array, _: None) -> None:
        copy(i).wait()

    jax.lax.fori_loop(0, new.shape[0], begin, None)
    jax.lax.fori_loop(0, new.shape[0], end, None)
