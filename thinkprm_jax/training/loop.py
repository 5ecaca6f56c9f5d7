"""The training loop: batches in, checkpoints and metrics out, until the last step or a polite signal."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp

from thinkprm_jax.checkpoint.training_state import CheckpointStore
from thinkprm_jax.data.batches import Batch
from thinkprm_jax.errors import UserError
from thinkprm_jax.training.config import TrainRecipe
from thinkprm_jax.training.loss import Sums
from thinkprm_jax.training.metrics import MetricsLog, ProgressReport, Rates
from thinkprm_jax.training.trainer import Trainer, TrainState


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


def fit(
    trainer: Trainer,
    state: TrainState,
    stream: Iterator[tuple[Batch, dict[str, Any]]],
    steps: int,
    recipe: TrainRecipe,
    record: dict[str, Any],
    store: CheckpointStore,
    log: MetricsLog,
    report: ProgressReport,
    held_out: Sequence[Batch] = (),
) -> tuple[TrainState, bool]:
    """Trains from ``state.step`` to ``steps``.

    Args:
      stream: batches with the data position after each. record: what else goes into a checkpoint's JSON.
      held_out: batches of the evaluation set.
    Returns: the state, and whether the last step was reached (else a signal came; everything is saved).
    """
    step = int(state.step)
    saved_at, saved_time = step, time.monotonic()
    rates, pending = Rates(), None

    def save(position: dict[str, Any]) -> None:
        nonlocal saved_at, saved_time
        started = time.perf_counter()
        store.save(step, state, {**record, "data": position})
        saved_at, saved_time = step, time.monotonic()
        rates.seconds["save"] += time.perf_counter() - started

    with StopSignal() as stop:
        while step < steps:
            started = time.perf_counter()
            try:
                batch, position = next(stream)
            except StopIteration:
                raise UserError(
                    f"the training data ends after step {step}: no example fits into a bucket"
                ) from None
            rates.seconds["data"] += time.perf_counter() - started
            state, metrics = trainer.train_step(state, trainer.place(batch))
            step += 1
            rates.add(batch.real_tokens, batch.target_tokens, batch.tokens.size)
            if pending is not None:
                jax.block_until_ready(pending)  # the host stays at most one step ahead of the device
            pending = metrics
            if step % recipe.log_every == 0 or step == steps:
                values = {name: float(value) for name, value in jax.device_get(metrics).items()}
                values |= {**rates.summary(), "left_out": position["left_out"]}
                log.write({"step": step, "time": round(time.time(), 2), **values})
                report.update(step, values["loss"], values["tokens_per_second"])
                rates.reset()
            if recipe.evaluate_every and (step % recipe.evaluate_every == 0 or step == steps):
                started = time.perf_counter()
                values = evaluate(trainer, state, held_out)
                log.write({"step": step, "time": round(time.time(), 2), **values})
                report.say(f"step {step}: {_in_words(values)}")
                rates.seconds["evaluate"] += time.perf_counter() - started
            if step == steps or stop.name is not None or _due(recipe, step - saved_at, saved_time):
                save(position)
            if stop.name is not None and step < steps:
                report.say(f"{stop.name}: stopped at step {step}; start again with the same recipe to go on")
                break
        store.wait()
    return state, step >= steps


def _due(recipe: TrainRecipe, steps: int, saved_time: float) -> bool:
    every = recipe.checkpoint
    by_steps = every.every_steps is not None and steps >= every.every_steps
    return by_steps or (every.every_seconds is not None and time.monotonic() - saved_time >= every.every_seconds)


def _in_words(values: dict[str, float]) -> str:
    return (
        f"held-out loss {values['held_out_loss']:.4f}, tokens right {values['held_out_token_accuracy']:.2%}, "
        f"whole chains right {values['held_out_chain_accuracy']:.2%}"
    )


def evaluate(trainer: Trainer, state: TrainState, held_out: Sequence[Batch]) -> dict[str, float]:
    """Teacher-forced figures on the held-out set: loss, tokens right, chains with every token right."""
    sums = [trainer.evaluate_step(state, trainer.place(batch)) for batch in held_out]
    total = Sums(*(float(jnp.sum(jnp.stack(field))) for field in zip(*sums, strict=True)))
    return {
        "held_out_loss": total.loss / max(total.weight, 1e-6),
        "held_out_token_accuracy": total.hits / max(total.tokens, 1.0),
        "held_out_chain_accuracy": total.exact / max(total.rows, 1.0),
    }
