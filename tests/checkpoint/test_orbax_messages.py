"""A checkpoint that cannot be read: one error, and nothing of what Orbax and TensorStore leave behind."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from support.processes import start
from thinkprm_jax.checkpoint.orbax_messages import quiet, reason

DAMAGED = """
import gc, sys, time
import jax, numpy as np
from pathlib import Path
from thinkprm_jax.checkpoint.training_state import CheckpointStore
from thinkprm_jax.errors import UserError

folder, pattern = Path(sys.argv[1]), sys.argv[2]
rng = np.random.default_rng(0)
state = {f"a{number}": rng.normal(size=(64, 64)).astype(np.float32) for number in range(60)}
record = {f"r{number}": number if number % 2 else str(number) for number in range(60)}
with CheckpointStore(folder) as store:
    store.save(1, state, record)
for file in (folder / "1").glob(pattern):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
abstract = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place) for name, x in state.items()}
with CheckpointStore(folder) as store:
    try:
        store.restore(abstract)
    except UserError as error:
        print(error)
gc.collect()
time.sleep(0.3)
"""


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["state/**/d/*", "record/_strings.json", "record/**/d/*"])
def test_a_damaged_checkpoint_is_one_line(pattern: str, tmp_path: Path) -> None:
    process = start(DAMAGED, tmp_path, pattern)
    said, errors = process.communicate(timeout=120)
    assert said.startswith(f"checkpoint {tmp_path}/1 cannot be read: ")
    assert said.count("\n") == 1
    assert errors == ""


def test_tasks_of_others_are_heard(caplog: pytest.LogCaptureFixture) -> None:
    quiet()

    async def fail() -> None:
        raise ValueError("a mistake of the caller")

    async def forget() -> None:
        task = asyncio.ensure_future(fail())
        await asyncio.sleep(0)
        del task

    with caplog.at_level(logging.ERROR, "asyncio"):
        asyncio.run(forget())
    assert "Task exception was never retrieved" in caplog.text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("state"), "'state' is missing"),
        (ValueError("two\n  lines"), "two lines"),
        (RuntimeError(), "RuntimeError"),
        (ValueError("x" * 1000), "x" * 300),
    ],
)
def test_a_reason_is_one_line(error: Exception, words: str) -> None:
    assert reason(error) == words
