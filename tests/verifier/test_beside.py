"""A verifier in the memory that a policy leaves."""

from __future__ import annotations

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.verifier.beside import plan_slots


def test_more_memory_more_slots_until_it_is_enough() -> None:
    found = [plan_slots("mini", memory, max_length=1024) for memory in (2 * 10**8, 4 * 10**8, 10**9, 10**11)]
    assert found == sorted(found)
    assert found[0] < found[2]
    assert found[-1] == 256
    assert plan_slots("mini", 4 * 10**8, max_length=1024, copies=6) <= found[1]


def test_what_does_not_fit_says_what_it_takes() -> None:
    with pytest.raises(UserError, match=r"mini does not fit into 0.001 GB of a device: weights 0\.0\d+, cache"):
        plan_slots("mini", 10**6)
