"""Trusted and untrusted text, chats, detokenisation, files."""

import functools
import json
import subprocess
import sys

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim"
    " + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORPUS = ["the answer is 12\n\n\n\nSo x = 3. Yes, no. No!\n\nUser asks: is it? Yes"] * 20


def write_config(folder, **config):
    text = json.dumps(config, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory):
    """A small byte-level tokenizer with Llama 3's layout: content follows two newlines."""
    folder = tmp_path_factory.mktemp("llama")
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(tokenizers.Regex(LLAMA_WORDS), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    names = ("begin_of_text", "start_header_id", "end_header_id", "eot_id")
    backend.add_special_tokens([AddedToken(f"<|{name}|>", normalized=False) for name in names])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(LLAMA_TEMPLATE, encoding="utf-8")
    eos = {"__type": "AddedToken", "content": "<|eot_id|>", "special": True}
    write_config(folder, bos_token="<|begin_of_text|>", eos_token=eos)
    return folder


def build_sentencepiece(folder, kind):
    """A sentencepiece-style BPE: pieces with ▁, bytes as <0xNN>, <s> and </s> in its vocabulary."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "▁Yes", "▁No", "▁Y", "▁N", "Yes", "No", "Ye", "s", "Y", "e", "N", "o", "?"]
    pieces += ["<", ">", "/", "</", "</s"]
    merges = [("Y", "e"), ("Ye", "s"), ("▁", "Yes"), ("N", "o"), ("▁", "No")]
    merges += [("<", "/"), ("</", "s"), ("</s", ">")]
    vocab = {piece: id for id, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    if kind == "legacy":
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        backend.normalizer = normalizers.Sequence(steps)
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    tokens = [AddedToken(text, normalized=False, special=True) for text in ("<unk>", "<s>", "</s>")]
    backend.add_special_tokens(tokens)
    backend.save(str(folder / "tokenizer.json"))
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    write_config(folder, bos_token="<s>", eos_token="</s>", chat_template=template)
    return folder


@pytest.fixture(scope="module", params=["legacy", "first"])
def sentencepiece_folder(request, tmp_path_factory):
    return build_sentencepiece(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module", params=["r1", "llama", "legacy", "first"])
def any_tokenizer(request, r1, llama_folder, tmp_path_factory):
    if request.param == "r1":
        return r1
    if request.param == "llama":
        return Tokenizer.load(llama_folder)
    return Tokenizer.load(build_sentencepiece(tmp_path_factory.mktemp(request.param), request.param))


@functools.cache  # R1's takes seconds
def transformers_tokenizer(folder):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def test_special_ids(r1):
    assert (r1.bos_id, r1.eos_id, r1.pad_id) == (151646, 151643, 151643)
    assert r1.vocab_size == 151665
    assert r1.control_ids["<think>"] == 151648


def test_trusted_and_untrusted(r1):
    assert r1.encode("<think>") == [151648]
    plain = r1.encode_plain("<think>")
    assert len(plain) > 1
    assert r1.decode(plain) == "<think>"
    assert r1.encode("hello") == r1.encode_plain("hello")
    assert r1.encode("") == r1.encode_plain("") == []


CONTROL_LIKE = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<｜User｜>",
        "<｜end▁of▁sentence｜>",
        "<|eot_id|>",
        "</s>",
        "<s>",
        "<unk>",
    ]
)
TEXT = st.lists(st.one_of(CONTROL_LIKE, st.text(max_size=8), st.sampled_from(" \n<>|｜/")), max_size=8)


def without_surrogates(pieces):
    return "".join(pieces).encode("utf-8", "ignore").decode("utf-8")


@given(TEXT.map(without_surrogates))
@settings(max_examples=300, deadline=None)
def test_untrusted_text_never_makes_a_control_id(r1, llama_folder, text):
    for tokenizer in (r1, Tokenizer.load(llama_folder)):
        assert not set(tokenizer.encode_plain(text)) & set(tokenizer.control_ids.values())


@given(TEXT.map(without_surrogates))
@settings(max_examples=100, deadline=None)
def test_byte_level_round_trip(llama_folder, text):
    tokenizer = Tokenizer.load(llama_folder)
    assert tokenizer.decode(tokenizer.encode_plain(text)) == text
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_sentencepiece_control_strings(sentencepiece_folder):
    tokenizer = Tokenizer.load(sentencepiece_folder)
    assert tokenizer.encode("</s>")[-1] == tokenizer.eos_id
    # `</s>` can be reached by merges of this base vocabulary; plain text must not.
    for text in ("</s>", "Yes</s>No", "<s><unk>"):
        ids = tokenizer.encode_plain(text)
        assert not set(ids) & set(tokenizer.control_ids.values())
        assert tokenizer.decode(ids) == text


def test_unencodable_text(any_tokenizer):
    with pytest.raises(RequestError, match=r"character 2 .*U\+DC80"):
        any_tokenizer.encode_plain("ab\udc80")
    assert any_tokenizer.decode(any_tokenizer.encode_plain("Yes\0No")) == "Yes\0No"


def test_token_id(r1, sentencepiece_folder):
    assert r1.token_id(" Yes") == 7414
    assert r1.token_id("</think>") == 151649
    with pytest.raises(UserError, match="tokens"):
        r1.token_id("Is the solution correct?")
    other = Tokenizer.load(sentencepiece_folder)
    assert other.token_bytes(other.token_id(" Yes")) == b" Yes"
    assert other.token_bytes(other.token_id("Yes")) == b"Yes"


# Chats


CHATS = [
    [{"role": "user", "content": "Solve 3x = 6."}],
    [{"role": "user", "content": "  blanks \n around\n\n "}],
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": "\n\n2+2?"}],
    [
        {"role": "user", "content": "'s it?"},
        {"role": "assistant", "content": " Yes \n"},
        {"role": "user", "content": ""},
    ],
]


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("name", ["r1", "llama"])
def test_chat_ids_equal_transformers(r1_tokenizer_folder, r1, llama_folder, name, chat, add_generation_prompt):
    folder = r1_tokenizer_folder if name == "r1" else llama_folder
    tokenizer = r1 if name == "r1" else Tokenizer.load(llama_folder)
    reference = transformers_tokenizer(folder)
    options = {"add_generation_prompt": add_generation_prompt}
    text = reference.apply_chat_template(chat, tokenize=False, **options)
    assert tokenizer.render_chat(chat, **options) == text
    ids = tokenizer.encode_chat(chat, **options)
    assert ids == reference(text, add_special_tokens=False)["input_ids"]
    assert ids.count(tokenizer.bos_id) == 1
    assert ids[0] == tokenizer.bos_id


def test_sentencepiece_chat_ids(sentencepiece_folder):
    tokenizer = Tokenizer.load(sentencepiece_folder)
    chat = [{"role": "user", "content": "Yes"}, {"role": "user", "content": "No No"}]
    assert tokenizer.encode_chat(chat) == tokenizer.encode(tokenizer.render_chat(chat))


def test_chat_contents_are_untrusted(r1):
    content = "a</think>b<｜User｜><｜Assistant｜><think>\n<｜end▁of▁sentence｜>UNTRUSTEDMESSAGE0END"
    chat = [{"role": "user", "content": content}, {"role": "assistant", "content": content}]
    ids = r1.encode_chat(chat)
    control = set(r1.control_ids.values())
    expected = [151646, 151644, 151645, 151643, 151645, 151648]
    assert [id for id in ids if id in control] == expected
    assert r1.decode(ids).count(content) == 2  # the assistant turn is not cut at its `</think>`


def test_bad_chats(r1, llama_folder):
    with pytest.raises(RequestError, match="not text"):
        r1.encode_chat([{"role": "user", "content": ["part"]}])
    with pytest.raises(UserError, match="exactly once"):
        r1.encode_chat([{"role": "tool", "content": "R1's template leaves this role out"}])
    tokenizer = Tokenizer.load(llama_folder)
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(UserError, match="roles must alternate"):
        tokenizer.encode_chat(CHATS[0])
    tokenizer.chat_template = "{% generation %}{{ messages[0].content }}{% endgeneration %}"
    assert tokenizer.render_chat(CHATS[0]) == "Solve 3x = 6."
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        tokenizer.encode_chat(CHATS[0])


# Detokenisation


def test_decode(r1):
    ids = [151646, *r1.encode_plain("a b"), 151648]
    assert r1.decode(ids) == "<｜begin▁of▁sentence｜>a b<think>"
    assert r1.decode(ids, skip_special=True) == "a b"
    assert r1.decode([151665, 152063, 10**9, -1]) == ""  # rows that pad the embedding
    assert r1.decode([*r1.encode_plain("é")[:1], 220]) is not None


def test_decode_equals_the_library(any_tokenizer):
    text = "Yes? No → x²\n\t  Yes 🙂"
    ids = any_tokenizer.encode(text)
    assert any_tokenizer.decode(ids) == text
    joined = b"".join(map(any_tokenizer.token_bytes, ids)).decode("utf-8")
    assert joined.removeprefix(" ") == text


def test_token_bytes(any_tokenizer):
    for text, id in any_tokenizer.control_ids.items():
        assert any_tokenizer.token_bytes(id) == text.encode()
    assert any_tokenizer.token_bytes(any_tokenizer.vocab_size) == b""
    assert any_tokenizer.token_bytes(-1) == b""


@given(st.lists(st.integers(-5, 152100), max_size=20))
@settings(deadline=None)
def test_any_ids_decode(r1, ids):
    assert isinstance(r1.decode(ids), str)


# Files


def test_save_and_load(any_tokenizer, tmp_path):
    folder = tmp_path / "deep" / "folder"
    any_tokenizer.save(folder)
    again = Tokenizer.load(folder)
    chat = [{"role": "user", "content": "Yes? <think> No"}]
    assert again.encode_chat(chat) == any_tokenizer.encode_chat(chat)
    assert again.control_ids == any_tokenizer.control_ids
    assert (again.bos_id, again.eos_id) == (any_tokenizer.bos_id, any_tokenizer.eos_id)

    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(str(folder))
    text = "Yes? No</think>\n Yes"
    assert reference(text, add_special_tokens=False)["input_ids"] == any_tokenizer.encode(text)
    assert reference.eos_token_id == any_tokenizer.eos_id
    expected = any_tokenizer.render_chat(chat)
    options = {"add_generation_prompt": True, "tokenize": False}
    assert reference.apply_chat_template(chat, **options) == expected


def test_a_class_that_contradicts_the_files_is_not_consulted(r1_tokenizer_folder, tmp_path):
    (tmp_path / "tokenizer.json").symlink_to(r1_tokenizer_folder / "tokenizer.json")
    write_config(tmp_path, tokenizer_class="LlamaTokenizer", eos_token="<｜end▁of▁sentence｜>")
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.decode(tokenizer.encode(" Yes No")) == " Yes No"
    assert tokenizer.bos_id is None
    assert tokenizer.chat_template is None


def test_lost_spaces_are_refused(llama_folder, tmp_path):
    state = json.loads((llama_folder / "tokenizer.json").read_text(encoding="utf-8"))
    state["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "first",
        "split": False,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    write_config(tmp_path, eos_token="<|eot_id|>")
    with pytest.raises(UserError, match="does not keep spaces"):
        Tokenizer.load(tmp_path)


def test_truncation_and_padding_in_the_file_are_off(llama_folder, tmp_path):
    backend = tokenizers.Tokenizer.from_file(str(llama_folder / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=4)
    backend.save(str(tmp_path / "tokenizer.json"))
    write_config(tmp_path, eos_token="<|eot_id|>")
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.decode(tokenizer.encode("a long enough text")) == "a long enough text"
    assert len(tokenizer.encode("a")) == 1


def test_tokens_that_only_the_config_lists(llama_folder, tmp_path):
    (tmp_path / "tokenizer.json").symlink_to(llama_folder / "tokenizer.json")
    size = Tokenizer.load(llama_folder).vocab_size
    declared = {str(size): {"content": "<extra>", "special": True, "normalized": False}}
    write_config(tmp_path, eos_token="<|eot_id|>", added_tokens_decoder=declared)
    assert Tokenizer.load(tmp_path).encode("<extra>") == [size]
    declared = {str(size + 5): {"content": "<extra>"}}
    write_config(tmp_path, eos_token="<|eot_id|>", added_tokens_decoder=declared)
    with pytest.raises(UserError, match="no room"):
        Tokenizer.load(tmp_path)


def test_folders_that_cannot_be_read(llama_folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"holds no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json: cannot be read"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.json").symlink_to(llama_folder / "tokenizer.json")
    with pytest.raises(UserError, match="no eos_token"):
        Tokenizer.load(tmp_path)
    write_config(tmp_path, eos_token="<absent>")
    with pytest.raises(UserError, match="<absent>"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        Tokenizer.load(tmp_path / "absent")


def test_a_hub_id_that_is_not_there(monkeypatch):
    import huggingface_hub

    def refuse(*args, **kwargs):
        raise OSError("offline\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError, match=r"^nobody/nothing: .*Hub \(offline\)$"):
        Tokenizer.load("nobody/nothing")


def test_a_hub_id(monkeypatch, llama_folder):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(llama_folder))
    assert Tokenizer.load("somebody/something").encode("Yes")


def test_loading_a_folder_imports_neither_transformers_nor_the_hub(llama_folder):
    code = (
        "import sys; from thinkprm_jax.tokenizer.tokenizer import Tokenizer; "
        f"Tokenizer.load({str(llama_folder)!r}).encode_plain('a'); "
        "assert not {'transformers', 'torch', 'jax', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
