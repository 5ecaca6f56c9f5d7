"""Tokenizers from the metadata of GGUF files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece as spm
from gguf import GGMLQuantizationType as Kind
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

from support import gguf_files
from thinkprm_jax.errors import UserError
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

SIZE = 320
TEXTS = (
    "the answer is 12\n\n\nstep 3: Yes, No. correct",
    "12345 and  1 2\t3 １２ ²",
    "I'm WE'RE don't l'eau naïve cafe\u0301 한국어 中文，。 🧮",
    "  two blanks, a tab\tand\r\nlines \n \n end  ",
    "<|end|> <|user|>the[PAD300]",
)


def write(folder: Path, pre: str | None, **extra: Any) -> Path:
    tokens, kinds, merges = gguf_files.vocabulary(SIZE)
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": tokens.index("<|end|>"),
        "tokenizer.chat_template": "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}",
        **extra,
    }
    tensors = {"token_embd.weight": (np.zeros((SIZE, 8), np.float32), Kind.F32)}
    return gguf_files.write_raw(folder / "model.gguf", "qwen2", metadata, tensors)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(write(tmp_path_factory.mktemp("qwen"), "qwen2"))


@pytest.fixture(scope="module")
def theirs() -> Qwen2Tokenizer:
    tokens, _, merges = gguf_files.vocabulary(SIZE)
    base = tokens[: tokens.index("<|end|>")]
    found = Qwen2Tokenizer(
        vocab={token: id for id, token in enumerate(base)}, merges=[tuple(merge.split()) for merge in merges]
    )
    found.add_special_tokens({"additional_special_tokens": gguf_files.CONTROL})
    return found


@pytest.mark.parametrize("text", TEXTS)
def test_qwen_cuts_as_its_own_tokenizer(qwen: Tokenizer, theirs: Qwen2Tokenizer, text: str) -> None:
    plain = text.replace("<|", "< |")  # the order of their added tokens is another
    assert [qwen.decode([id]) for id in qwen.encode(plain)] == [
        theirs.decode([id]) for id in theirs.encode(plain, add_special_tokens=False)
    ]


@given(text=st.text(max_size=30))
def test_any_text_of_qwen(qwen: Tokenizer, theirs: Qwen2Tokenizer, text: str) -> None:
    assert qwen.encode_plain(text) == theirs.backend_tokenizer.encode(text, add_special_tokens=False).ids


def words(file: Path, text: str) -> list[str]:
    tokenizer = Tokenizer.load(file)
    return [tokenizer.decode([id]) for id in tokenizer.encode(text)]


@pytest.mark.parametrize(
    ("pre", "digits"),
    [("qwen2", ["1", "2"]), ("deepseek-r1-qwen", ["1", "2"]), ("llama-bpe", ["12"]), ("smollm", ["1", "2"]),
     ("gpt-2", ["12"]), ("tekken", ["1", "2"])],
)  # fmt: skip
def test_each_rule_cuts_digits_in_its_way(tmp_path: Path, pre: str, digits: list[str]) -> None:
    file = write(tmp_path, pre)
    assert words(file, "12") == digits
    assert Tokenizer.load(file).decode(Tokenizer.load(file).encode(TEXTS[1])) == TEXTS[1]


def test_a_word_that_is_a_token_is_not_merged_from_its_parts(tmp_path: Path) -> None:
    """Llama 3 has tokens that no merges lead to."""
    tokens, kinds, merges = gguf_files.vocabulary(SIZE)
    merges.remove("a n")
    arrays = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.merges": merges}
    assert words(write(tmp_path, "llama-bpe", **arrays), "answer") == ["answer"]
    assert words(write(tmp_path, "qwen2", **arrays), "answer") != ["answer"]


def test_control_tokens_have_their_ids_and_no_text_spells_them(qwen: Tokenizer) -> None:
    tokens, _, _ = gguf_files.vocabulary(SIZE)
    assert qwen.control_ids == {token: tokens.index(token) for token in gguf_files.CONTROL}
    assert qwen.eos_id == tokens.index("<|end|>")
    assert not set(qwen.encode_plain(TEXTS[4])) & set(qwen.control_ids.values())


def test_unused_ids_are_no_tokens(qwen: Tokenizer) -> None:
    _, kinds, _ = gguf_files.vocabulary(SIZE)
    assert qwen.vocab_size == kinds.index(5)
    assert qwen.decode([kinds.index(5)]) == ""


def test_control_tokens_between_others(tmp_path: Path) -> None:
    """SmolLM2 begins with them."""
    tokens, kinds, merges = gguf_files.vocabulary(SIZE)
    file = write(tmp_path, "smollm", **{
        "tokenizer.ggml.tokens": ["<|a|>", *tokens], "tokenizer.ggml.token_type": [3, *kinds],
        "tokenizer.ggml.merges": merges, "tokenizer.ggml.eos_token_id": 0,
    })  # fmt: skip
    tokenizer = Tokenizer.load(file)
    assert tokenizer.encode("<|a|>") == [0]
    assert tokenizer.encode("<|user|>") == [tokens.index("<|user|>") + 1]
    assert tokenizer.decode(tokenizer.encode("the answer")) == "the answer"


def test_the_chat_is_that_of_the_file(qwen: Tokenizer) -> None:
    assert qwen.render_chat([{"role": "user", "content": "hi"}]) == "<|user|>hi<|end|>"


def test_it_is_saved_as_tokenizer_json(qwen: Tokenizer, tmp_path: Path) -> None:
    qwen.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    for text in TEXTS:
        assert again.encode(text) == qwen.encode(text)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["normalizer"] == {"type": "NFC"}


@pytest.mark.slow
def test_the_released_vocabulary(r1_tokenizer_folder: Path, r1: Tokenizer, tmp_path: Path) -> None:
    """The R1-Distill-Qwen tokenizer, written as llama.cpp's converter does, gives the same ids."""
    saved = json.loads((r1_tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))
    base, added = saved["model"]["vocab"], saved["added_tokens"]
    tokens = [*sorted(base, key=base.__getitem__), *(token["content"] for token in added)]
    kinds = [1] * len(base) + [3 if token["special"] else 4 for token in added]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in saved["model"]["merges"]]
    file = write(tmp_path, "deepseek-r1-qwen", **{
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": r1.eos_id, "tokenizer.ggml.bos_token_id": r1.bos_id,
    })  # fmt: skip
    ours = Tokenizer.load(file)
    assert ours.control_ids == r1.control_ids
    for text in (*TEXTS, "<think>\nStep 1: 3 + 4 = \\boxed{7}</think> Yes", "Schrödinger’s  μ-meson\u2028…"):
        assert ours.encode(text) == r1.encode(text)


