"""A tokenizer.model is read as the sentencepiece library reads it."""

from __future__ import annotations

import io
import json
import random
from functools import cache
from pathlib import Path

import pytest
import sentencepiece

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

CORPUS = [
    "Let's verify step by step: the sum of 48 and 37 is 85, so the step is correct.",
    "Yes, no. No! Is the solution correct? Yes",
    "x = 3\n\ny =  x + 2\n\tpadded   text  ",
    "Der Schüler zählt: 1, 2, 3; l'élève compte. 学生数数。",
    "a_b <mark> f(x)=x^2 <b> {ab} 100%",
] * 8
# The ways in which models differ: kind, bytes for what is unknown, normaliser, blank before a text, blanks joined.
KEEPS_BLANKS = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
BYTES = {"byte_fallback": True}
MODELS = {
    "llama": {"model_type": "bpe", "split_digits": True, **BYTES, **KEEPS_BLANKS},
    "unigram": {"model_type": "unigram", **BYTES},
    "unigram_unknown": {"model_type": "unigram"},
    "no_prefix": {"model_type": "bpe", "add_dummy_prefix": False, **BYTES, **KEEPS_BLANKS},
    "symbols": {"model_type": "bpe", **BYTES, "user_defined_symbols": ["<mark>", "\n\n", "{ab}", "ß"]},
    "unigram_symbols": {"model_type": "unigram", **BYTES, "user_defined_symbols": ["<mark>", "é"]},
    "nfkc": {"model_type": "bpe", **BYTES, **KEEPS_BLANKS, "normalization_rule_name": "nfkc"},
}
MARKS = ["<mark>", "{ab}"]
ALPHABET = [
    *" abxyzYN019.,:=+<>\n\t_▁ßéÄ学🙂\u3000\u00a0ﬁ①e\u0301",
    "  ",
    "<s>",
    "</s>",
    "<unk>",
    "<0x41>",
    *MARKS,
    "Yes",
]


@cache
def train(name: str) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=400, hard_vocab_limit=False,
        minloglevel=2, character_coverage=0.98, **MODELS[name],
    )  # fmt: skip
    return model.getvalue()


def write(folder: Path, name: str, **config: object) -> Path:
    (folder / "tokenizer.model").write_bytes(train(name))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    made = ["".join(draw.choices(ALPHABET, k=draw.randrange(20))) for _ in range(count - len(CORPUS[:5]) - 4)]
    return [*CORPUS[:5], "  two before", " one", "behind  ", "Yes\0No", *made]


def processor(name: str) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=train(name))


def check_ids(name: str, folder: Path, count: int) -> int:
    """Compares ``count`` texts that spell no control token. Returns: how many they are."""
    tokenizer, library = Tokenizer.load(write(folder, name)), processor(name)
    compared = 0
    for text in texts(count):
        if any(control in text for control in ("<s>", "</s>", "<unk>")):
            continue  # text to the library
        ids = library.encode(text)
        assert tokenizer.encode(text) == ids, repr(text)
        if not any(mark in text for mark in MARKS):
            try:
                assert tokenizer.encode_plain(text) == ids, repr(text)
                assert tokenizer.decode(ids) == library.decode(ids), repr(text)
            except RequestError:
                assert library.unk_id() in ids
        compared += 1
    return compared


def test_ids_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    assert check_ids(name, tmp_path, 200) > 100


@pytest.mark.slow
def test_ids_of_ten_thousand_texts(name: str, tmp_path: Path) -> None:
    assert check_ids(name, tmp_path, 10_000) > 5_000


def test_untrusted_text_writes_no_control_token(name: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write(tmp_path, name))
    control = set(tokenizer.control_ids.values())
    for text in texts(300, seed=1):
        try:
            ids = tokenizer.encode_plain(text)
        except RequestError:  # what the model has no piece for
            assert name == "unigram_unknown"
            continue
        assert not control & set(ids), text
        if name in ("llama", "no_prefix") and "▁" not in text:  # those that normalise nothing give the text back
            assert tokenizer.decode(ids) == text


def test_a_model_alone_names_its_own_tokens(name: str, tmp_path: Path) -> None:
    tokenizer, library = Tokenizer.load(write(tmp_path, name)), processor(name)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (library.bos_id(), library.eos_id())
    assert tokenizer.control_ids["</s>"] == library.eos_id()
    assert tokenizer.encode("</s>") == [library.eos_id()]
    assert tokenizer.vocab_size == library.get_piece_size()


