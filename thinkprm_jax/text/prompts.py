"""Every string of the ThinkPRM protocol, and the token ids of prompts and training texts.

The released checkpoints were trained on exactly these characters: a changed space or newline
changes the verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from thinkprm_jax.errors import UserError
from thinkprm_jax.text.steps import strip_step_label
from thinkprm_jax.text.tokenizer import Tokenizer

VERIFICATION_PROMPT = """\
You are given a math problem and a proposed step-by-step solution:

[Math Problem]

{problem}

[Solution]

{solution}

Review and critique each step in the proposed solution to determine whether each step is correct. \
If the solution is incomplete, only verify the provided steps."""

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
LEAD_IN = "Let's verify step by step:"
QUESTION = "Is the solution correct?"
DECISION = "\n" + QUESTION  # stands right after THINK_CLOSE; the next token is YES or NO
YES = " Yes"
NO = " No"
BOX_OPEN = "\\boxed{"  # the next token is `correct` or `incorrect`
TRIGGERS = (
    "Let me double check",
    "Let's verify again",
    "Did I miss something?",
)  # one a thinking round, in this order

_FIELD = re.compile(r"\{(problem|solution)\}")
_CHAIN_START = re.compile(r"\s*(?:<think>\s*)?")
_ANSWER_LINE = r"Is the solution correct\?\s*(?:Yes|No)?"
_CHAIN_END = re.compile(rf"(?:</think>\s*(?:{_ANSWER_LINE})?|{_ANSWER_LINE})\s*(?:<｜end▁of▁sentence｜>)?\s*\Z")


@dataclass(frozen=True)
class TrainingText:
    """ids [T] of prompt and target; the loss counts ids[prompt_length:], from `<think>` through
    end-of-sentence."""

    ids: list[int]
    prompt_length: int


def format_steps(steps: Sequence[str]) -> str:
    """`Step 1: ...` lines; a step that already begins with `Step k:` loses that label first."""
    return "\n".join(f"Step {i}: {strip_step_label(step)}" for i, step in enumerate(steps, start=1))


def verification_message(problem: str, steps: Sequence[str], prompt: str = VERIFICATION_PROMPT) -> str:
    """The user turn. Only the fields {problem} and {solution} of `prompt` are filled: other braces
    stay (LaTeX)."""
    values = {"problem": problem, "solution": format_steps(steps)}
    missing = sorted(set(values) - set(_FIELD.findall(prompt)))
    if missing:
        raise UserError(f"the prompt lacks the field {{{missing[0]}}}")
    return _FIELD.sub(lambda match: values[match[1]], prompt)


def encode_prompt(
    tokenizer: Tokenizer, problem: str, steps: Sequence[str], prompt: str = VERIFICATION_PROMPT
) -> list[int]:
    """ids [T] of the prompt, through the `<think>` and newline that open the chain."""
    messages = [{"role": "user", "content": verification_message(problem, steps, prompt)}]
    ids = tokenizer.encode_chat(messages)
    opening = THINK_OPEN + "\n"
    # Some revisions of the R1-Distill template stop at the assistant mark; the protocol's prompt
    # never does.
    if not tokenizer.render_chat([{"role": "user", "content": "x"}]).endswith(opening):
        ids = ids + _encode_pieces(tokenizer, [THINK_OPEN, "\n"])
    return ids


def encode_training_text(
    tokenizer: Tokenizer, problem: str, steps: Sequence[str], chain: str, correct: bool
) -> TrainingText:
    """Prompt, chain and decision as ids. The chain is plain text: no control string in it becomes a
    control token."""
    prompt_ids = encode_prompt(tokenizer, problem, steps)
    opening = _encode_pieces(tokenizer, [THINK_OPEN, "\n"])
    if prompt_ids[-len(opening) :] != opening:
        raise UserError(f"this tokenizer joins {THINK_OPEN} with the text before it: no place to cut")
    before = prompt_ids[: -len(opening)]
    answer = DECISION + (YES if correct else NO)
    target = _encode_pieces(tokenizer, [THINK_OPEN, "\n" + training_chain(chain) + "\n", THINK_CLOSE, answer])
    return TrainingText(ids=before + target + [tokenizer.eos_id], prompt_length=len(before))


def training_chain(chain: str) -> str:
    """The chain as it stands between `<think>` and `</think>`: no wrapper, no decision line, one
    lead-in."""
    body = _CHAIN_END.sub("", chain[_CHAIN_START.match(chain).end() :]).strip()
    return body if body.startswith(LEAD_IN) else f"{LEAD_IN}\n\n{body}"


def _encode_pieces(tokenizer: Tokenizer, pieces: Sequence[str]) -> list[int]:
    """ids of the joined pieces: a piece that is a control string becomes its id, all other text
    stays plain.

    Where the tokenizer has no such control token (QwQ knows no `<think>`), the piece is ordinary
    text of its run.
    """
    ids: list[int] = []
    run = ""
    for piece in pieces:
        if piece in tokenizer.control_ids:
            ids += [*tokenizer.encode_plain(run, inner=True), tokenizer.control_ids[piece]]
            run = ""
        else:
            run += piece
    return ids + tokenizer.encode_plain(run, inner=True)
