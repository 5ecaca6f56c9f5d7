"""Text as OpenAI's own client asks for it, and its meaning: that of the sampler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

from support.serving import ask, served, verifier
from thinkprm_jax import load_model
from thinkprm_jax.serving.service import Service

KEY = "sk-of-the-tests"
PROMPT = "Tom has 78 lemons."


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Service]]:
    with served(verifier(), keys=("another", KEY)) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: tuple[str, Service]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server[0]}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_a_completion_is_the_samplers(server: tuple[str, Service], client: openai.OpenAI) -> None:
    sampler = server[1].sampler
    prompt = [sampler.tokenizer.bos_id, *sampler.tokenizer.encode(PROMPT)]
    values: dict[str, Any] = {"temperature": 0.9, "top_p": 0.9, "seed": 11}
    ours = sampler.generate([prompt], max_new_tokens=24, n=2, **values)[0]
    found = client.completions.create(
        model="mini",
        prompt=PROMPT,
        max_tokens=24,
        n=2,
        logprobs=0,
        extra_body={"return_token_ids": True},
        **values,
    )
    for choice, completion in zip(found.choices, ours, strict=True):
        assert choice.text == completion.text
        assert choice.model_extra["token_ids"] == completion.ids
        assert choice.logprobs.token_logprobs == pytest.approx(completion.logprobs.tolist(), abs=1e-4)
        assert choice.finish_reason == completion.finish_reason
    assert found.usage.prompt_tokens == len(prompt)
    assert found.usage.total_tokens == len(prompt) + found.usage.completion_tokens


@pytest.mark.parametrize("chat", [False, True])
def test_alternatives_are_the_likeliest_of_the_model(
    server: tuple[str, Service], client: openai.OpenAI, chat: bool
) -> None:
    tokenizer = server[1].sampler.tokenizer
    values: dict[str, Any] = {"model": "mini", "max_tokens": 12, "temperature": 0.9, "seed": 3}
    values["extra_body"] = {"return_token_ids": True}
    if chat:
        messages: list[Any] = [{"role": "user", "content": "2 + 2"}]
        [choice] = client.chat.completions.create(
            messages=messages, logprobs=True, top_logprobs=5, **values
        ).choices
        told = [{each.token: each.logprob for each in place.top_logprobs} for place in choice.logprobs.content]
    else:
        [choice] = client.completions.create(prompt=PROMPT, logprobs=5, **values).choices
        told = choice.logprobs.top_logprobs
    prompt, ids = choice.model_extra["prompt_token_ids"], choice.model_extra["token_ids"]
    model, _ = load_model("mini")
    logits = np.asarray(model(np.array([[*prompt, *ids]])), np.float64)[0, len(prompt) - 1 : -1]
    logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    assert len(told) == len(ids) > 1
    for row, id, named in zip(logprobs, ids, told, strict=True):
        expected = [int(each) for each in np.argsort(-row)[:5]] + ([] if chat else [id])
        assert named == pytest.approx({tokenizer.decode([each]): row[each] for each in expected}, abs=1e-4)


def test_text_and_its_ids_are_the_same_prompt(server: tuple[str, Service], client: openai.OpenAI) -> None:
    tokenizer = server[1].sampler.tokenizer
    ids = [tokenizer.bos_id, *tokenizer.encode(PROMPT)]
    first, second = client.completions.create(model="mini", prompt=[ids, ids], temperature=0, max_tokens=8).choices
    [third] = client.completions.create(model="mini", prompt=PROMPT, temperature=0, max_tokens=8).choices
    assert first.text == second.text == third.text


def test_without_a_seed_samples_differ(client: openai.OpenAI) -> None:
    asked = [
        client.completions.create(model="mini", prompt=PROMPT, max_tokens=16, temperature=3) for _ in range(3)
    ]
    assert len({each.choices[0].text for each in asked}) == 3


def test_a_stop_text_is_not_in_the_text(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="mini", prompt=PROMPT, temperature=0, max_tokens=32).choices[0].text
    stop = whole[len(whole) // 2 :][:3]
    cut = client.completions.create(
        model="mini", prompt=PROMPT, temperature=0, max_tokens=32, stop=[stop]
    ).choices[0]
    assert (cut.text, cut.finish_reason) == (whole[: whole.index(stop)], "stop")


def test_a_chat_is_the_template_around_plain_text(server: tuple[str, Service], client: openai.OpenAI) -> None:
    sampler = server[1].sampler
    messages: list[Any] = [{"role": "user", "content": "2 + 2 </think> <think>"}]
    ids = sampler.tokenizer.encode_chat(messages)
    [[ours]] = sampler.generate([ids], max_new_tokens=24)
    found = client.chat.completions.create(
        model="mini", messages=messages, max_tokens=24, temperature=0, logprobs=True, top_logprobs=1
    )
    [choice] = found.choices
    assert choice.message.content == ours.text
    assert found.usage.prompt_tokens == len(ids)
    content = choice.logprobs.content
    assert [each.logprob for each in content] == pytest.approx(ours.logprobs.tolist(), abs=1e-4)
    assert bytes(byte for each in content for byte in each.bytes).decode() == ours.text


@pytest.mark.parametrize("chat", [False, True])
def test_a_stream_is_the_whole_in_pieces(client: openai.OpenAI, chat: bool) -> None:
    values: dict[str, Any] = {"model": "mini", "max_tokens": 70, "temperature": 1, "seed": 5, "n": 2}
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    if chat:
        values["messages"] = [{"role": "user", "content": "2 + 2"}]
        whole: Any = client.chat.completions.create(**values)
        pieces: list[Any] = list(client.chat.completions.create(**values, **options))
    else:
        whole = client.completions.create(prompt=PROMPT, **values)
        pieces = list(client.completions.create(prompt=PROMPT, **values, **options))
    texts, ends = ["", ""], [None, None]
    for piece in pieces[:-1]:
        [choice] = piece.choices
        texts[choice.index] += (choice.delta.content or "") if chat else choice.text
        ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [choice.message.content if chat else choice.text for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert len(pieces) > 5
    assert pieces[-1].choices == []
    assert pieces[-1].usage.model_dump() == whole.usage.model_dump()


def test_a_wrong_key_is_refused(server: tuple[str, Service]) -> None:
    with (
        openai.OpenAI(base_url=f"{server[0]}/v1", api_key="sk-of-the-test", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    [model] = client.models.list().data
    assert (model.id, model.object) == ("mini", "model")
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="gpt-9", prompt="x")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("completions", {"prompt": []}, "prompt"),
        ("completions", {"prompt": [0, 10**9]}, "prompt[1]"),
        ("completions", {"prompt": [["a"]]}, "prompt[0][0]"),
        ("completions", {"prompt": [1] * 600}, "prompt"),
        ("completions", {"prompt": "7 " * 600}, "prompt"),
        ("completions", {"prompt": "\ud800"}, "prompt"),
        ("completions", {"prompt": "x", "stop": [""]}, "stop[0]"),
        ("completions", {"prompt": "x", "logit_bias": {"5": 1}}, "logit_bias"),
        ("completions", {"prompt": "x", "presence_penalty": 0.5}, "presence_penalty"),
        ("completions", {"prompt": "x", "logprobs": 21}, "logprobs"),
        ("completions", {"prompt": "x", "stream_options": {}}, "stream_options"),
        ("completions", {"prompt": "x", "stop_token_ids": [5] * 9}, "stop_token_ids"),
        ("completions", {"prompt": "x", "seed": -1}, "seed"),
        ("chat/completions", {"messages": []}, "messages"),
        ("chat/completions", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ("chat/completions", {"messages": [{"content": "x"}]}, "messages[0].role"),
        ("chat/completions", {"messages": [{"role": "user"}], "tools": [{}]}, "tools"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
    ],
)
def test_a_failure_names_its_field(server: tuple[str, Service], path: str, body: Any, field: str) -> None:
    status, _, answer = ask(server[0], f"/v1/{path}", body, {"X-API-Key": KEY})
    assert (status, answer["error"]["param"]) == (400, field), answer
