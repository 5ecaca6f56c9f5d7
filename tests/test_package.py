"""The package's front door."""

from __future__ import annotations

import subprocess
import sys

import pytest

import thinkprm_jax

SCRIPT = """
import sys, time
start = time.perf_counter()
import thinkprm_jax
seconds = time.perf_counter() - start
print(seconds, *{name.split(".")[0] for name in sys.modules})
"""


def test_import_is_light() -> None:
    output = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    seconds, *modules = output.split()
    assert float(seconds) < 0.3
    assert not {"jax", "flax", "numpy", "transformers", "tokenizers", "torch"} & set(modules)


def test_names_load_when_used() -> None:
    from thinkprm_jax.checkpoint.huggingface import load_model

    assert thinkprm_jax.load_model is load_model
    assert {"ThinkPRM", "Sampler", "load_model"} <= set(dir(thinkprm_jax))
    with pytest.raises(AttributeError, match="Smapler"):
        thinkprm_jax.Smapler  # noqa: B018
