"""What an untuned model is asked when it judges a solution, and how its answer is read.

single   one yes or no for the whole solution: the judge of the paper's section 4.1
index    the index of the first wrong paragraph, or -1: ProcessBench's critique prompt
steps    a verdict for every step: the prompt with which the paper collected its chains
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from thinkprm_jax.protocol.prompts import COLLECTION_PROMPT, THINK_CLOSE, strip_step_label, verification_message
from thinkprm_jax.protocol.reading import read_chain

# The paper's figure "Prompt used for LLM-as-a-judge verification"; its blank lines, which the figure loses, are
# those of ProcessBench's prompt.
SINGLE_PROMPT = """\
The following is a math problem and a solution (split into steps, enclosed with tags and indexed from 0):

[Math Problem]

{problem}

[Solution]

{solution}

Your task is to review and critique the solution step by step. Your output must be in the following format:

Step 0: <critique>
Step 1: <critique>
...
Step n: <critique>

After your analysis, return **yes/no** depending on whether the solution is correct.

Please put your final answer (i.e., yes/no) in \\boxed{}"""

# code/templates/critique_template.txt of QwenLM/ProcessBench, byte for byte. The paper's own "bad step index"
# prompt, which asks for a yes or no behind the index, is described in its appendix and not printed.
INDEX_PROMPT = """\
The following is a math problem and a solution (split into paragraphs, enclosed with tags and indexed from 0):

[Math Problem]

{problem}

[Solution]

{solution}

Your task is to review and critique the solution paragraph by paragraph. \
Once you identify an error in a paragraph, return the index of the paragraph where the earliest error occurs. \
Otherwise, return the index of -1 (which typically denotes "not found").

Please put your final answer (i.e., the index) in \\boxed{}."""

JudgePrompt = Literal["single", "index", "steps"]
JUDGE_PROMPTS: tuple[JudgePrompt, ...] = get_args(JudgePrompt)
_FIELD = re.compile(r"\{(problem|solution)\}")
_BOX = re.compile(r"\\boxed\s{0,20}\{")
# What may stand around the answer in its box: blanks, dollar signs, bold marks, one command such as \text{.
_ANSWER = re.compile(
    r"[\s$*]{0,20}(?:\\(?:text|textbf|textit|texttt|textrm|mathrm|mathbf)\s{0,20}\{\s{0,20})?\*{0,2}"
    r"(yes|no|-?\d{1,9})\*{0,2}[.!]?[\s$*]{0,20}\}",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class JudgeAnswer:
    """What a judge's output says.

    label: 1 the solution is correct, 0 it is not, None unreadable: no final answer, or one of another form.
    first_error: index from 0 of the first incorrect step, -1 for none; None where unreadable, or where the answer
      does not say where.
    position: offset in the output of the word yes or no that decided.
    """

    label: int | None = None
    first_error: int | None = None
    position: int | None = None


def judge_message(kind: JudgePrompt, problem: str, steps: Sequence[str]) -> str:
    """The user turn; ``kind``: one of JUDGE_PROMPTS."""
    if kind == "steps":
        return verification_message(problem, steps, COLLECTION_PROMPT)
    if kind == "index":
        solution, prompt = _tagged("paragraph", steps), INDEX_PROMPT
    else:  # a label that counts from 1 would contradict the tag
        solution, prompt = _tagged("step", [strip_step_label(step) for step in steps]), SINGLE_PROMPT
    values = {"problem": problem, "solution": solution}
    return _FIELD.sub(lambda match: values[match[1]], prompt)


def read_judgement(kind: JudgePrompt, output: str, num_steps: int) -> JudgeAnswer:
    """The verdict of an output. The last box counts, as in ProcessBench's code; nothing is guessed from words
    outside of boxes."""
    if kind == "steps":
        return _read_steps(output, num_steps)
    boxes = list(_BOX.finditer(output))
    answer = _ANSWER.match(output, boxes[-1].end()) if boxes else None
    if answer is None:
        return JudgeAnswer()
    word = answer[1].lower()
    if kind == "single":
        if word not in ("yes", "no"):
            return JudgeAnswer()
        return JudgeAnswer(int(word == "yes"), -1 if word == "yes" else None, answer.start(1))
    if word in ("yes", "no") or not -1 <= int(word) < num_steps:
        return JudgeAnswer()
    return JudgeAnswer(int(int(word) == -1), int(word))


def _read_steps(output: str, num_steps: int) -> JudgeAnswer:
    # A thinking model repeats its verdicts behind its thoughts; where it does not, the thoughts count.
    for text in (output.rpartition(THINK_CLOSE)[2], output):
        found = read_chain(text, num_steps)
        if found.complete:
            first = -1 if found.first_error is None else found.first_error
            return JudgeAnswer(int(first == -1), first)
    return JudgeAnswer()


def _tagged(tag: str, steps: Sequence[str]) -> str:
    """ProcessBench's form: each step between tags with its index."""
    return "\n\n".join(f"<{tag}_{i}>\n{step}\n</{tag}_{i}>" for i, step in enumerate(steps))
