"""What XLA is told for the devices of a step."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from thinkprm_jax.training.trainer import step_options

WINDOWED = "xla_jf_spmd_threshold_for_windowed_einsum_mib"


def mesh(platform: str, data: int = 1, fsdp: int = 1, tensor: int = 1) -> SimpleNamespace:
    devices = np.array([SimpleNamespace(platform=platform)])
    return SimpleNamespace(devices=devices, shape={"data": data, "fsdp": fsdp, "tensor": tensor})


def test_tpus_gather_the_weights_that_fsdp_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIBTPU_INIT_ARGS", raising=False)
    assert step_options(mesh("tpu", fsdp=16), "layer") == {WINDOWED: "1000000"}
    assert step_options(mesh("tpu", data=16), "layer") is None
    assert step_options(mesh("tpu", fsdp=4, tensor=4), "layer") is None
    assert WINDOWED not in (step_options(mesh("cpu", fsdp=16), "layer") or {})


@pytest.mark.parametrize("name", ["LIBTPU_INIT_ARGS", "XLA_FLAGS"])
def test_a_threshold_of_the_user_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, f"--xla_other=1 --{WINDOWED}=8")
    assert step_options(mesh("tpu", fsdp=16), "layer") is None
