"""Added tokens keep their flags, and tokens that only the configuration names are there."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

MARKS = [
    AddedToken("<s>", special=True),
    AddedToken("<left>", lstrip=True, special=True, normalized=False),
    AddedToken("<right>", rstrip=True, normalized=False),
    AddedToken("<both>", lstrip=True, rstrip=True),
    AddedToken("word", single_word=True),
    AddedToken("<two words>", normalized=True),
    AddedToken("学", normalized=True),
    AddedToken("\n\n", normalized=False),
]
TEXTS = ["a", " ", "  ", "\n", "\n\n", "word", "words", "学", "<", ">", "left", "é", "e\u0301", "."]
TEXTS += [mark.content for mark in MARKS]


def make(folder: Path, sentences: bool = False, **config: Any) -> Path:
    """A tokenizer of single characters (bytes, or sentencepiece's), with all marks."""
    if sentences:
        pieces = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "w", "o", "r", "d"]
        vocabulary = {piece: id for id, piece in enumerate(pieces)}
        backend = tokenizers.Tokenizer(
            models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True)
        )
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        strip = decoders.Strip(content=" ", left=1)
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
        backend.decoder = decoders.Sequence(parts)
    else:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        backend = tokenizers.Tokenizer(models.BPE(vocab={c: id for id, c in enumerate(alphabet)}, merges=[]))
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    backend.add_tokens(MARKS)
    backend.save(str(folder / "tokenizer.json"))
    content = {"eos_token": "<s>", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


def texts(count: int) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices(TEXTS, k=draw.randrange(1, 9))) for _ in range(count)]


