"""The weights that requests run with, while others change them.

A sampler uses a model's variables where they are. Whoever trains the model may give them other values at any time,
or have that done at the right moment (:meth:`.Sampler.update_weights`). Keys and values of different weights must
never meet, so requests run in turns:

    variables   of the model; their values may be replaced from outside
    turn        of requests that overlap: all that was submitted before a change, then what was submitted after it
    snapshot    the values that the requests of a turn run with, from the first one to the last
    version     of the values: it grows by one with every change, and all results say theirs

While nothing runs there is no snapshot, so no values are kept that nobody needs any more.
"""

from __future__ import annotations

import collections
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from thinkprm_jax.errors import UserError
from thinkprm_jax.sampler.handle import Handle

Waiting = tuple[int, Sequence[jax.Array] | None, Handle[int] | None]


class WeightVersions:
    """The variables of a model, and which of their values are in use. Not to be used by two threads at once.

    Attributes:
      graph: of the model: what tells one program from another.
      loaded: False between :meth:`release` and :meth:`load`.
      version: of the values that requests run with, from 0.
      turn: of the requests that may run. newest: of what is submitted now.
    """

    def __init__(self, model: nnx.Module) -> None:
        self.version = self.turn = self.newest = 0
        self._waiting: collections.deque[Waiting] = collections.deque()
        self._attach(model)

    def _attach(self, model: nnx.Module) -> None:
        self.graph, self._state = nnx.split(model)
        flat = nnx.to_flat_state(self._state)
        self.names = [".".join(map(str, path)) for path, _ in flat]
        self._variables: list[nnx.Variable[Any]] = [variable for _, variable in flat]
        self._forms = [_form(value) for value in self._raw()]
        self._seen = list(map(_reference, self._raw()))  # the values of ``version``; they are not kept alive
        self._snapshot: nnx.State | None = None
        self._refused: UserError | None = None
        self.loaded = True

    def _raw(self) -> list[Any]:
        return [variable.get_raw_value() for variable in self._variables]

    def load(self, model: nnx.Module) -> None:
        """From here on the variables are those of ``model``, of the same architecture."""
        self._attach(model)
        self.version += 1

    def release(self) -> None:
        """Lets go of them."""
        self._state, self._variables, self._snapshot = nnx.State({}), [], None
        self._seen, self.loaded = [], False

    @property
    def changed(self) -> bool:
        """Whether the variables have other values than those of ``version``."""
        return any(value is not seen() for value, seen in zip(self._raw(), self._seen, strict=True))

    def current(self) -> dict[str, jax.Array]:
        """The values as they are, by dotted path."""
        return dict(zip(self.names, self._raw(), strict=True))

    def state(self) -> nnx.State:
        """The same as an NNX state of its own variables, for whoever computes beside the sampler."""
        values = iter(self._raw())
        return jax.tree.map(lambda variable: variable.replace(next(values)), self._state, is_leaf=_is_variable)

    @property
    def pending(self) -> bool:
        """Whether a turn is over as soon as its requests are."""
        return self.newest > self.turn

    @property
    def lost(self) -> bool:
        """Whether the requests of this turn cannot go on: their values were given to a computation outside."""
        taken = self._snapshot
        return taken is not None and self.changed and any(map(_is_deleted, jax.tree.leaves(taken)))

    def notice(self) -> int:
        """Looks whether the values were changed while requests run. Returns: the turn of what is submitted now."""
        if self._snapshot is not None and not self.pending and self.changed:
            self.newest += 1
            self._waiting.append((self.newest, None, None))
        return self.newest

    def propose(self, values: Sequence[jax.Array], handle: Handle[int]) -> None:
        """These values are those of the next turn; ``handle`` then gets their version."""
        self.newest += 1
        self._waiting.append((self.newest, values, handle))

    def begin(self, turn: int) -> bool:
        """Nothing runs, and the next request is of this turn. Returns: whether what was cached until now is worth
        nothing any more."""
        settled: list[Handle[int]] = []
        while self._waiting and self._waiting[0][0] <= turn:
            _, values, handle = self._waiting.popleft()
            self._snapshot = None
            if values is not None:
                for variable, value in zip(self._variables, values, strict=True):
                    variable.set_raw_value(value)
            settled += [] if handle is None else [handle]
        self.turn = max(self.turn, turn)
        changed = self._snapshot is None and self._look()
        for handle in settled:
            handle.settle(self.version)
        return changed

    def _look(self) -> bool:
        """Takes the values as they are. Returns: whether they are others than before."""
        values = self._raw()
        with_them = iter(values)
        self._snapshot = jax.tree.map(
            lambda variable: variable.replace(next(with_them)), self._state, is_leaf=_is_variable
        )
        changed = any(value is not seen() for value, seen in zip(values, self._seen, strict=True))
        if changed:
            self._seen, self.version = list(map(_reference, values)), self.version + 1
            self._refused = self._misfit(values)
        return changed

    def _misfit(self, values: Sequence[Any]) -> UserError | None:
        """Of values that others have put there: a program for other shapes would mean another model."""
        for name, value, form in zip(self.names, values, self._forms, strict=True):
            if _form(value) != form:
                return UserError(f"the model's {name} is now {_shown(_form(value))}, it was {_shown(form)}")
        return None

    def parameters(self) -> nnx.State:
        """What the requests of this turn compute with.

        Raises:
          UserError: a variable was given a value of another shape or dtype.
        """
        if self._refused is not None:
            raise self._refused
        assert self._snapshot is not None
        return self._snapshot

    def rest(self) -> None:
        """Nothing runs and nothing waits."""
        self._snapshot = None


def _is_variable(value: Any) -> bool:
    return isinstance(value, nnx.Variable)


def _reference(value: Any) -> Callable[[], Any]:
    """Of a value that it does not keep alive; shapes without numbers may be kept."""
    return weakref.ref(value) if isinstance(value, jax.Array | np.ndarray) else lambda: value


def _form(value: Any) -> tuple[tuple[int, ...], str]:
    return tuple(value.shape), str(value.dtype)


def _shown(form: tuple[tuple[int, ...], str]) -> str:
    return f"{form[1]} {list(form[0])}"


def _is_deleted(value: Any) -> bool:
    return isinstance(value, jax.Array) and value.is_deleted()