def test_sentencepiece_models(tmp_path: Path) -> None:
    """Pieces and scores of a trained model, as llama.cpp's converter writes them, give the ids of that model."""
    lines = ["the answer is 12. Yes, it is correct", "no  step is incorrect\tNo", "Let x = 3, so 4 + x = 7"] * 40
    trained = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=trained, model_type="bpe", vocab_size=330, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    theirs = spm.SentencePieceProcessor(model_proto=trained.getvalue())
    ids = range(theirs.get_piece_size())
    kinds = [
        2 if theirs.is_unknown(id) else 3 if theirs.is_control(id) else 6 if theirs.is_byte(id) else 1
        for id in ids
    ]
    file = write(tmp_path, None, **{
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": [theirs.id_to_piece(id) for id in ids],
        "tokenizer.ggml.scores": [theirs.get_score(id) for id in ids], "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": None, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    })  # fmt: skip
    ours = Tokenizer.load(file)
    for text in (*TEXTS, *lines[:3]):
        assert ours.encode(text.replace("<|", "")) == theirs.encode(text.replace("<|", ""))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"tokenizer.ggml.pre": "deepseek-llm"}, r"ggml\.pre 'deepseek-llm' is not supported \(we have: "),
        ({"tokenizer.ggml.model": "bert"}, r"tokenizer\.ggml\.model 'bert' is not supported"),
        ({"tokenizer.ggml.tokens": None}, r"tokenizer\.ggml\.tokens is missing"),
        ({"tokenizer.ggml.token_type": [1, 2]}, r"token_type has 2 entries for 320 tokens"),
        ({"tokenizer.ggml.merges": ["zz y"]}, r"tokenizer\.ggml\.merges do not fit the tokens"),
        ({"tokenizer.ggml.eos_token_id": 999}, r"eos_token_id is 999, of 320 tokens"),
        ({"tokenizer.ggml.eos_token_id": None}, "names no eos_token"),
    ],
)
def test_what_is_refused(tmp_path: Path, extra: dict[str, Any], message: str) -> None:
    pre = extra.pop("tokenizer.ggml.pre", "qwen2")
    with pytest.raises(UserError, match=message):
        Tokenizer.load(write(tmp_path, pre, **extra))


def test_a_file_without_a_rule_has_that_of_its_family(tmp_path: Path, qwen: Tokenizer) -> None:
    assert Tokenizer.load(write(tmp_path, None)).encode(TEXTS[1]) == qwen.encode(TEXTS[1])
