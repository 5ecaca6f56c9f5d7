"""The training loop: batches in, checkpoints and metrics out, until the last step or a polite signal."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from thinkprm_jax.checkpoint.training_state import CheckpointStore
from thinkprm_jax.data.batches import Batch
from thinkprm_jax.errors import UserError
from thinkprm_jax.training.config import CheckpointConfig, TrainRecipe
from thinkprm_jax.training.loss import Sums
from thinkprm_jax.training.metrics import Rates
from thinkprm_jax.training.profile import StepProfile
from thinkprm_jax.training.trackers import Tracker
from thinkprm_jax.training.trainer import Arrays, Trainer, TrainState

Placed = tuple[Batch, Arrays, dict[str, Any]]  # a batch, its arrays on the mesh, the data position after it
OnVerdicts = Callable[[TrainState, int], dict[str, float]]


class Reporter(Protocol):
    """Tells a person how far the run is (:class:`thinkprm_jax.progress.TrainingProgress`)."""

    def update(self, step: int, loss: float, tokens_per_second: float) -> None: ...

    def say(self, text: str) -> None:
        """One line."""

    def phase(self, text: str) -> None:
        """What is being done until the next call; "": steps."""


class StopSignal:
    """Turns SIGTERM (a preemption notice) and the first Ctrl-C into a flag that the loop reads between steps."""

    def __enter__(self) -> StopSignal:
        self.name: str | None = None
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C stops at once

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class Agreement:
    """What the processes decide together after a step: to stop, because one of them got a signal; to save, because
    process 0's clock says so. A save or an end that is not the same step everywhere would wait for ever.

    With several processes the votes of a step go through a tiny reduction on the devices, and count one step
    later, when they are there anyhow: nobody waits for them.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._alone = jax.process_count() == 1
        self._votes_on_devices = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._any = jax.jit(lambda votes: jnp.max(votes, axis=0), out_shardings=everywhere)
        self._counting: jax.Array | None = None
        self._save_asked = False

    def __call__(self, stop: bool, save: bool) -> tuple[bool, bool]:
        """This process's votes, to whether all stop and whether all save."""
        if self._alone:
            return stop, save
        # A save that was asked for a step ago happens only now.
        self._save_asked = save and jax.process_index() == 0 and not self._save_asked
        votes = np.asarray([[stop, self._save_asked]], np.int32)
        shape = (self._mesh.size, votes.shape[1])
        spread = jax.make_array_from_callback(shape, self._votes_on_devices, lambda _: votes)
        counted, self._counting = self._counting, self._any(spread)
        if counted is None:
            return False, False
        stop_all, save_all = np.asarray(counted).tolist()
        return bool(stop_all), bool(save_all)


def fit(
    trainer: Trainer,
    state: TrainState,
    stream: Iterator[Placed],
    steps: int,
    recipe: TrainRecipe,
    record: dict[str, Any],
    store: CheckpointStore,
    log: Tracker,
    report: Reporter,
    rates: Rates,
    held_out: Sequence[Batch] = (),
    on_verdicts: OnVerdicts | None = None,
) -> tuple[TrainState, bool]:
    """Trains from ``state.step`` to ``steps``. All processes call it.

    Args:
      stream: of placed batches. record: what else goes into a checkpoint's JSON.
      log, report: of process 0; the others' say nothing.
      held_out: batches of the evaluation set. on_verdicts: figures of the model's own verdicts, called every
        ``recipe.verdicts.every`` steps and after the last one.
    Returns: the state, and whether the last step was reached (else a signal came; everything is saved).
    """
    loop = _Loop(trainer, state, steps, recipe, record, store, log, report, rates)
    with StopSignal() as received:
        agreement = Agreement(trainer.mesh)
        while loop.step < steps:
            position = loop.advance(stream)
            loop.evaluate(held_out, on_verdicts)
            stop, save = agreement(received.name is not None, loop.checkpoint_is_due_by_time())
            if stop or save or loop.checkpoint_is_due_by_steps():
                loop.save(position)
            if stop and loop.step < steps:
                why = received.name or "a signal to another process"
                report.say(f"{why}: stopped at step {loop.step}; start again with the same recipe to go on")
                break
        store.wait()
        loop.profile.close()
    return loop.state, loop.step >= steps


