"""Every string of the ThinkPRM protocol, and the token ids of prompts and training texts.

The released checkpoints were trained on exactly these characters: a changed space or newline
changes the verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from thinkprm_jax.errors import UserError
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

VERIFICATION_INSTRUCTION = """\
Review and critique each step in the proposed solution to determine whether each step is correct. \
If the solution is incomplete, only verify the provided steps."""
VERIFICATION_PROMPT = f"""\
You are given a math problem and a proposed step-by-step solution:

[Math Problem]

{{problem}}

[Solution]

{{solution}}

{VERIFICATION_INSTRUCTION}"""

# What a teacher is asked when chains are collected: the paper's figure "Prompt used to generate synthetic
# verification chains". Its words are the figure's; where the figure's blank lines are lost they are those of
# VERIFICATION_PROMPT.
COLLECTION_PROMPT = """\
You are given a math problem and a proposed multiple-step solution (with a step on each line):

[Math Problem]

{problem}

[Solution]

{solution}

Review and critique the proposed solution steps and determine whether each step is correct. \
If the solution is incomplete, only critique the steps that are provided. \
Your output must be in the following format:

Let's verify step by step:
Step 1: <critique>...The step is \\boxed{correct/incorrect}
Step 2: <critique>...The step is \\boxed{correct/incorrect}
...
Step n: <critique>...The step is \\boxed{correct/incorrect}

Once you find an incorrect step, you should stop since you don't need to analyze the remaining steps."""

# The prompt of published runs of the same collection, byte for byte; their steps stand on lines without labels.
STRICT_COLLECTION_PROMPT = """\
You are given a math problem and a proposed step-by-step solution:

[Math Problem]

{problem}

[Solution]

{solution}

Review and critique each step in the proposed solution.

**CRITICAL FORMAT REQUIREMENT:**
For EVERY step, you MUST conclude your analysis with EXACTLY ONE of these:
- \\boxed{correct} if the step is correct
- \\boxed{incorrect} if the step is wrong

**Example Format:**
Step 1: [Your analysis of step 1]
\\boxed{correct}

Step 2: [Your analysis of step 2]
\\boxed{incorrect}

If the solution is incomplete, only verify the provided steps.

IMPORTANT: Do NOT provide a summary conclusion. Judge EACH step individually."""

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

_LABEL = re.compile(r"\s*Step\s+\d+\s*:\s*")
_FIELD = re.compile(r"\{(problem|solution)\}")
_CHAIN_START = re.compile(r"\A\s*(?:<think>\s*)?")
_ANSWER_LINE = r"Is the solution correct\?\s*(?:Yes|No)?"
_CHAIN_END = re.compile(rf"(?:</think>\s*(?:{_ANSWER_LINE})?|{_ANSWER_LINE})\s*(?:<｜end▁of▁sentence｜>)?\s*\Z")


@dataclass(frozen=True)
class TrainingText:
    """ids [T] of prompt and target; the loss counts ids[prompt_length:], from `<think>` through
    end-of-sentence."""

    ids: list[int]
    prompt_length: int


def strip_step_label(step: str) -> str:
    """The step without the `Step k:` it may begin with."""
    match = _LABEL.match(step)
    return step[match.end() :] if match else step


def format_steps(steps: Sequence[str]) -> str:
    """`Step 1: ...` lines; a step that already begins with `Step k:` loses that label first."""
    return "\n".join(f"Step {i}: {strip_step_label(step)}" for i, step in enumerate(steps, start=1))


def verification_message(
    problem: str, steps: Sequence[str], prompt: str = VERIFICATION_PROMPT, labelled: bool = True
) -> str:
    """The user turn. Only the fields {problem} and {solution} of `prompt` are filled: other braces
    stay (LaTeX). labelled: whether the steps' lines begin with `Step i:`."""
    solution = format_steps(steps) if labelled else "\n".join(strip_step_label(step) for step in steps)
    values = {"problem": problem, "solution": solution}
    check_prompt(prompt)
    return _FIELD.sub(lambda match: values[match[1]], prompt)


