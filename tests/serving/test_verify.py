"""POST /v1/verify: verdicts are those of the verifier that is served; what cannot be is said with its field."""

from __future__ import annotations

import json
import socket
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from support.serving import GOOD, PROBLEM, RIGHT, WRONG, ask, events, served, verifier
from thinkprm_jax.serving.service import Service
from thinkprm_jax.verifier.registry import load_verifier
from thinkprm_jax.verifier.thinkprm import ThinkPRM


@pytest.fixture(scope="module")
def prm() -> ThinkPRM:
    return verifier()


@pytest.fixture(scope="module")
def server(prm: ThinkPRM) -> Iterator[tuple[str, Service]]:
    with served(prm, max_queue=64, max_steps=8, max_problem_chars=2000) as found:
        yield found


def test_a_verdict_is_the_one_that_score_writes(server: tuple[str, Service], prm: ThinkPRM) -> None:
    status, _, answer = ask(server[0], "/v1/verify", {"problem": PROBLEM, "steps": WRONG})
    [(_, verdict)] = load_verifier(prm.settings, like=prm).verify([(PROBLEM, WRONG)])
    assert status == 200
    assert answer["verdict"] == verdict.record().to_dict()
    assert answer["verifier"] == prm.settings.stamp


def test_a_whole_solution_is_cut_as_by_score(server: tuple[str, Service]) -> None:
    text = "Step 1: 78 + 12 = 90.\nStep 2: 90 + 4 = 94."
    _, _, answer = ask(server[0], "/v1/verify", {"problem": PROBLEM, "solution": text})
    assert answer["verdict"]["steps"] == ["78 + 12 = 90.", "90 + 4 = 94."]
    assert [text[start:end] for start, end in answer["verdict"]["step_spans"]] == answer["verdict"]["steps"]


def test_settings_of_a_request_are_those_of_a_verifier(server: tuple[str, Service], prm: ThinkPRM) -> None:
    values = {"n": 3, "rounds": 2, "seed": 7, "budget": 60, "temperature": 0.8}
    body = {"problem": PROBLEM, "completions": ["\n\n".join(RIGHT), WRONG], **values}
    _, _, answer = ask(server[0], "/v1/verify", body)
    settings = prm.settings.changed(n=3, rounds=2, seed=7, max_gen_tokens=60, temperature=0.8)
    expected = dict(load_verifier(settings, like=prm).verify([(PROBLEM, RIGHT), (PROBLEM, WRONG)]))
    for index, verdict in enumerate(answer["verdicts"]):
        ours = expected[index].record().to_dict()
        assert [chain["output"] for chain in verdict["chains"]] == [chain["output"] for chain in ours["chains"]]
        assert verdict["step_labels"] == ours["step_labels"]
        assert verdict["step_scores"] == pytest.approx(ours["step_scores"], abs=1e-5)
    assert answer["verifier"] == settings.stamp


def test_several_chains_have_a_temperature(server: tuple[str, Service]) -> None:
    _, _, answer = ask(server[0], "/v1/verify", {"problem": PROBLEM, "steps": RIGHT, "n": 2})
    assert answer["verifier"]["temperature"] == 0.6


def test_a_stream_tells_what_the_answer_says(server: tuple[str, Service]) -> None:
    body = {"problem": PROBLEM, "completions": [RIGHT, WRONG]}
    _, _, whole = ask(server[0], "/v1/verify", body)
    status, headers, text = ask(server[0], "/v1/verify", {**body, "stream": True})
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    told = events(text)
    assert told[0] == ("begin", {"solutions": [RIGHT, WRONG]})
    assert told[-1][0] == "done"
    for solution, verdict in enumerate(whole["verdicts"]):
        mine = [(name, data) for name, data in told if data.get("solution") == solution]
        written = "".join(data["text"] for name, data in mine if name == "token")
        assert verdict["chains"][0]["output"].startswith(written)
        assert len(written) > 100
        labels = {data["step"]: data["label"] for name, data in mine if name == "step"}
        assert labels == ({0: 1, 1: 1} if solution == 0 else {0: 0})
        scores = {data["step"]: data["score"] for name, data in mine if name == "step"}
        for step, score in scores.items():
            assert score == pytest.approx(verdict["chains"][0]["step_scores"][step], abs=1e-5)
        [judged] = [data["verdict"] for name, data in mine if name == "verdict"]
        assert judged["step_labels"] == verdict["step_labels"]