@dataclasses.dataclass
class _Loop:
    """The state of :func:`fit` between steps."""

    trainer: Trainer
    state: TrainState
    steps: int
    recipe: TrainRecipe
    record: dict[str, Any]
    store: CheckpointStore
    log: Tracker
    report: Reporter
    rates: Rates

    def __post_init__(self) -> None:
        self.step = int(self.state.step)
        self._saved_at, self._saved_time = self.step, time.monotonic()
        self._pending: dict[str, jax.Array] | None = None
        self.profile = StepProfile(self.recipe.profile, self.recipe.output)
        self.rates.goodput.first_step()
        self.rates.reset()

    def advance(self, stream: Iterator[Placed]) -> dict[str, Any]:
        """One step; returns the data position after it."""
        started = time.perf_counter()
        try:
            batch, arrays, position = next(stream)
        except StopIteration:
            raise UserError(
                f"the training data ends after step {self.step}: no example fits into a bucket"
            ) from None
        begun = time.perf_counter()
        self.rates.seconds["data"] += begun - started
        programs = self.trainer.compiles()
        with self.profile.step(self.step + 1):
            self.state, metrics = self.trainer.train_step(self.state, arrays)
        if self.trainer.compiles() > programs:
            compiled = time.perf_counter()
            self.rates.seconds["compile"] += compiled - begun
            begun = compiled
        if self._pending is not None:
            jax.block_until_ready(self._pending)  # the host stays at most one step ahead of the device
        self._pending = metrics
        self.step += 1
        self.rates.add(batch)
        self.profile.after(self.step, metrics)
        due = self.step % self.recipe.log_every == 0 or self.step == self.steps
        values = {name: float(value) for name, value in jax.device_get(metrics).items()} if due else {}
        self.rates.seconds["compute"] += time.perf_counter() - begun
        if due:
            values |= {**self.rates.summary(), "left_out": position["left_out"]}
            self._write(values)
            self.report.update(self.step, values["loss"], values["tokens_per_second"])
            self.rates.reset()
        return position

    def evaluate(self, held_out: Sequence[Batch], on_verdicts: OnVerdicts | None) -> None:
        """The evaluations that are due after this step; their time is nobody's rate."""
        verdicts = self.recipe.verdicts
        verdicts_due = verdicts is not None and self._is_time_for(verdicts.every)
        if not (verdicts_due or self._is_time_for(self.recipe.evaluate_every)):
            return
        begun = time.perf_counter()
        jax.block_until_ready(self._pending)  # the step itself is no evaluation
        started = time.perf_counter()
        self.rates.seconds["compute"] += started - begun
        if self._is_time_for(self.recipe.evaluate_every):
            self.report.phase("evaluating held-out chains")
            values = evaluate(self.trainer, self.state, held_out)
            self._write(values)
            self.report.say(f"step {self.step}: {_in_words(values)}")
        if on_verdicts is not None and verdicts_due:
            self.report.phase("judging held-out solutions")
            values = on_verdicts(self.state, self.step)
            self._write(values)
            figures = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in values.items())
            self.report.say(f"step {self.step}: {figures}")
        self.report.phase("")
        self.rates.seconds["evaluate"] += time.perf_counter() - started

    def save(self, position: dict[str, Any]) -> None:
        started = time.perf_counter()
        self.log.flush()
        goodput = self.rates.goodput.to_json(self.rates.seconds)
        record = {**self.record, "data": position, "goodput": goodput}
        self.store.save(self.step, self.trainer.to_checkpoint(self.state), record)
        self._saved_at, self._saved_time = self.step, time.monotonic()
        self.rates.seconds["save"] += time.perf_counter() - started

    def checkpoint_is_due_by_time(self) -> bool:
        every = self.recipe.checkpoint.every_seconds
        return every is not None and time.monotonic() - self._saved_time >= every

    def checkpoint_is_due_by_steps(self) -> bool:
        every: CheckpointConfig = self.recipe.checkpoint
        since = self.step - self._saved_at
        if self.step == self.steps or (every.every_steps is not None and since >= every.every_steps):
            return True
        # One that is to stay for good has to be there.
        return every.keep_every is not None and self.step % every.keep_every == 0

    def _is_time_for(self, every: int | None) -> bool:
        return every is not None and (self.step % every == 0 or self.step == self.steps)

    def _write(self, values: dict[str, float]) -> None:
        try:
            self.log.write({"step": self.step, "time": round(time.time(), 2), **values})
        except OSError as error:
            raise UserError(f"the metrics of step {self.step}: {error.strerror or error}") from error


def _in_words(values: dict[str, float]) -> str:
    return (
        f"held-out loss {values['held_out_loss']:.4f}, tokens right {values['held_out_token_accuracy']:.2%}, "
        f"whole chains right {values['held_out_chain_accuracy']:.2%}"
    )


def evaluate(trainer: Trainer, state: TrainState, held_out: Sequence[Batch]) -> dict[str, float]:
    """Teacher-forced figures on the held-out set: loss, tokens right, chains with every token right."""
    sums = jax.device_get([trainer.evaluate_step(state, trainer.place(batch)) for batch in held_out])
    total = {name: sum(float(getattr(part, name)) for part in sums) for name in Sums._fields}
    return {
        "held_out_loss": total["loss"] / max(total["weight"], 1e-6),
        "held_out_token_accuracy": total["hits"] / max(total["tokens"], 1.0),
        "held_out_chain_accuracy": total["exact"] / max(total["examples"], 1.0),
    }
