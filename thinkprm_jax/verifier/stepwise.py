"""Verifiers that score every step in one forward pass, without writing a chain: what all kinds of them share.

Many solutions go through the model in batches of a few fixed shapes. Problem and steps are one text, so that each
of its tokens is computed once, however many steps it has. A kind says how a text is laid out (:class:`Encoder`),
and where its two classes are read: from two rows of the vocabulary's head, or from a two-class head of its own.
"""

from __future__ import annotations

import abc
import bisect
import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from thinkprm_jax.activity import Activity
from thinkprm_jax.data.discriminative import StepwiseText
from thinkprm_jax.errors import RequestError, TooLong, UserError
from thinkprm_jax.sampler.buckets import length_buckets
from thinkprm_jax.sampler.handle import Handle, StepLoop, check_can_compute, finished
from thinkprm_jax.verifier.base import Verdict, Verifier, check_item
from thinkprm_jax.verifier.loading import load_objects
from thinkprm_jax.verifier.settings import PlacementSettings, check_names, setting

if TYPE_CHECKING:
    import jax
    from flax import nnx
    from jax.sharding import Mesh

    from thinkprm_jax.model.decoder import Decoder
    from thinkprm_jax.sampler import Sampler
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer

_SHORTEST = 64  # the first length bucket
_FEWEST_STEPS = 8  # the first bucket of steps a row; they grow fourfold, like the rows of a batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepwiseSettings(PlacementSettings):
    """Of verifiers that score every step in one pass."""

    batch_tokens: int = setting(8192, "places (rows x length) of a forward pass", stamped="never")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length < 1:
            raise UserError(f"max_length is {self.max_length}, it must be at least 1")
        if self.batch_tokens < 1:
            raise UserError(f"batch_tokens is {self.batch_tokens}, it must be at least 1")


class Encoder(Protocol):
    """How a kind lays its text out.

    choices: ids of the two classes in the vocabulary, correct first; None: the model has a head of scores.
    """

    @property
    def choices(self) -> tuple[int, int] | None: ...

    def encode(self, problem: str, steps: Sequence[str]) -> StepwiseText:
        """Ids, and for each step the place whose state scores it. Problem and steps are untrusted: no control
        string in them becomes a control token. RequestError where the text cannot be encoded."""

    def show(self, text: StepwiseText) -> str:
        """The text for people."""


