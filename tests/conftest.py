"""Fixtures that several test folders share."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from pathlib import Path

import pytest

from support import session  # noqa: F401  before JAX reads its environment

# isort: split
from flax import nnx

from support import r1_tokenizer
from support import tiny_model as tiny_model_module
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

MOST_WORKERS = 8  # each takes up to 4 GB


@pytest.fixture(scope="session")
def r1_tokenizer_folder() -> Path:
    """A folder with the R1-Distill-Qwen tokenizer; built once a machine, since that takes a
    while."""
    version = hashlib.sha256(Path(r1_tokenizer.__file__).read_bytes()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"thinkprm_jax_r1_tokenizer_{os.getuid()}_{version}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            built = r1_tokenizer.build(Path(work) / "tokenizer")
            try:
                built.rename(folder)  # in one go: a parallel test process never sees half a folder
            except OSError:
                if not folder.exists():
                    raise
    return folder


@pytest.fixture(scope="session")
def r1(r1_tokenizer_folder: Path) -> Tokenizer:
    """The tokenizer in that folder."""
    return Tokenizer.load(r1_tokenizer_folder)


@pytest.fixture(scope="session")
def mini_tokenizer() -> Tokenizer:
    """The tokenizer of the bundled models: small, with R1's control tokens, padding = end of sentence."""
    return tiny_model_module.load_tokenizer()


@pytest.fixture(scope="session")
def tiny_model(mini_tokenizer: Tokenizer) -> Decoder:
    """A random Qwen2 with weights large enough that its logits differ and its samples wander."""
    config = dataclasses.replace(
        tiny_model_module.make_config(mini_tokenizer),
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        max_position_embeddings=4096,
        initializer_range=0.3,
        tie_embeddings=False,
    )
    return Decoder(config, rngs=nnx.Rngs(7))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Folders are spread over the processors; files that someone names run at once and can be debugged."""
    if not any(Path(str(name).split("::")[0]).is_dir() for name in config.args):
        return 0
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS)
