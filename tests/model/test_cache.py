"""What a decode call wrote comes to its place, whichever way the backend wants it done."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thinkprm_jax.model.cache import KVCache, settle

LENGTH, STEPS = 12, 3
LENGTHS, COUNTS = np.array([5, 0, 9, 12]), np.array([3, 1, 2, 0])


@pytest.mark.parametrize("backend", ["cpu", "tpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_new_tokens_stand_behind_the_old_ones_and_nothing_else_moves(
    monkeypatch, backend: str, dtype: str
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    numbers = np.random.default_rng(0).normal(size=(2, 4, 2, LENGTH + STEPS, 8))
    keys, values = (jnp.asarray(x, dtype) for x in numbers)
    settled = jax.jit(settle)(KVCache([keys], [values], STEPS), LENGTHS, COUNTS)
    for before, after in ((keys, settled.keys[0]), (values, settled.values[0])):
        wanted = np.array(before.astype(jnp.float32))
        for row, (length, count) in enumerate(zip(LENGTHS, COUNTS, strict=True)):
            wanted[row, :, length : length + count] = wanted[row, :, LENGTH : LENGTH + count]
        np.testing.assert_array_equal(np.asarray(after.astype(jnp.float32)), wanted)
