"""Fixtures that several test folders share."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import pytest
import r1_tokenizer


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
