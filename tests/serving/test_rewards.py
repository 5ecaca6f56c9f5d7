"""The reward shapes of other servers, and the requests of the original ThinkPRM's client."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import prm_folders
from support.serving import PROBLEM, RIGHT, WRONG, ask, events, served, verifier
from thinkprm_jax import Client, load_verifier
from thinkprm_jax.sampler import Choose, Request
from thinkprm_jax.serving.service import Service


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Service]]:
    with served(verifier()) as found:
        yield found


def chatml(problem: str, steps: list[str]) -> str:
    """As clients of Qwen's PRMs write it."""
    solution = "".join(f"{step}<extra_0>" for step in steps)
    return (
        f"<|im_start|>system\nReason step by step.<|im_end|>\n<|im_start|>user\n{problem}<|im_end|>\n"
        f"<|im_start|>assistant\n{solution}<|im_end|>\n"
    )


def test_pooling_gives_two_probabilities_a_step(server: tuple[str, Service]) -> None:
    expected = [
        [*verdict.step_scores[:-1], verdict.prefix_score]
        for _, verdict in sorted(server[1].verifier.verify([(PROBLEM, RIGHT), (PROBLEM, WRONG)]))
    ]
    body = {"model": "mini", "input": [chatml(PROBLEM, RIGHT), chatml(PROBLEM, WRONG)]}
    _, _, answer = ask(server[0], "/pooling", body)
    for entry, scores in zip(answer["data"], expected, strict=True):
        assert [row[1] for row in entry["data"]] == pytest.approx(scores, abs=1e-6)
        assert [sum(row) for row in entry["data"]] == pytest.approx([1, 1])
    _, _, packed = ask(server[0], "/pooling", {**body, "encoding_format": "base64"})
    flat = np.frombuffer(base64.b64decode(packed["data"][1]["data"]), "<f4")
    assert flat.reshape(-1, 2)[:, 1].tolist() == pytest.approx(expected[1], abs=1e-6)
    messages = [{"role": "user", "content": PROBLEM}, {"role": "assistant", "content": "\n\n".join(WRONG)}]
    _, _, chat = ask(server[0], "/pooling", {"messages": messages})
    assert np.allclose(chat["data"][0]["data"], answer["data"][1]["data"], atol=1e-6)


def test_score_gives_the_score_of_each_solution(server: tuple[str, Service]) -> None:
    body = {"text_1": PROBLEM, "text_2": ["\n\n".join(RIGHT), "\n\n".join(WRONG)]}
    _, _, answer = ask(server[0], "/score", body)
    right, wrong = (entry["score"] for entry in answer["data"])
    assert right > 0.99
    assert wrong < 0.01


def test_label_scores_are_probabilities_of_tokens(server: tuple[str, Service]) -> None:
    sampler = server[1].sampler
    labels, query, items = [5, 17, 33, 90, 200], "2 + 2 =", [" 4", " 5"]
    body = {"query": query, "items": items, "label_token_ids": labels}
    _, _, answer = ask(server[0], "/v1/score", body)
    _, _, shares = ask(server[0], "/v1/score", {**body, "apply_softmax": True})
    for item, found, share in zip(items, answer["scores"], shares["scores"], strict=True):
        ids = [sampler.tokenizer.bos_id, *sampler.tokenizer.encode(query), *sampler.tokenizer.encode(item)]

        def script() -> Any:
            first = yield Choose(tuple(labels[:4]))
            return [*first, *(yield Choose((labels[4],)))]

        [(_, result)] = sampler.run([Request(ids, script)])
        expected = np.exp(result.value)
        assert found == pytest.approx(expected.tolist(), rel=1e-4)
        assert share == pytest.approx((expected / expected.sum()).tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/pooling", {"input": "2 + 2"}, 400, "input"),
        ("/pooling", {"messages": [{"role": "user", "content": "2 + 2"}]}, 400, "messages"),
        ("/pooling", {"input": [chatml(PROBLEM, ["a" * 3000])]}, 422, "input[0]"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["c"]}, 400, "text_1"),
        ("/score", {"text_1": "a", "text_2": ["", "b"]}, 422, "text_2[0]"),
        ("/v1/score", {"query": "a", "items": ["b"], "label_token_ids": []}, 400, "label_token_ids"),
        ("/v1/score", {"query": "a", "items": ["b"], "label_token_ids": [10**6]}, 400, "label_token_ids[0]"),
        ("/generate", {"text": ["a"], "sampling_params": {"regex": "x"}}, 400, "sampling_params.regex"),
        ("/generate", {"text": []}, 400, "text"),
        (
            "/generate",
            {"text": "a " * 400, "return_logprob": True, "logprob_start_len": 0},
            400,
            "logprob_start_len",
        ),
    ],
)
def test_a_failure_names_its_field(
    server: tuple[str, Service], path: str, body: Any, status: int, field: str
) -> None:
    found, _, answer = ask(server[0], path, body)
    assert (found, answer["error"]["param"]) == (status, field), answer


