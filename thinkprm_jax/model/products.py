"""Products with weights by our own kernel on CPUs, for the few rows of a decode step (``cc/products.h``).

XLA's product of 2 to 64 rows takes several times as long as reading the weights; the kernel's takes about that
long. It reads weights where they are and as they are, and a row's results do not depend on the rows beside it. It
has no derivative: training takes XLA's.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike

from thinkprm_jax.errors import UserError
from thinkprm_jax.model.native import NoLibraryError, load_library

logger = logging.getLogger(__name__)

Products = Literal["xla", "native"]
Requested = Literal["auto", "xla", "native"]
VARIABLE = "THINKPRM_JAX_PRODUCTS"
SOURCE = Path(__file__).parent / "cc" / "kernels.cc"
_TARGETS = ("products", "attention", "pieces", "layers", "sum", "largest")
# Above it XLA's products are as fast. Below stand the widest steps, 32 rows of 8 tokens: what a token gets must
# not depend on how many a step has.
_MOST_ROWS = 256
_LEAST_WEIGHT_BYTES = 8 * 2**20


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The compiled kernels. name: what their names for XLA end with. tiles: the processor has tiles for bfloat16
    (AMX)."""

    name: str
    tiles: bool

    def target(self, kernel: str) -> str:
        """Its name for XLA."""
        return f"thinkprm_{kernel}_{self.name}"

    def most_rows(self, dtype: DTypeLike) -> float:
        """Of a product that is better done by ours."""
        return math.inf if self.tiles and jnp.dtype(dtype) == jnp.bfloat16 else _MOST_ROWS


@functools.lru_cache(maxsize=8)
def load_kernels(flags: tuple[str, ...] = ("-march=native",)) -> Kernels:
    """Compiles them where that has not been done, loads them and tells XLA of them.

    Raises:
      NoLibraryError: they cannot run here.
    """
    library, name = load_library(SOURCE, jax.ffi.include_dir(), flags)
    has_tiles = library.thinkprm_has_tiles
    has_tiles.restype = ctypes.c_bool
    kernels = Kernels(name, bool(has_tiles()))
    for kernel in _TARGETS:  # compiled programs that are kept name what they were made for
        function = getattr(library, f"thinkprm_{kernel}")
        jax.ffi.register_ffi_target(kernels.target(kernel), jax.ffi.pycapsule(function), platform="cpu")
    return kernels


def kernel_version() -> str:
    """Of the kernels' source: a short name that changes with it."""
    digest = hashlib.sha256()
    for path in sorted(SOURCE.parent.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def choose_products(
    requested: Requested | None, dtype: DTypeLike, weight_bytes: int, mesh: Mesh | None = None
) -> Products:
    """What computes the products of a sampler.

    Args:
      requested: None: what $THINKPRM_JAX_PRODUCTS says, or "auto": the kernel where it can run and the model is
        large enough to make up for what it takes to compile and load.
      dtype: of the products' inputs. weight_bytes: of the model. mesh: it is on.
    Raises:
      UserError: the kernel was asked for by name and cannot run; a word that is none of these.
    """
    asked = os.environ.get(VARIABLE) or "auto" if requested is None else requested
    if asked not in get_args(Requested):
        said_by = VARIABLE if requested is None else "products"
        raise UserError(f"{said_by} is {asked!r} (it may be {', '.join(get_args(Requested))})")
    if asked == "xla" or (asked == "auto" and weight_bytes < _LEAST_WEIGHT_BYTES):
        return "xla"
    obstacle = _obstacle(dtype, mesh)
    if obstacle is None:
        try:
            load_kernels()
            return "native"
        except NoLibraryError as error:
            obstacle = str(error)
            if asked == "auto":
                _say_once(f"products by XLA, which are slower for few rows ({VARIABLE}=xla says so): {obstacle}")
    if asked == "native":
        raise UserError(f"products native cannot run: {obstacle}")
    return "xla"


def choose_weight_gradients(dtype: DTypeLike, mesh: Mesh) -> Products:
    """What computes the gradients of weights in training: the kernel where the processor has tiles for bfloat16.

    There XLA sums the thousands of rows of a batch as slowly as in float32; its other products are fast.

    Raises:
      UserError: $THINKPRM_JAX_PRODUCTS is a word that it cannot be.
    """
    if mesh.devices.flat[0].platform != "cpu" or jnp.dtype(dtype) != jnp.bfloat16:
        return "xla"
    chosen = choose_products(None, dtype, _LEAST_WEIGHT_BYTES, mesh)  # rows are many, however small the model is
    return "native" if chosen == "native" and load_kernels().tiles else "xla"


def _obstacle(dtype: DTypeLike, mesh: Mesh | None) -> str | None:
    platform = jax.default_backend()
    if platform != "cpu":
        return f"they are for CPUs, this is {platform}"
    if (mesh is not None and mesh.size > 1) or jax.device_count() > 1:
        return "they are for one device"
    if jnp.dtype(dtype) not in (jnp.float32, jnp.bfloat16):
        return f"they are of float32 or bfloat16, not {jnp.dtype(dtype).name}"
    return None


@functools.lru_cache(maxsize=8)
def _say_once(line: str) -> None:
    logger.warning("%s", line)


def multiply(
    x: jax.Array,
    weights: Sequence[jax.Array],
    dtype: DTypeLike,
    transposed: bool = False,
    scales: Sequence[jax.Array] | None = None,
) -> list[jax.Array] | None:
    """The products of x [..., K] with each of ``weights`` [K, N], float32 [..., N], by the kernel.

    Args:
      dtype: what inputs are rounded to; the weights are in it, or are brought into it.
      transposed: the weights are [N, K].
      scales: of int8 weights (:mod:`.quantization`), float32 [N] each; inputs are rounded to eight bits then,
        whatever ``dtype`` is.
    Returns: None where there are so many rows that XLA is faster.
    """
    kernels = load_kernels()
    rows = math.prod(x.shape[:-1])
    if scales is None and rows > kernels.most_rows(dtype):
        return None
    taken = jnp.float32 if scales is not None else dtype
    outputs = [weight.shape[0 if transposed else 1] for weight in weights]
    results = jax.ffi.ffi_call(
        kernels.target("products"), [jax.ShapeDtypeStruct((rows, size), jnp.float32) for size in outputs]
    )(
        x.reshape(rows, x.shape[-1]).astype(taken),
        *(weight.astype(dtype) if scales is None else weight for weight in weights),
        *(scales or ()),
        transposed=transposed,
    )
    return [y.reshape(*x.shape[:-1], size) for y, size in zip(results, outputs, strict=True)]
