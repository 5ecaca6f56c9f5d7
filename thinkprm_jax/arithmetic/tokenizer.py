"""The tokenizer of the bundled models, built from the synthetic task.

    python -m thinkprm_jax.arithmetic.tokenizer FOLDER             of the verifier
    python -m thinkprm_jax.arithmetic.tokenizer FOLDER --solver    of the solver: its own template and phrase

Byte-level BPE as in Qwen2, so that any text has ids, with the control tokens and chat template of R1-Distill, so
that the whole protocol runs unchanged. Digits are single tokens (with or without the space before). The strings
that every prompt and chain repeat are cut out whole before BPE and become one token each: a third fewer tokens.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from thinkprm_jax.arithmetic.chains import SAYS
from thinkprm_jax.arithmetic.solutions import ANSWER_OPENING
from thinkprm_jax.arithmetic.task import example, make_solution
from thinkprm_jax.protocol.prompts import (
    DECISION,
    LEAD_IN,
    NO,
    QUESTION,
    TRIGGERS,
    VERIFICATION_PROMPT,
    YES,
    verification_message,
)

BOS, EOS, USER, ASSISTANT = (
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
)
# In the order, and with the `special` flags, of R1-Distill.
CONTROLS = (
    (EOS, True),
    (USER, False),
    (ASSISTANT, False),
    (BOS, True),
    ("<think>", False),
    ("</think>", False),
)
CHAT_TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(system_prompt='') %}"
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{% set ns.system_prompt = message['content'] %}{% endif %}{% endfor %}{{ bos_token }}{{ ns.system_prompt }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' and message['content'] is not none %}"
    "{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)
# Strings that become one token each.
PHRASES = (
    *re.split(r"\{(?:problem|solution)\}", VERIFICATION_PROMPT),
    LEAD_IN,
    QUESTION,
    *TRIGGERS,
    " The step is \\boxed{",
    f". {SAYS}",
    ", same.",
    ", different.",
    ", so",
    " It is one of",
    ". It needs",
)
SOLVER_CHAT_TEMPLATE = CHAT_TEMPLATE.replace("<｜Assistant｜><think>\\n", "<｜Assistant｜>")
SOLVER_PHRASES = (ANSWER_OPENING,)
_TEXTS = 5_000  # training examples whose words make the vocabulary


def _pattern(phrases: Sequence[str]) -> str:
    wholes = "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))
    return "|".join(
        (
            wholes.replace("\\\n", "\\n").replace("\\ ", " ").replace("\\-", "-"),
            r"Step [1-9]:",
            # Newlines never join other characters, and a third one comes first: the same ids whether a blank
            # line follows a newline in one text or in two runs.
            r"\n(?=\n\n)|\n\n|\n",
            r" ?\p{L}+",
            r" ?\p{N}",
            r" ?[^\s\p{L}\p{N}]",
            r"\s",
        )
    )


def _pre_tokenizer(phrases: Sequence[str]) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_pattern(phrases)), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _texts() -> Iterable[str]:
    """All text that the words are taken from; control tokens stand outside of it."""
    for index in range(_TEXTS):
        chain = example(0, index)
        yield verification_message(chain.problem, chain.steps)
        yield f"\n{chain.chain}\n"
    # What every place needs, however rare.
    yield from (f"{DECISION}{answer}" for answer in (YES, NO))
    yield " ".join(f"{digit} Step {digit}:\n" for digit in range(10))
    yield from (f"\\boxed{{{verdict}}}" for verdict in ("correct", "incorrect"))
    yield from TRIGGERS


def _solver_texts() -> Iterable[str]:
    """The same for the solver."""
    for index in range(_TEXTS):
        solved = make_solution(0, index)
        yield solved.problem
        yield solved.solution
    yield " ".join(f"{digit} {digit}\n" for digit in range(10))


def _learn_merges(words: Counter[str]) -> list[tuple[str, str]]:
    """Merges until each word is one token: the most frequent pair first, ties in alphabetical order.

    Our own few lines, because the trainer of `tokenizers` may change and the ids must not.
    """
    pieces = {word: list(word) for word in words}
    merges: list[tuple[str, str]] = []
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in pieces.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for parts in pieces.values():
            place = 0
            while place < len(parts) - 1:
                if (parts[place], parts[place + 1]) == best:
                    parts[place : place + 2] = ["".join(best)]
                place += 1


def build(solver: bool = False) -> tokenizers.Tokenizer:
    """The tokenizer of the verifier or of the solver; the same every time."""
    splitter = _pre_tokenizer(SOLVER_PHRASES if solver else PHRASES)
    texts = Counter(_solver_texts() if solver else _texts())
    words: Counter[str] = Counter()
    for text, count in texts.items():
        for word, _ in splitter.pre_tokenize_str(text):
            words[word] += count
    merges = _learn_merges(words)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: id for id, piece in enumerate(alphabet)}
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, special=special, normalized=False) for text, special in CONTROLS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def write(folder: str | Path, solver: bool = False) -> None:
    """tokenizer.json and tokenizer_config.json into `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    build(solver).save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": EOS,
        "unk_token": None,
        "add_bos_token": True,
        "add_eos_token": False,
        "model_max_length": 2048,
        "clean_up_tokenization_spaces": False,
        "chat_template": SOLVER_CHAT_TEMPLATE if solver else CHAT_TEMPLATE,
    }
    text = json.dumps(config, ensure_ascii=False, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    folders = [argument for argument in sys.argv[1:] if argument != "--solver"]
    if len(folders) != 1:
        sys.exit("usage: python -m thinkprm_jax.arithmetic.tokenizer FOLDER [--solver]")
    write(folders[0], "--solver" in sys.argv)