def generate(address: str, **body: Any) -> Any:
    """As SGLang's RuntimeEndpoint posts it."""
    status, _, answer = ask(address, "/generate", body)
    assert status == 200, answer
    return answer


def sampling(**values: Any) -> dict[str, Any]:
    """The sampling_params of its requests, all of them as they are sent."""
    return {
        "skip_special_tokens": True,
        "spaces_between_special_tokens": True,
        "max_new_tokens": 128,
        "stop": [],
        "stop_token_ids": [],
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "ignore_eos": False,
        "regex": None,
        **values,
    }


def test_the_original_clients_requests_give_our_verdict(server: tuple[str, Service]) -> None:
    """prm/thinkprm_api.py in SGLang's language: think until a stop, append the question, and decide between two
    words by the log-probabilities of prompts that end with each of them."""
    address, service = server
    _, _, info = ask(address, "/get_model_info")
    assert info["is_generation"] is True
    assert info["model_path"] == "mini"

    [(_, verdict)] = service.verifier.verify([(PROBLEM, WRONG)])
    text = verdict.prompt
    stops = ["Is the solution correct?", "<｜end▁of▁sentence｜>", "</think>", "Step 3:"]
    thought = generate(
        address, text=text, sampling_params=sampling(max_new_tokens=492, temperature=0.0, stop=stops)
    )
    assert thought["meta_info"]["finish_reason"] == {"type": "stop", "matched": "</think>"}
    assert verdict.chains[0].output.startswith(thought["text"] + "</think>")

    text += thought["text"] + "</think>\nIs the solution correct?"
    cached = generate(address, text=text, sampling_params={"max_new_tokens": 0})
    start = max(cached["meta_info"]["prompt_tokens"] - 2, 0)
    choices = generate(
        address,
        text=[text + word for word in (" Yes", " No")],
        sampling_params={"max_new_tokens": 0, "temperature": 0},
        return_logprob=True,
        return_text_in_logprobs=True,
        logprob_start_len=start,
    )
    found = [choice["meta_info"]["input_token_logprobs"] for choice in choices]
    assert [entries[-1][2] for entries in found] == [" Yes", " No"]
    assert found[0][0][0] is None
    assert all(entry[0] for entries in found for entry in entries[1:])  # 0 is none to SGLang's client
    yes, no = (math.exp(entries[-1][0]) for entries in found)
    assert yes / (yes + no) == pytest.approx(verdict.prefix_score, rel=1e-3)


def test_a_stream_of_sglang_has_the_text_so_far(server: tuple[str, Service]) -> None:
    body = {"text": "2 + 2", "sampling_params": sampling(temperature=0, max_new_tokens=80, ignore_eos=True)}
    whole = generate(server[0], **body)
    _, _, text = ask(server[0], "/generate", {**body, "stream": True})
    told = events(text)
    assert told[-1] == ("", "[DONE]")
    assert told[-2][1]["text"] == whole["text"]
    assert whole["text"].startswith(told[0][1]["text"])
    assert len(told) > 3


def test_a_verifier_of_one_pass_is_served(tmp_path: Path) -> None:
    prm_folders.qwen_prm(tmp_path)
    judge = load_verifier(str(tmp_path), kind="qwen_prm", max_length=128)
    [(_, expected)] = judge.verify([("2 + 2?", ["2 + 2 = 4.", "So 4."])])
    with served(judge) as (address, _):
        body = {"problem": "2 + 2?", "steps": ["2 + 2 = 4.", "So 4."]}
        _, _, answer = ask(address, "/v1/verify", body)
        assert answer["verdict"] == expected.record().to_dict()
        _, _, pooled = ask(address, "/pooling", {"input": chatml("2 + 2?", ["2 + 2 = 4.", "So 4."])})
        assert [row[1] for row in pooled["data"][0]["data"]] == pytest.approx(expected.step_scores, abs=1e-6)
        _, _, text = ask(address, "/v1/verify", {**body, "stream": True})
        assert [name for name, _ in events(text)] == ["begin", "verdict", "done"]
        for path, wrong, field in (
            ("/v1/verify", {**body, "n": 2}, "n"),
            ("/v1/completions", {"prompt": "x"}, None),
        ):
            status, _, answer = ask(address, path, wrong)
            assert (status, answer["error"]["param"]) == (400, field)
        with Client(address) as client:
            assert client.submit("2 + 2?", ["2 + 2 = 4.", "So 4."]).result().step_scores == expected.step_scores
