"""Splitting a written solution into steps.

One grammar, whose rules are tried in this order:

1. labels: lines that begin with `Step 1`, `Step 2`, ... in any of the usual forms (:data:`_STEP_LINE`);
2. numbered headings: `### 1. Set up`;
3. a numbered list that is the solution: its items, those of the outermost list alone;
4. paragraphs between blank lines;

and a text without any of these is one step. A display formula, an environment, a drawing and a block of code are
whole: no label and no blank line inside of one counts.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence

from thinkprm_jax.protocol.wording import NUMBER_WORDS

_BOLD = r"\*\*|\*(?=\w)|__|\\(?:textbf|textit|underline|(?:sub){0,2}section\*?|paragraph)\{"
_CLOSED = r"(?:\*\*?|__|\})"
_PLAIN = (word for word in NUMBER_WORDS if word.isascii() and word.islower())
_FIGURES = r"\d{1,6}(?!\d)"
_NUMBER = rf"(?P<number>{_FIGURES}|{'|'.join(sorted(_PLAIN, key=len, reverse=True))})"
_ZH = r"[一二三四五六七八九十]{1,3}"
_B = r"[ \t\u00a0\u3000]{0,4}"  # blanks; a bound, so that no line takes more than linear time
# A line that begins with a label: `Step 1:`, `## Step 1`, `**Step 1: a title**`, `Step 1 - ...`, `- Step 1.`,
# `[Step 1]`, `Step #1`, `Step (1):`, `Step 1 of 3:`, `Step one:`, `Step 1 (a title):`, `\textbf{Step 1.}`,
# `步骤1：`, `第一步，`
_STEP_LINE = re.compile(
    # the marks of a quotation or a heading, a bullet or a number
    rf"^[ \t]{{0,40}}(?:>{_B})?(?:#{{1,6}}{_B})?(?:[-*+•][ \t]{{1,4}}|\d{{1,4}}[.)][ \t]{{1,4}})?"
    rf"(?P<bold>{_BOLD})?{_B}[\[(【]?{_B}"
    rf"(?:Step(?:[ \t\u00a0\u3000]{{1,4}}|-(?=\d)|(?=[\#\d]))"
    rf"(?:(?P<hash>\#)|No\.?|\((?=\d{{1,6}}\)[ \t]*(?:[:：.]|$)))?{_B}{_NUMBER}"
    rf"(?:{_B}/{_B}\d{{1,6}}|{_B}\bof[ \t]{{1,4}}\d{{1,6}})?"
    rf"|步[骤驟]{_B}(?P<zh>{_FIGURES}|{_ZH})|第{_B}(?P<zh_step>{_FIGURES}|{_ZH}){_B}步)"
    rf"{_B}[\])】]?{_B}(?:{_CLOSED}{_B})?"
    r"(?:[:.)](?!\d)|[：、．]|(?<=步)[，,]|[-–—](?=[ \t])|[-=]>|→|\||(?=[ \t]*(?:\n|\Z))|(?<=[\])】])"
    r"|(?(hash)(?=[ \t])|(?!))"
    rf"|(?=\([^()\n]{{1,60}}\){_B}[:：]))(?:{_B}{_CLOSED}(?=\s|\Z))?",
    re.MULTILINE | re.IGNORECASE,
)
_HEADING_LINE = re.compile(
    rf"^[ \t]{{0,3}}#{{1,6}}{_B}(?P<bold>{_BOLD})?(?:(?P<number>{_FIGURES})[.):：、]?|(?P<zh>{_ZH})、)(?=\s)",
    re.MULTILINE,
)
_LIST_LINE = re.compile(
    rf"^(?P<indent>[ \t]{{0,3}})(?P<bold>{_BOLD})?"
    rf"(?:(?P<number>{_FIGURES})(?P<point>[.)．、])|(?P<zh>{_ZH})(?P<zh_point>、)){_CLOSED}?(?:(?<=[．、])|(?=\s))",
    re.MULTILINE,
)
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
_ENVIRONMENTS = (
    "equation align aligned alignat gather gathered multline split cases array eqnarray displaymath math flalign "
    "matrix pmatrix bmatrix vmatrix Vmatrix tabular table figure tikzpicture asy verbatim lstlisting minted"
)
_OPENING = re.compile(
    r"(?P<fence>`{3,}|^~{3,})|(?P<drawing>\[asy\])|(?<!\\)(?P<formula>\\\[)"
    r"|(?<![\\$])(?P<dollars>\$\$)(?!\$)"
    rf"|\\begin\{{(?P<environment>(?:{'|'.join(_ENVIRONMENTS.split())})\*?)\}}",
    re.MULTILINE,
)


def split_solution(text: str) -> list[str]:
    """The steps of a solution, without their labels; blank text has none. Text before the first label belongs to
    step 1.

    Example:

        split_solution("## Step 1: half of 8 is 4.\\n\\n## Step 2: so 4.")  # ["half of 8 is 4.", "so 4."]

    Args:
      text: a whole solution.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").strip()
    whole = _Whole(text)
    labels = _runs(whole.outside(_STEP_LINE.finditer(text)))
    if labels:
        return _labelled(text, labels)
    headings = _one_list(whole.outside(_HEADING_LINE.finditer(text)))
    if len(headings) > 1:
        return _labelled(text, headings)
    items = _one_list(_outermost(whole.outside(_LIST_LINE.finditer(text))))
    blanks = whole.outside(_BLANK_LINES.finditer(text))
    if len(items) > 1 and not any(blank.end() < items[0].start() for blank in blanks):
        return _outline(text, items, blanks)
    return _paragraphs(text, blanks)