class StepwisePRM(Verifier):
    """A verifier that scores every step without writing a chain; :mod:`.discriminative` and :mod:`.published` have
    its kinds. Its score of a solution is that of the last step.

    Args:
      model_name_or_path: a Hugging Face folder or id.
      settings: in place of the name and the values.
      mesh: devices to run on: rows over data x fsdp where they divide, heads over tensor.
      model, tokenizer: objects to use instead of loading ``model_name_or_path``.
      values: of :class:`StepwiseSettings`. ``max_length``: longest text in tokens; a longer one is refused, not
        cut. ``dtype``: None: float32 on CPUs, bfloat16 elsewhere. Scores are float32 whatever this is.
    Raises:
      UserError: the model cannot be loaded or is of another kind; a setting cannot work.
    """

    settings: StepwiseSettings

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        settings: StepwiseSettings | None = None,
        mesh: Mesh | None = None,
        model: Decoder | None = None,
        tokenizer: Tokenizer | None = None,
        **values: Any,
    ) -> None:
        if settings is None:
            settings = self._given_settings(model_name_or_path, model, tokenizer, values)
        from thinkprm_jax.distributed.sharing import our_mesh

        self.settings, mesh = settings.settled(), our_mesh(mesh)
        model, self.tokenizer = load_objects(self.settings, model, tokenizer, mesh)
        self.max_length = self.settings.max_length
        self._config, self._positions = model.config, model.config.positions
        if self.max_length > self._positions:
            raise UserError(
                f"max_length is {self.max_length}, it must be from 1 to the model's {self._positions} positions"
            )
        self._encoder = self.make_encoder()
        self._pass = _ForwardPass(model, self._encoder.choices, mesh)
        self._lengths = length_buckets(min(_SHORTEST, self.max_length), self.max_length)
        self._rows = {length: max(1, self.settings.batch_tokens // length) for length in self._lengths}
        self._waiting: dict[int, list[_Waiting]] = {length: [] for length in self._lengths}
        self._loop = StepLoop(self._step, self._has_room)
        self._scoring = self._scored = 0  # texts: in the pass that runs, in all before it

    @classmethod
    def _given_settings(
        cls, name: str | Path | None, model: Decoder | None, tokenizer: Tokenizer | None, values: dict[str, Any]
    ) -> Any:
        if (model is None) != (tokenizer is None) or (model is None) == (name is None):
            raise UserError("give model_name_or_path, or model and tokenizer")
        check_names(cls.Settings, values)
        if model is not None:
            return cls.Settings(**{**values, "dtype": model.dtype.name})
        return cls.Settings(model=str(name), **values)

    @classmethod
    def load(cls, settings: Any, *, mesh: Mesh | None = None, sampler: Sampler | None = None) -> Self:
        return cls(settings=settings, mesh=mesh)

    @abc.abstractmethod
    def make_encoder(self) -> Encoder:
        """The layout of the text, for ``tokenizer``."""

    @property
    def compilations(self) -> int:
        """Programs compiled so far for this architecture and mesh."""
        return self._pass.compilations()

    @property
    def weight_version(self) -> int:
        return self._pass.weights.version

    def update_weights(self, weights: Any, *, copy: bool = True) -> int:
        from thinkprm_jax.checkpoint.new_weights import read_weights

        check_can_compute()
        versions = self._pass.weights
        values = read_weights(weights, self._config, versions.current(), copy)
        with self.loop.alone():
            while self._step():  # what was submitted before
                pass
            handle: Handle[int] = Handle(self.loop)
            versions.propose(values, handle)
            versions.begin(versions.newest)
            versions.rest()
        return handle.result()

    @property
    def activity(self) -> Activity:
        waiting = sum(len(texts) for texts in self._waiting.values())
        return Activity("scoring" if self._scoring else "", self._scoring, waiting, self._scored)

    @property
    def loop(self) -> StepLoop:
        return self._loop

    def submit(self, problem: str, steps: Sequence[str]) -> Handle[Verdict]:
        check_can_compute()
        try:
            steps = check_item(problem, steps)
            self.tokenizer.check_fits("\n".join([problem, *steps]), self.max_length, self._positions)
            text = self._encoder.encode(problem, steps)
            if len(text.ids) > self.max_length:
                message = f"the text has {len(text.ids)} tokens, max_length is {self.max_length}"
                raise TooLong(message, len(text.ids), self._positions)
        except RequestError as error:
            return finished(self.loop, Verdict(error=error))
        handle: Handle[Verdict] = Handle(self.loop)
        with self.loop.changed:
            self._waiting[self._length_of(text)].append((text, handle))
            self.loop.wake()
        return handle

    def _length_of(self, text: StepwiseText) -> int:
        """The bucket of a text."""
        return self._lengths[bisect.bisect_left(self._lengths, len(text.ids))]

    def _has_room(self) -> bool:
        """No batch of texts of similar length is full."""
        return not any(len(waiting) >= self._rows[length] for length, waiting in self._waiting.items())

    def _step(self) -> bool:
        """One forward pass over what waits, a full batch if there is one."""
        with self.loop.changed:
            batch, length = self._next_batch()
        if not batch:
            return False
        self._scoring = len(batch)
        try:
            self._judge(batch, length)
        except Exception as error:  # of the device
            for _, handle in batch:
                handle.fail(error)
        except BaseException:  # this thread is interrupted, and others may wait
            with self.loop.changed:
                for text, handle in batch:
                    self._waiting[self._length_of(text)].append((text, handle))
            raise
        finally:
            self._scoring = 0
        self._scored += len(batch)
        return True

    def _next_batch(self) -> tuple[list[_Waiting], int]:
        """Takes it, with the length of its rows. Where nothing is full, what waits fills few batches, each as long
        as its longest text: a text may stand in a longer row."""
        for length, waiting in self._waiting.items():
            waiting[:] = [(text, handle) for text, handle in waiting if not handle.done()]
            if len(waiting) >= self._rows[length]:
                batch, waiting[:] = waiting[: self._rows[length]], waiting[self._rows[length] :]
                return batch, length
        batch, longest = [], 0
        for length in reversed(self._lengths):
            waiting = self._waiting[length]
            if waiting and not batch:
                longest = length
            room = self._rows[longest] - len(batch) if longest else 0
            batch += waiting[:room]
            del waiting[:room]
        return batch, longest

    def _judge(self, batch: Sequence[_Waiting], length: int) -> None:
        """One forward pass. Its shape: a bucket each for length, rows and steps a row."""
        height = min(_fourfold(1, len(batch)), self._rows[length])
        width = _fourfold(_FEWEST_STEPS, max(len(text.places) for text, _ in batch))
        tokens, places = np.zeros((height, length), np.int32), np.zeros((height, width), np.int32)
        for number, (text, _) in enumerate(batch):
            tokens[number, : len(text.ids)] = text.ids
            places[number, : len(text.places)] = text.places
        for (text, handle), odds in zip(batch, self._pass(tokens, places), strict=False):
            odds = odds[: len(text.places)]
            prompt = self._encoder.show(text)
            if np.isfinite(odds).all():
                verdict = Verdict.of_scores(prompt, tuple(map(_sigmoid, odds.tolist())))
                handle.settle(dataclasses.replace(verdict, weight_version=self.weight_version))
            else:
                step = int(np.isfinite(odds).argmin()) + 1
                error = RequestError(f"the logits at step {step} are not finite")
                handle.settle(Verdict(prompt, error=error))


_Waiting = tuple[StepwiseText, Handle[Verdict]]


class _ForwardPass:
    """log P(correct) - log P(incorrect) at given places, on the model's devices."""

    def __init__(self, model: Decoder, choices: tuple[int, int] | None, mesh: Mesh | None) -> None:
        from thinkprm_jax.sampler.weights import WeightVersions

        if (choices is None) == (model.score is None):
            raise UserError(
                "this kind of verifier reads a head of scores, and the model has a head over the vocabulary"
                if choices is None
                else "this kind of verifier reads a head over the vocabulary, and the model has a head of scores"
            )
        self.weights = WeightVersions(model)
        self._compute = _compiled(self.weights.graph)
        self._choices = np.asarray(choices or (1, 0), np.int32)
        self._mesh = mesh

    def __call__(self, tokens: np.ndarray, places: np.ndarray) -> np.ndarray:
        """tokens int [B, T], right padded; places int [B, S] -> float32 [B, S]."""
        arrays = (tokens, places)
        if self._mesh is not None:
            import jax

            from thinkprm_jax.distributed.mesh import named_sharding

            rows = named_sharding(self._mesh, ("batch", None), {"batch": len(tokens)})
            arrays = tuple(jax.device_put(array, rows) for array in arrays)
        self.weights.begin(self.weights.newest)  # as the variables are at this moment
        try:
            return np.asarray(self._compute(self.weights.parameters(), *arrays, self._choices))
        finally:
            self.weights.rest()

    def compilations(self) -> int:
        return self._compute._cache_size()


@functools.lru_cache(maxsize=32)
def _compiled(graph: nnx.GraphDef) -> Any:
    """The function for an architecture, made once: two verifiers of one model share every compilation."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    def log_odds(parameters: nnx.State, tokens: jax.Array, places: jax.Array, choices: jax.Array) -> jax.Array:
        model = nnx.merge(graph, parameters)
        marked = jnp.take_along_axis(model.hidden(tokens), places[..., None], axis=1)  # [B, S, D]
        offset: jax.Array | float = 0.0
        if model.score is None:
            # In bfloat16 two logits are often equal: their difference is of float32 weights, before the product.
            positive, negative = model.head_rows(choices).astype(jnp.float32)
            weights = positive - negative
        else:
            marked, weights, offset = model.score.log_odds(marked)
        odds = jnp.einsum("bsd,d->bs", marked, weights, precision=jax.lax.Precision.HIGHEST)
        return odds + offset

    return jax.jit(log_odds)


def _fourfold(smallest: int, value: int) -> int:
    """The first of smallest, 4 smallest, 16 smallest, ... that is at least ``value``."""
    while smallest < value:
        smallest *= 4
    return smallest


def _sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
