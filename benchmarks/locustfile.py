"""Users of locust that ask `thinkprm serve` for verdicts and compare each with the offline one.

    THINKPRM_VERDICTS=offline.json THINKPRM_TOTALS=totals.json \
        locust -f benchmarks/locustfile.py --headless --users 64 --host http://127.0.0.1:8000

`python benchmarks/serve.py locust` makes the file, starts the server and runs this. A request that has no verdict
counts as a failure of locust's, named "lost"; one with another verdict as "wrong".
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

from locust import FastHttpUser, events, task
from locust.env import Environment
from serve import compare

ROWS = json.loads(Path(os.environ["THINKPRM_VERDICTS"]).read_text())
TURN = itertools.count()  # all users together go through the items


class Verifying(FastHttpUser):
    """Asks again as soon as it is answered."""

    connection_timeout = network_timeout = 60.0

    @task
    def verify(self) -> None:
        row = ROWS[next(TURN) % len(ROWS)]
        body = {"problem": row["problem"], "steps": row["steps"]}
        with self.client.post("/v1/verify", json=body, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"lost: {answer.status_code}")
            elif not compare(json.loads(answer.content)["verdict"], row["verdict"])[0]:
                answer.failure("wrong")


@events.quitting.add_listener
def write_totals(environment: Environment, **_: object) -> None:
    """Behind the last answer, which locust's own files are not."""
    total = environment.stats.total
    percentiles = {f"p{share}": total.get_response_time_percentile(share / 100) for share in (50, 99)}
    found = {
        "asked": total.num_requests,
        "failed": total.num_failures,
        "rate": total.total_rps,
        "most": total.max_response_time,
        "failures": {error.error: error.occurrences for error in environment.stats.errors.values()},
        **percentiles,
    }
    Path(os.environ["THINKPRM_TOTALS"]).write_text(json.dumps(found))