class _Whole:
    """The parts of a text that stay whole."""

    def __init__(self, text: str) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        missing = set() if text.count("$$") % 2 == 0 else {"$$"}  # what closes nothing any more
        place = 0
        while opening := _OPENING.search(text, place):
            place, closer = opening.end(), _closer(opening)
            end = -1 if closer in missing else text.find(closer, place)
            if end < 0 and opening["fence"]:  # a block of code that the end of the text cuts off
                end = len(text)
            if end < 0:
                missing.add(closer)
            elif closer != "\\]" or text.find("\\[", place, end) < 0:
                place = min(end + len(closer), len(text))
                self._starts.append(opening.start())
                self._ends.append(place)

    def outside(self, matches: Iterable[re.Match[str]]) -> list[re.Match[str]]:
        """Those that do not begin inside of such a part."""
        return [match for match in matches if not self._holds(match.start())]

    def _holds(self, place: int) -> bool:
        part = bisect.bisect_left(self._starts, place) - 1
        return part >= 0 and place < self._ends[part]


def _closer(opening: re.Match[str]) -> str:
    """What ends the part that was opened."""
    if opening["environment"]:
        return f"\\end{{{opening['environment']}}}"
    return opening["fence"] or {"[asy]": "[/asy]", "\\[": "\\]"}.get(opening[0], opening[0])


def _number(match: re.Match[str]) -> int:
    found = match.groupdict()
    text = found.get("number") or found.get("zh") or found.get("zh_step") or ""
    return int(text) if text.isdecimal() else NUMBER_WORDS.get(text.lower(), -1)


def _runs(labels: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """Labels whose numbers go up from 1 (or 0); those that begin again, with 1 and then 2, too. Another number out
    of order is part of the text."""
    found: list[re.Match[str]] = []
    numbers = [_number(label) for label in labels]
    last = -1
    for place, (label, number) in enumerate(zip(labels, numbers, strict=True)):
        begins = (
            number in (0, 1) if not found else number == 1 and last > 1 and numbers[place + 1 : place + 2] == [2]
        )
        if begins or (found and number > last):
            found.append(label)
            last = number
    return found


def _one_list(items: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """The items 1, 2, 3, ...; none where the numbers begin again: then they count parts of the solution."""
    found: list[re.Match[str]] = []
    for item in items:
        number = _number(item)
        if number == 1 and len(found) > 1:
            return []
        if number == len(found) + 1:
            found.append(item)
    return found


def _outermost(items: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """Those in the form of the first 1: its point, its bold marks, its indentation."""
    first = next((item for item in items if _number(item) == 1), None)
    return [] if first is None else [item for item in items if _alike(item, first)]


def _alike(one: re.Match[str], other: re.Match[str]) -> bool:
    if (one["bold"], one["point"], one["zh_point"]) != (other["bold"], other["point"], other["zh_point"]):
        return False
    flush_right = one.end("number") - one.start() == other.end("number") - other.start()
    return one["indent"] == other["indent"] or flush_right


def _outline(text: str, items: Sequence[re.Match[str]], blanks: Sequence[re.Match[str]]) -> list[str]:
    """A numbered list and what stands around it. Its items are the steps, unless it is a detail in a text of
    paragraphs. Paragraphs behind it belong to the last item where other items have several, too; else they are
    steps of their own, for a plan does not hold the work that follows it."""
    starts = [item.start() for item in items]
    between = [blank for blank in blanks if blank.start() < starts[-1]]
    behind = [blank for blank in blanks if blank.start() > starts[-1]]
    if not between and len(behind) > 1:
        return _paragraphs(text, blanks)
    if any(not _is_no_break(text, blank, starts) for blank in between):
        return _labelled(text, items)
    tail = next((blank for blank in behind if not _is_no_break(text, blank, ())), None)
    if tail is None:
        return _labelled(text, items)
    rest = [blank for blank in behind if blank.start() > tail.start()]
    return [*_labelled(text[: tail.start()], items), *_paragraphs(text, rest, tail.end())]


def _is_no_break(text: str, blank: re.Match[str], starts: Sequence[int]) -> bool:
    """The paragraph behind the blank lines is indented, so part of what is above it; or an item of the list."""
    start = text.rfind("\n", 0, blank.end()) + 1
    return start < blank.end() or start in starts


def _labelled(text: str, labels: Sequence[re.Match[str]]) -> list[str]:
    """The parts from one label to the next, without the labels."""
    steps = []
    for label, end in zip(labels, [*(label.start() for label in labels[1:]), len(text)], strict=True):
        body, bold = text[label.end() : end], label["bold"]
        closer = "}" if bold and bold.startswith("\\") else bold
        if closer and closer not in label[0][label.end("bold") - label.start() :]:
            body = body.replace(closer, "", 1)  # the bold mark closes after a title
        steps.append(body.strip())
    preamble = text[: labels[0].start()].strip()
    if preamble:
        steps[0] = f"{preamble}\n\n{steps[0]}".strip()
    return [step for step in steps if step]


def _paragraphs(text: str, blanks: Sequence[re.Match[str]], start: int = 0) -> list[str]:
    """The parts between the blank lines, from ``start`` on."""
    cuts = [start, *(place for blank in blanks for place in blank.span()), len(text)]
    parts = (text[a:b].strip() for a, b in zip(cuts[::2], cuts[1::2], strict=True))
    return [part for part in parts if part]
