"""Splitting a written solution into steps."""

from __future__ import annotations

import re

# `Step 1:`, `## Step 1`, `**Step 1:** ...`, `**Step 1: a title**`, `Step 1 - ...`; group 1: bold.
_STEP_LINE = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]*)?(\*\*|__)?[ \t]*Step[ \t]+(\d{1,6})(?!\d)[ \t]*"
    r"(?:(?:\*\*|__)[ \t]*)?(?:[:.)](?!\d)|[-–—](?=[ \t])|(?=\n|\Z))(?:[ \t]*(?:\*\*|__)(?=\s|\Z))?",
    re.MULTILINE | re.IGNORECASE,
)
_NUMBERED_LINE = re.compile(r"^ {0,3}(\*\*)?(\d{1,6})[.)](?:\*\*)?(?=\s)", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")


def split_solution(text: str) -> list[str]:
    """The steps of a solution, without their labels; blank text has none.

    In this order: lines that begin with `Step 1`, `Step 2`, ...; a list numbered 1, 2, ...;
    paragraphs; else the whole text is one step. Text before the first label belongs to step 1.

    Example:

        split_solution("## Step 1: half of 8 is 4.\\n\\n## Step 2: so 4.")  # ["half of 8 is 4.", "so 4."]

    Args:
      text: a whole solution.
    """
    text = text.replace("\r\n", "\n").strip()
    labels = _in_order(_STEP_LINE, text, gaps=True)
    if not labels:
        labels = _in_order(_NUMBERED_LINE, text, gaps=False)
        if not _is_outline(labels, text):
            return _paragraphs(text)
    steps = []
    ends = [label.start() for label in labels[1:]] + [len(text)]
    for label, end in zip(labels, ends, strict=True):
        body = text[label.end() : end]
        bold = label[1]
        if bold and bold not in label[0][label.end(1) - label.start() :]:
            body = body.replace(bold, "", 1)  # the bold mark closes after a title
        steps.append(body.strip())
    preamble = text[: labels[0].start()].strip()
    if preamble:
        steps[0] = f"{preamble}\n\n{steps[0]}".strip()
    return [step for step in steps if step]


def _in_order(pattern: re.Pattern[str], text: str, gaps: bool) -> list[re.Match[str]]:
    """Matches whose number (group 2) goes up from 1; a number out of order is part of the text."""
    labels: list[re.Match[str]] = []
    last = 0
    for match in pattern.finditer(text):
        number = int(match[2])
        if number == last + 1 or (gaps and last and number > last):
            labels.append(match)
            last = number
    return labels


def _is_outline(labels: list[re.Match[str]], text: str) -> bool:
    """Whether a numbered list is the solution itself and not a detail inside one paragraph of it."""
    if len(labels) < 2 or _BLANK_LINES.search(text[: labels[0].start()].strip()):
        return False
    is_one_block = not _BLANK_LINES.search(text[labels[0].start() : labels[-1].start()])
    paragraphs_after = len(_BLANK_LINES.findall(text[labels[-1].start() :]))
    return not (is_one_block and paragraphs_after > 1)


def _paragraphs(text: str) -> list[str]:
    """Paragraphs between blank lines; a drawing or a code block with blank lines stays whole."""
    blocks: list[list[str]] = []
    drawings = fences = 0
    for paragraph in _BLANK_LINES.split(text):
        if drawings > 0 or fences % 2 == 1:
            blocks[-1].append(paragraph)
        elif paragraph.strip():
            blocks.append([paragraph])
        drawings += paragraph.count("[asy]") - paragraph.count("[/asy]")
        fences += paragraph.count("```")
    return ["\n\n".join(block).strip() for block in blocks]