@pytest.mark.parametrize("sentences", [False, True])
@pytest.mark.parametrize(
    "named", [{}, {"sep_token": "<left>", "pad_token": "<right>", "additional_special_tokens": ["<both>", "word"]}]
)
def test_ids_are_those_of_the_library_whatever_is_named_again(
    named: dict[str, Any], sentences: bool, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.load(make(tmp_path, sentences, **named))
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in texts(300):
        assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids, repr(text)


TEMPLATE = "{% for m in messages %}{{ ' <left> ' + m.content + '<right> word ' }}{% endfor %}<both><two words>word"


@pytest.mark.parametrize("sentences", [False, True])
def test_ids_of_a_chat_are_those_of_its_text(sentences: bool, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(make(tmp_path, sentences, chat_template=TEMPLATE))
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    # The blank before a text stands behind every added token there; here a letter or a newline begins no new text.
    left_out = [*tokenizer.control_ids, *(["学", "\n\n"] if sentences else [])]
    for text in texts(300):
        if any(mark in text for mark in left_out):
            continue
        chat = [{"content": text}, {"content": "a"}]
        written = library.encode(tokenizer.render_chat(chat), add_special_tokens=False).ids
        assert tokenizer.encode_chat(chat) == written, repr(text)


def test_letters_and_blanks_that_were_added_are_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(make(tmp_path))
    assert not {"学", "\n\n"} & set(tokenizer.control_ids)
    assert tokenizer.encode_plain("a学\n\n") == tokenizer.encode("a学\n\n")
    assert len(tokenizer.encode_plain("学\n\n")) == 2
    assert tokenizer.decode(tokenizer.encode_plain("学\n\nword<s>")) == "学\n\nword<s>"
    marks = [mark for mark in MARKS if mark.content in tokenizer.control_ids]
    assert len(marks) == len(MARKS) - 2
    for mark in marks:
        assert tokenizer.control_ids[mark.content] not in tokenizer.encode_plain(mark.content)


NAMED = [
    {"sep_token": "<sep>", "pad_token": "<pad>",
     "mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True}},
    {"additional_special_tokens": ["<one>", "<two>"], "cls_token": "<cls>"},
    {"extra_special_tokens": ["<one>", "<left>", "<two>"]},
    {"extra_special_tokens": {"image_token": "<image>", "audio_token": "<audio>"}},
    {"image_token": "<image>", "unk_token": "<unk>"},
    {"added_tokens_decoder": {"264": {"content": "<new>", "rstrip": True, "special": True}}, "sep_token": "<sep>"},
    {"added_tokens_decoder": {"257": {"content": "<left>", "lstrip": False, "normalized": False, "special": True,
                                      "rstrip": False, "single_word": False}}},
]  # fmt: skip


@pytest.mark.parametrize("named", NAMED, ids=range(len(NAMED)))
def test_tokens_that_only_the_configuration_names(named: dict[str, Any], tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.load(make(tmp_path, **named, chat_template="{{ sep_token }}{{ image_token }}"))
    other = PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    assert tokenizer.vocab_size == len(other)
    text = " <sep> <pad> <mask> <one> <two> <cls> <image> <audio> <unk> <new> <left> a"
    assert tokenizer.encode(text) == other(text, add_special_tokens=False)["input_ids"]
    chat = [{"role": "user", "content": "a"}]
    assert tokenizer.render_chat(chat) == other.apply_chat_template(chat, tokenize=False)


def test_tokens_of_older_folders(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    make(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<pad>": 265, "<new>": 264}')
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "<pad>", "sep_token": {"content": "<sep>"}}')
    tokenizer, other = Tokenizer.load(tmp_path), PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    assert tokenizer.encode("<new><pad><sep>") == [264, 265, 266]
    assert tokenizer.encode("<new><pad><sep>") == other("<new><pad><sep>", add_special_tokens=False)["input_ids"]


WRONG: dict[str, dict[str, Any]] = {
    "eos_token": {"eos_token": 5},
    "a named token": {"sep_token": {"lstrip": True}},
    "a list of numbers": {"extra_special_tokens": [1, 2]},
    "no list": {"extra_special_tokens": 3},
    "ids of letters": {"added_tokens_decoder": {"x": {"content": "<x>"}}},
    "no content": {"added_tokens_decoder": {"264": {}}},
    "a content of null": {"added_tokens_decoder": {"264": {"content": None}}},
    "a list of tokens": {"added_tokens_decoder": ["<x>"]},
    "a far id": {"added_tokens_decoder": {"4000000000": {"content": "<x>"}}},
    "a template of numbers": {"chat_template": 3},
    "templates without names": {"chat_template": [{"template": "x"}]},
    "the end is unknown": {"eos_token": "<absent>"},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_configuration_of_wrong_types_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make(tmp_path, **WRONG[name])
    with pytest.raises(UserError) as caught:
        Tokenizer.load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)


def test_a_template_that_is_no_text(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"{{ messages }}\xff")
    with pytest.raises(UserError, match=r"chat_template\.jinja: not UTF-8 \(byte 15\)"):
        Tokenizer.load(tmp_path)


def test_an_id_of_four_thousand_millions_takes_no_memory(tmp_path: Path) -> None:
    make(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    state["model"]["vocab"]["a"] = 4_000_000_000
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.vocab_size == 4_000_000_001  # which no model has: refused beside its config.json
    assert tokenizer.token_bytes(4_000_000_000) == b"a"


# Texts that cannot fit


@pytest.mark.parametrize("sentences", [False, True])
def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenized(
    sentences: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer.load(make(tmp_path, sentences))
    seen: list[int] = []
    encode_plain = Tokenizer.encode_plain
    monkeypatch.setattr(
        Tokenizer, "encode_plain", lambda self, text: seen.append(len(text)) or encode_plain(self, text)
    )
    tokenizer.check_fits("a" * 1000, 100)
    with pytest.raises(RequestError, match=r"about 10,0.* tokens: with max_length 100 there is no room"):
        tokenizer.check_fits("a" * 10_000_000, 100)
    assert max(seen, default=0) <= 1600


def test_a_text_of_long_tokens_is_counted(r1: Tokenizer) -> None:
    blanks = " " * 3000
    assert len(r1.encode_plain(blanks)) < 100
    r1.check_fits(blanks, 100)
    with pytest.raises(RequestError, match="no room"):
        r1.check_fits("1" * 3000, 100)


def test_a_panic_of_the_library_is_an_error_of_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    class Broken:
        def encode_batch_fast(self, *_: Any, **__: Any) -> Any:
            raise PanicException("index out of bounds")

    tokenizer = Tokenizer.load(make(tmp_path))
    monkeypatch.setattr(tokenizer._model, "_plain", (Broken(), {}))
    with pytest.raises(RequestError, match="fails on this text: index out of bounds"):
        tokenizer.encode_plain("a")


@pytest.mark.parametrize("name", ["bos_token", "eos_token", "sep_token"])
@pytest.mark.parametrize("value", [5, [1], True])
def test_a_named_token_that_is_no_text_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"tokenizer_config\.json: {name} is no text"):
        Tokenizer.load(make(tmp_path, **{name: value}))


def test_a_switch_that_is_called_like_a_token_is_none(tmp_path: Path) -> None:
    assert Tokenizer.load(make(tmp_path, add_bos_token=True, bos_token=None)).bos_id is None
