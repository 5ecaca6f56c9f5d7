"""The layers of a training state as one array for each of their parameters.

A step that scans layers computes on ``layers.mlp.up.kernel`` [L, in, out] in place of ``layers.0.mlp.up.kernel``
to ``layers.{L-1}.mlp.up.kernel`` [in, out]: the compiler then sees one layer, and one update of the optimizer for
each parameter of it. Checkpoints, exports and models keep the names by layer, so a state is taken apart when it is
saved and put together when it is read. Both copy bits and nothing else.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

Tree = TypeVar("Tree")

_OF_A_LAYER = re.compile(r"layers\.(\d+)\.(.+)")
_OF_ALL_LAYERS = re.compile(r"layers\.[^\d.]+\..+")


def stacked_name(name: str) -> str:
    """``layers.7.mlp.up.kernel`` -> ``layers.mlp.up.kernel``; names of no layer stay."""
    found = _OF_A_LAYER.fullmatch(name)
    return f"layers.{found[2]}" if found else name


def is_stacked(name: str) -> bool:
    return _OF_ALL_LAYERS.fullmatch(name) is not None


def stacked_names(names: Iterable[str]) -> list[str]:
    """Each once, in the order in which they come first."""
    return list(dict.fromkeys(map(stacked_name, names)))


class LayerStacks:
    """Puts the layers of a state together and takes them apart.

    Every dictionary in a state that goes by the names of parameters is treated: weights, and moments of Adam.
    """

    def __init__(self, layers: int, shardings: Mapping[str, NamedSharding]) -> None:
        """``shardings``: of the parameters of one layer at least, by their names in the model."""
        self._layers = layers
        self._apart = {stacked_name(name): sharding for name, sharding in shardings.items()}

    def sharding(self, name: str) -> NamedSharding:
        """Of an array by its name in a stacked state: the layers are not split."""
        apart = self._apart[name]
        return NamedSharding(apart.mesh, PartitionSpec(None, *apart.spec)) if is_stacked(name) else apart

    def shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Shapes by name, of a stacked state."""
        found = {stacked_name(name): shape for name, shape in shapes.items()}
        return {name: (self._layers, *shape) if is_stacked(name) else shape for name, shape in found.items()}

    def together(self, tree: Tree, donate: bool = False) -> Tree:
        """A tree with arrays by layer, stacked; traceable. ``donate``: the arrays by layer are given up one stack
        after the other, so that no second copy of all of them is ever held."""

        def stack(values: dict[str, Any]) -> dict[str, Any]:
            done: dict[str, Any] = {}
            for name in stacked_names(values):
                if not is_stacked(name):
                    done[name] = values[name]
                    continue
                parts = [values[member] for member in self._members(name)]
                done[name] = _stack(self.sharding(name))(parts)
                if donate:
                    jax.block_until_ready(done[name])
                    for part in parts:
                        part.delete()
            return done

        return _map_dictionaries(stack, tree)

    def apart(self, tree: Tree) -> Tree:
        """A stacked tree of arrays or of abstract ones, by layer; traceable."""

        def split(values: dict[str, Any]) -> dict[str, Any]:
            done: dict[str, Any] = {}
            for name, value in values.items():
                if not is_stacked(name):
                    done[name] = value
                    continue
                done |= zip(self._members(name), self._parts_of(value, self._apart[name]), strict=True)
            return done

        return _map_dictionaries(split, tree)

    def _parts_of(self, stack: Any, sharding: NamedSharding) -> list[Any]:
        if isinstance(stack, jax.ShapeDtypeStruct):
            return [jax.ShapeDtypeStruct(stack.shape[1:], stack.dtype, sharding=sharding)] * self._layers
        return list(_split(self._layers, sharding)(stack))

    def _members(self, name: str) -> list[str]:
        inside = name.removeprefix("layers.")
        return [f"layers.{layer}.{inside}" for layer in range(self._layers)]


def _map_dictionaries(function: Callable[[dict[str, Any]], dict[str, Any]], tree: Tree) -> Tree:
    return jax.tree.map(
        lambda node: function(node) if isinstance(node, dict) else node,
        tree,
        is_leaf=lambda node: isinstance(node, dict),
    )


# One compiled function for each sharding; jit tells shapes and dtypes apart.


@functools.lru_cache(maxsize=64)
def _stack(sharding: NamedSharding) -> Callable[[list[jax.Array]], jax.Array]:
    return jax.jit(lambda parts: jnp.stack(parts), out_shardings=sharding)


@functools.lru_cache(maxsize=64)
def _split(layers: int, sharding: NamedSharding) -> Callable[[jax.Array], list[jax.Array]]:
    return jax.jit(lambda stack: [stack[layer] for layer in range(layers)], out_shardings=[sharding] * layers)