def check_prompt(prompt: str) -> None:
    """UserError that names the field which `prompt`, the format of a user turn, lacks."""
    missing = sorted({"problem", "solution"} - set(_FIELD.findall(prompt)))
    if missing:
        raise UserError(f"the prompt lacks the field {{{missing[0]}}}")


def verification_prompt(instruction: str) -> str:
    """VERIFICATION_PROMPT with another last paragraph, `prm_verifier_instruction` of the original's recipes."""
    return VERIFICATION_PROMPT.removesuffix(VERIFICATION_INSTRUCTION) + instruction


def encode_prompt(
    tokenizer: Tokenizer,
    problem: str,
    steps: Sequence[str],
    prompt: str = VERIFICATION_PROMPT,
    labelled: bool = True,
    opening: str = "",
) -> list[int]:
    """ids [T] of the prompt, through the `<think>` and newline that open the chain.

    Args:
      labelled: whether the steps' lines begin with `Step i:`.
      opening: text that stands behind the newline, as the beginning of a chain.
    """
    ids = _encode_question(tokenizer, verification_message(problem, steps, prompt, labelled))
    if not opening:
        return ids
    # A token may reach over the seam, as it would if the text had been written as one.
    controls = set(tokenizer.control_ids.values())
    last = max((place for place, id in enumerate(ids) if id in controls), default=-1) + 1
    return ids[:last] + tokenizer.encode_plain(tokenizer.decode(ids[last:]) + opening, inner=True)


def _encode_question(tokenizer: Tokenizer, message: str) -> list[int]:
    messages = [{"role": "user", "content": message}]
    ids = tokenizer.encode_chat(messages)
    opening = THINK_OPEN + "\n"
    # Some revisions of the R1-Distill template stop at the assistant mark; the protocol's prompt
    # never does.
    if not tokenizer.render_chat([{"role": "user", "content": "x"}]).endswith(opening):
        ids = ids + _encode_pieces(tokenizer, [THINK_OPEN, "\n"])
    return ids


def encode_collection_prompt(
    tokenizer: Tokenizer,
    problem: str,
    steps: Sequence[str],
    prompt: str = COLLECTION_PROMPT,
    system: str | None = None,
) -> list[int]:
    """ids [T] of what a teacher is asked, in its own chat template, up to where its answer begins.

    system: the system turn; None leaves it to the template (QwQ's has one of its own).
    """
    message = verification_message(problem, steps, prompt, labelled=prompt != STRICT_COLLECTION_PROMPT)
    turns = [] if system is None else [{"role": "system", "content": system}]
    return tokenizer.encode_chat([*turns, {"role": "user", "content": message}])


def encode_training_text(
    tokenizer: Tokenizer, problem: str, steps: Sequence[str], chain: str, correct: bool
) -> TrainingText:
    """Prompt, chain and decision as ids. The chain is plain text: no control string in it becomes a
    control token."""
    prompt_ids = encode_prompt(tokenizer, problem, steps)
    opening = _encode_pieces(tokenizer, [THINK_OPEN, "\n"])
    if prompt_ids[-len(opening) :] != opening:
        raise tokenizer.fault(f"this tokenizer joins {THINK_OPEN} with the text before it: no place to cut")
    before = prompt_ids[: -len(opening)]
    answer = DECISION + (YES if correct else NO)
    target = _encode_pieces(tokenizer, [THINK_OPEN, "\n" + training_chain(chain) + "\n", THINK_CLOSE, answer])
    return TrainingText(ids=before + target + [tokenizer.eos_id], prompt_length=len(before))


def training_chain(chain: str) -> str:
    """The chain as it stands between `<think>` and `</think>`: no wrapper, no decision line, one
    lead-in."""
    body = _CHAIN_END.sub("", _CHAIN_START.sub("", chain, count=1)).strip()
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
