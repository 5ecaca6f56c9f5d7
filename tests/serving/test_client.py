"""A server as a verifier: results are those of the verifier that it serves, in order, however busy it is."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from support.processes import answer
from support.serving import PROBLEM, RIGHT, WRONG, served, verifier
from thinkprm_jax import AsyncClient, Client, UserError, load_verifier
from thinkprm_jax.infer.score import main as score
from thinkprm_jax.records import read_verdicts
from thinkprm_jax.serving.service import Service
from thinkprm_jax.verifier.thinkprm import ThinkPRM

QUESTIONS = [PROBLEM] * 5
SOLUTIONS = [RIGHT, WRONG, [], RIGHT[:1], ["1 + 1 = 2, " * 300]]


@pytest.fixture(scope="module")
def prm() -> ThinkPRM:
    return verifier()


@pytest.fixture(scope="module")
def server(prm: ThinkPRM) -> Iterator[tuple[str, Service]]:
    with served(prm, keys=("secret",), max_queue=4) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: tuple[str, Service]) -> Iterator[Client]:
    with Client(server[0], api_key="secret") as found:
        yield found


def flat(lists: list[list[float]]) -> list[float]:
    return [value for values in lists for value in values]


def check_alike(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            if name in ("prefix_score", "prefix_scores"):
                assert ours[name] == pytest.approx(value, abs=1e-5)
            elif name == "step_scores":
                assert flat(ours[name]) == pytest.approx(flat(value), abs=1e-5)
            else:
                assert ours[name] == value, name


def test_results_are_those_of_the_verifier(client: Client, prm: ThinkPRM) -> None:
    check_alike(
        client.predict_correctness_batch(QUESTIONS, SOLUTIONS), prm.predict_correctness_batch(QUESTIONS, SOLUTIONS)
    )


def test_rounds_chains_and_seed_are_the_clients(server: tuple[str, Service], prm: ThinkPRM) -> None:
    ours = load_verifier(prm.settings.changed(n=2, temperature=0.7, seed=3, rounds=2), like=prm)
    with Client(server[0], api_key="secret", n=2, temperature=0.7, seed=3, n_thinking_rounds=2) as client:
        found = client.predict_correctness_batch_sequential_scaling(QUESTIONS[:2], SOLUTIONS[:2])
    check_alike(found, ours.predict_correctness_batch(QUESTIONS[:2], SOLUTIONS[:2]))


def test_scores_of_search_and_learn_are_the_same(client: Client, prm: ThinkPRM) -> None:
    outputs = [["\n\n".join(RIGHT), "\n\n".join(WRONG)], ["\n\n".join(RIGHT)]]
    found, expected = client.score([PROBLEM] * 2, outputs), prm.score([PROBLEM] * 2, outputs)
    for ours, theirs in zip(found, expected, strict=True):
        assert flat(ours) == pytest.approx(flat(theirs), abs=1e-5)


def test_fewer_chains_of_a_verdict(server: tuple[str, Service], prm: ThinkPRM) -> None:
    ours = load_verifier(prm.settings.changed(n=3, temperature=0.7), like=prm).submit(PROBLEM, WRONG).result()
    with Client(server[0], api_key="secret", n=3, temperature=0.7) as client:
        theirs = client.submit(PROBLEM, WRONG).result()
    assert theirs.first_chains(2).prefix_score == pytest.approx(ours.first_chains(2).prefix_score, abs=1e-5)
    assert theirs.readings == ours.readings


def test_more_than_the_queue_holds_is_asked_again(server: tuple[str, Service], prm: ThinkPRM) -> None:
    """Sixteen at once where four may wait and four may run."""
    with Client(server[0], api_key="secret", connections=16) as client:
        found = client.predict_correctness_batch([PROBLEM] * 40, [RIGHT, WRONG] * 20)
    assert [result["step_labels"][0] for result in found] == [[1, 1], [0, 0]] * 20
    assert server[1].metrics.refused.total(reason="queue") > 0


def test_a_coroutine_gets_the_same(server: tuple[str, Service], client: Client) -> None:
    async def judge() -> tuple[list[dict[str, Any]], list[Any], Any, dict[int, Any]]:
        async with AsyncClient(server[0], api_key="secret") as prm:
            batch = await prm.predict_correctness_batch(QUESTIONS[:3], SOLUTIONS[:3])
            scores = await prm.score([PROBLEM], [["\n\n".join(WRONG)]])
            items = [(PROBLEM, RIGHT), (PROBLEM, WRONG)]
            verdicts = {index: verdict async for index, verdict in prm.verify(items)}
            return batch, scores, await client.submit(PROBLEM, WRONG), verdicts

    batch, scores, verdict, verdicts = asyncio.run(judge())
    check_alike(batch, client.predict_correctness_batch(QUESTIONS[:3], SOLUTIONS[:3]))
    assert scores[0][0] == pytest.approx([*verdict.step_scores[:-1], verdict.prefix_score], abs=1e-5)
    assert [verdicts[index].step_labels for index in (0, 1)] == [[1, 1], [0, 0]]


def test_the_client_is_a_reward(client: Client) -> None:
    right, wrong, empty = client.reward()(
        prompts=[PROBLEM] * 3, completions=["\n\n".join(RIGHT), "\n\n".join(WRONG), ""]
    )
    assert right > 0.99
    assert wrong < 0.01
    assert empty in (None, 0.0)


def test_score_writes_the_rows_of_the_verifier(
    server: tuple[str, Service], prm: ThinkPRM, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINKPRM_API_KEY", "secret")
    rows = [{"problem": PROBLEM, "steps": RIGHT}, {"problem": PROBLEM, "completions": ["\n\n".join(WRONG), ""]}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "out.jsonl"
    command = [str(tmp_path / "in.jsonl"), "--output", str(output), "--server", server[0], "--quiet"]
    assert score(command) == 1  # the empty solution
    first, second = read_verdicts(output)
    assert first.verdict.step_labels == (1, 1)
    assert [verdict.error for verdict in second.verdicts] == [None, "there are no steps to judge"]
    assert first.verifier["kind"] == "server"
    before = output.read_bytes()
    assert score(command) == 1  # goes on where it was: there is nothing left
    assert output.read_bytes() == before


def test_who_is_refused_is_told_so(server: tuple[str, Service]) -> None:
    with pytest.raises(UserError, match="key is missing or wrong"):
        Client(server[0], api_key="no")
    with pytest.raises(UserError, match="no address"):
        Client("localhost:8000")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9"):
        Client("http://127.0.0.1:9", patience=0.1)
    with (
        Client(server[0], api_key="secret", n=2, temperature=0.0) as client,
        pytest.raises(UserError, match="greedy"),
    ):
        client.submit(PROBLEM, RIGHT).result()


class _Flaky(http.server.BaseHTTPRequestHandler):
    """Breaks the first connection, is not ready at the second request, busy at the third, and then answers."""

    protocol_version = "HTTP/1.1"
    asked = 0
    verdict: dict[str, Any]

    def do_GET(self) -> None:
        model = {"kind": "thinkprm", "judges_steps": True, "settings": {}}
        self._answer(200, {"data": [model]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        type(self).asked += 1
        if self.asked == 1:
            self.connection.close()
            self.close_connection = True
        elif self.asked in (2, 3):
            self._answer({2: 503, 3: 429}[self.asked], {"error": {"message": "again", "param": None}}, "0")
        else:
            self._answer(200, {"verdict": self.verdict})

    def _answer(self, status: int, content: Any, retry_after: str | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *values: Any) -> None:
        pass


def test_what_fails_for_a_while_is_tried_again() -> None:
    found = {"prefix_score": 0.25, "step_scores": [0.25], "step_labels": [0]}
    _Flaky.verdict = {**found, "prompt": "", "locates": True, "first_error": 0}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Flaky) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Client(f"http://127.0.0.1:{server.server_port}") as client:
            assert client.submit("2 + 2?", ["5"]).result().prefix_score == 0.25
        server.shutdown()
    assert _Flaky.asked == 4


def test_no_device_is_touched(server: tuple[str, Service]) -> None:
    """A trainer's devices are its own: a client beside it must not take their memory."""
    program = """
import asyncio, json, sys
from thinkprm_jax import Client

async def wait(handle):
    return await handle

with Client(sys.argv[1], api_key="secret") as prm:
    prm.predict_correctness_batch(["2 + 3?"], [["2 + 3 = 5."]])
    asyncio.run(wait(prm.submit_solution("2 + 3?", "2 + 3 = 5.")))
from jax._src import xla_bridge
print(json.dumps(xla_bridge.backends_are_initialized()))
"""
    assert answer(program, server[0]) is False
