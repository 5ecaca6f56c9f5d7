"""What the tests of the programs share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Programs of one test are not compiled again in the next."""
    return tmp_path_factory.mktemp("cache")
