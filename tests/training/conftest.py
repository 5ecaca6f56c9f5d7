"""Fixtures of the tests that run `thinkprm train` as processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.train_server import TrainServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainServer]:
    with TrainServer(tmp_path_factory.mktemp("server")) as server:
        yield server