@pytest.mark.parametrize(("legacy", "behind"), [(None, "▁Yes"), (True, "▁Yes"), (False, "Yes")])
def test_the_text_behind_a_control_token(legacy: bool | None, behind: str, tmp_path: Path) -> None:
    config = {} if legacy is None else {"legacy": legacy}
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    tokenizer = Tokenizer.load(write(tmp_path, "llama", chat_template=template, **config))
    library = processor("llama")
    first = library.encode("Yes", add_bos=True) if legacy is not False else [1, *without_prefix("Yes")]
    second = library.encode("No") if legacy is not False else without_prefix("No")
    ids = tokenizer.encode_chat([{"content": "Yes"}, {"content": "No"}])
    assert ids == [*first, 2, *second, 2]
    assert tokenizer.encode("<s>Yes</s>No</s>") == ids
    assert tokenizer.decode(ids) == "<s>Yes</s>No</s>"
    assert library.id_to_piece(ids[1]) == behind


def without_prefix(text: str) -> list[int]:
    """As transformers does where `legacy` is false: behind a token that takes the blank for itself."""
    library = processor("llama")
    return library.encode("\n" + text)[len(library.encode("\n")) :]


def test_a_users_mark_in_a_chat(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ '<mark>' + m.content }}{% endfor %}"
    tokenizer = Tokenizer.load(write(tmp_path, "symbols", chat_template=template))
    chat = [{"content": "Yes"}, {"content": "a<mark>b"}]
    ids = tokenizer.encode_chat(chat)
    assert ids.count(tokenizer.control_ids["<mark>"]) == 2
    assert tokenizer.decode(ids) == tokenizer.render_chat(chat)
    plain = [{"content": "Yes"}, {"content": "No"}]
    assert tokenizer.encode_chat(plain)[1:] == processor("symbols").encode("<mark>Yes<mark>No")[2:]


def test_tokens_that_the_folder_adds(tmp_path: Path) -> None:
    size = processor("llama").get_piece_size()
    decoder = {str(size): {"content": "<pad>", "special": True}, "2": {"content": "</s>", "rstrip": True}}
    folder = write(
        tmp_path, "llama", added_tokens_decoder=decoder, pad_token="<pad>", sep_token="<sep>",
        additional_special_tokens=["<extra>"],
    )  # fmt: skip
    tokenizer = Tokenizer.load(folder)
    assert (tokenizer.pad_id, tokenizer.vocab_size) == (size, size + 3)
    assert tokenizer.encode("<pad><sep><extra></s> ") == [size, size + 1, size + 2, 2]
    assert not {size, size + 1, size + 2, 2} & set(tokenizer.encode_plain("<pad><sep><extra></s>"))
    assert tokenizer.decode([size, size + 2]) == "<pad><extra>"


def test_token_ids_and_bytes(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write(tmp_path, "llama"))
    ids = tokenizer.encode_plain("Yes, 学 is 12")
    assert b"".join(map(tokenizer.token_bytes, ids)).decode() == " Yes, 学 is 12"
    assert tokenizer.token_bytes(tokenizer.token_id(" Yes")) == b" Yes"
    assert tokenizer.decode([10**9, -1]) == ""


def test_what_is_saved_is_what_was_read(name: str, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    tokenizer = Tokenizer.load(write(given, name, pad_token="<pad>", chat_template="{{ messages[0].content }}"))
    tokenizer.save(tmp_path / "saved")
    assert (tmp_path / "saved/tokenizer.model").read_bytes() == train(name)
    again = Tokenizer.load(tmp_path / "saved")
    assert again.control_ids == tokenizer.control_ids
    assert again.encode("<s>Yes <pad>") == tokenizer.encode("<s>Yes <pad>")
    assert again.chat_template == tokenizer.chat_template


@pytest.mark.parametrize("content", [b"", b"no model", b"\x0a\x03\x0a\x01a" * 3, None])
def test_a_file_that_is_no_model(content: bytes | None, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(train("llama")[:2000] if content is None else content)
    with pytest.raises(UserError) as caught:
        Tokenizer.load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)
