"""The linear maps of a decoder, and several of one input together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.lora import HF_TARGETS, LoraSpec
from thinkprm_jax.model.matmul import contract, einsum
from thinkprm_jax.model.products import Products, multiply
from thinkprm_jax.model.quantization import Quantization, quantize


@dataclasses.dataclass(frozen=True)
class Build:
    """What every module of a decoder is made with."""

    config: ModelConfig
    rngs: nnx.Rngs
    param_dtype: DTypeLike
    dtype: DTypeLike
    lora: LoraSpec | None
    quantization: Quantization | None = None

    def linear(self, inputs: int, outputs: int, bias: bool, path: str | None = None) -> Linear:
        """``path``: of the map inside its layer; it says whether the map gets an adapter."""
        adapter = self.lora if self.lora is not None and path in self.lora.paths else None
        return Linear(self, inputs, outputs, bias, adapter, _PLACES.index(path) if path else 0)

    def floats(self) -> Build:
        """The same for maps that are never quantised."""
        return dataclasses.replace(self, quantization=None)


_PLACES = tuple(HF_TARGETS.values())


class Linear(nnx.Module):
    """y = x W + b with W [in, out], plus the adapter's part; products of ``dtype`` inputs, the result float32.

    ``kernel_scale``: float32 [out], where W is int8 (:mod:`.quantization`).
    """

    def __init__(
        self, build: Build, inputs: int, outputs: int, bias: bool, lora: LoraSpec | None, place: int
    ) -> None:
        init = nnx.initializers.normal(build.config.initializer_range)
        kernel, scale = init(build.rngs.params(), (inputs, outputs), build.param_dtype), None
        if build.quantization is not None:
            kernel, scale = quantize(kernel, inputs=0)
        self.kernel = nnx.Param(kernel)
        self.kernel_scale = None if scale is None else nnx.Param(scale)
        self.bias = nnx.Param(jnp.zeros((outputs,), build.param_dtype)) if bias else None
        self.lora_a = nnx.Param(jnp.zeros((inputs, lora.rank), jnp.float32)) if lora else None
        self.lora_b = nnx.Param(jnp.zeros((lora.rank, outputs), jnp.float32)) if lora else None
        self.lora, self.place, self.dtype = lora, place, build.dtype
        self.products: Products = "xla"  # another one: :func:`use_products`
        self.weight_gradient: Products = "xla"  # another one: :func:`use_weight_gradients`

    def __call__(self, x: jax.Array, dropout_key: jax.Array | None = None) -> jax.Array:
        """[..., in] -> float32 [..., out]. ``dropout_key``: of the layer; None: no dropout."""
        return side_by_side((self,), x, dropout_key)[0]

    def complete(self, y: jax.Array, x: jax.Array, dropout_key: jax.Array | None) -> jax.Array:
        """y = x W, made into the result."""
        leading = "bt"[: x.ndim - 1]
        if self.bias is not None:
            y = y + self.bias[...].astype(jnp.float32)
        if self.lora is None or self.lora_a is None or self.lora_b is None:
            return y
        if dropout_key is not None and self.lora.dropout:
            keep = 1 - self.lora.dropout
            kept = jax.random.bernoulli(jax.random.fold_in(dropout_key, self.place), keep, x.shape)
            x = jnp.where(kept, x / keep, 0.0)
        low = contract(f"{leading}i,ir->{leading}r", x, self.lora_a[...], self.dtype)
        return y + self.lora.scale * contract(f"{leading}r,ro->{leading}o", low, self.lora_b[...], self.dtype)


def side_by_side(linears: Sequence[Linear], x: jax.Array, dropout_key: jax.Array | None = None) -> list[jax.Array]:
    """Several maps of one x [..., in]: float32 [..., out] of each. Our kernel computes them in one call."""
    first = linears[0]
    kernels = [linear.kernel[...] for linear in linears]
    scales = [linear.kernel_scale[...] for linear in linears if linear.kernel_scale is not None] or None
    products = multiply(x, kernels, first.dtype, scales=scales) if first.products == "native" else None
    spec = f"{'bt'[: x.ndim - 1]}i,io->{'bt'[: x.ndim - 1]}o"
    if products is None and scales is not None:  # whole numbers have no gradient
        pairs = zip(kernels, scales, strict=True)
        products = [einsum(spec, x, kernel, first.dtype) * scale for kernel, scale in pairs]
    if products is None:
        products = [contract(spec, x, kernel, first.dtype, first.weight_gradient) for kernel in kernels]
    return [linear.complete(y, x, dropout_key) for linear, y in zip(linears, products, strict=True)]
