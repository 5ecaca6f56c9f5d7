"""Requests that schemathesis makes from the server's description, malformed ones too: no 5xx, no slot lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.serving import GOOD, ask, served, verifier

pytestmark = pytest.mark.slow
PROGRAM = str(Path(sys.executable).with_name("schemathesis"))
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"


def test_malformed_requests_are_refused(tmp_path: Path) -> None:
    """`benchmarks/serve.py fuzz` makes more of them."""
    with served(verifier(), deadline=20.0, max_queue=64) as (address, service):
        command = [PROGRAM, "run", f"{address}/openapi.json", "--checks", CHECKS, "--phases", "coverage"]
        command += ["--continue-on-failure", "--suppress-health-check", "all", "--workers", "2", "--seed", "1"]
        found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert found.returncode == 0, found.stdout[-5000:]
        assert service.metrics.requests.total() > 300
        activity = service.verifier.activity
        assert (service.running, activity.running, activity.waiting) == (0, 0, 0)
        assert ask(address, "/v1/verify", GOOD)[0] == 200