def test_one_bad_solution_of_many_fails_alone(server: tuple[str, Service]) -> None:
    body = {"problem": PROBLEM, "completions": [RIGHT, [], ["\ud800"]]}
    _, _, answer = ask(server[0], "/v1/verify", body)
    good, empty, surrogate = answer["verdicts"]
    assert good["step_labels"] == [1, 1]
    assert empty["error"] == "there are no steps to judge"
    assert "surrogate" in surrogate["error"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"steps": RIGHT}, 400, "problem"),
        ({"problem": PROBLEM}, 400, "steps"),
        ({**GOOD, "solution": "x"}, 400, "solution"),
        ({**GOOD, "problem": 7}, 400, "problem"),
        ({**GOOD, "steps": ["a", None]}, 400, "steps[1]"),
        ({**GOOD, "steps": ["a"] * 9}, 400, "steps"),
        ({**GOOD, "problem": "x" * 2001}, 400, "problem"),
        ({**GOOD, "n": 0}, 400, "n"),
        ({**GOOD, "n": 10**400}, 400, "n"),
        ({**GOOD, "n": True}, 400, "n"),
        ({**GOOD, "n": 65}, 400, "n"),
        ({**GOOD, "n": 2, "temperature": 0}, 400, "temperature"),
        ({**GOOD, "rounds": 9}, 400, "rounds"),
        ({**GOOD, "decision_temperature": 0}, 400, "decision_temperature"),
        ({**GOOD, "temperature": -1}, 400, "temperature"),
        ({**GOOD, "top_p": 0}, 400, "top_p"),
        ({**GOOD, "budget": 0}, 400, "budget"),
        ({**GOOD, "stream": "yes"}, 400, "stream"),
        ({**GOOD, "temprature": 1}, 400, "temprature"),
        ({**GOOD, "model": "gpt-9"}, 404, "model"),
        ({**GOOD, "steps": []}, 422, "steps"),
        ({**GOOD, "steps": ["1 + 1 = 2, " * 200]}, 422, "steps"),
        ([], 400, "body"),
        (b"{", 400, "body"),
        (b'{"problem": NaN}', 400, "body"),
        (b"\xff", 400, "body"),
        (b"[" * 100_000, 400, "body"),
    ],
)
def test_a_failure_names_its_field(server: tuple[str, Service], body: Any, status: int, field: str) -> None:
    found, _, answer = ask(server[0], "/v1/verify", body)
    assert (found, answer["error"]["param"]) == (status, field), answer
    assert answer["error"]["message"]
    assert "\n" not in answer["error"]["message"]


def send(address: str, body: dict[str, Any]) -> socket.socket:
    """A connection on which a request was sent."""
    host, port = urllib.parse.urlsplit(address).netloc.split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    data = json.dumps(body).encode()
    connection.sendall(b"POST /v1/verify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    return connection


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_connection_frees_its_slots(server: tuple[str, Service], stream: bool) -> None:
    address, service = server
    # Noise at a high temperature goes on to the end of the context: without the break this takes long.
    body = {**GOOD, "n": 40, "temperature": 50.0, "stream": stream}
    with send(address, body):
        wait_until(lambda: service.verifier.activity.running)
    broken = time.monotonic()
    wait_until(
        lambda: not (service.running or service.verifier.activity.running or service.verifier.activity.waiting)
    )
    assert time.monotonic() - broken < 5
    assert ask(address, "/v1/verify", GOOD)[0] == 200


def test_a_full_queue_asks_to_come_again(server: tuple[str, Service]) -> None:
    address, service = server
    with send(address, {**GOOD, "n": 64, "temperature": 50.0}):
        wait_until(lambda: service.verifier.activity.waiting > 50)
        status, headers, answer = ask(address, "/v1/verify", {**GOOD, "n": 32})
        assert (status, answer["error"]["type"]) == (429, "overloaded")
        assert 1 <= int(headers["retry-after"]) <= 60
    wait_until(lambda: not service.running)


def test_a_large_request_lets_others_in_between(server: tuple[str, Service]) -> None:
    address, service = server
    with send(address, {"problem": PROBLEM, "completions": [RIGHT] * 60, "temperature": 50.0, "budget": 200}):
        wait_until(lambda: service.held)
        assert ask(address, "/v1/verify", GOOD)[0] == 200
        assert service.held > 30
    wait_until(lambda: not service.running)


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_gives_up(server: tuple[str, Service], stream: bool) -> None:
    address, service = server
    body = {**GOOD, "n": 60, "temperature": 50.0, "deadline": 0.2, "stream": stream}
    status, _, answer = ask(address, "/v1/verify", body)
    error = events(answer)[-1][1]["error"] if stream else answer["error"]
    assert (status, error["type"]) == (200 if stream else 504, "deadline")
    wait_until(lambda: not (service.running or service.verifier.activity.running))
