"""Splitting a written solution into steps.

One grammar, whose rules are tried in this order:

1. labels: lines that begin with `Step 1`, `Step 2`, ... in any of the usual forms (:data:`_STEP_LINE`);
2. numbered headings: `### 1. Set up`;
3. a numbered list that is the solution (`1.`, `(1)`): its items, those of the outermost list alone;
4. paragraphs between blank lines;

and a text without any of these is one step. Paragraphs before the first label, heading or item are steps of their
own; so are those behind the last one, unless other steps have several paragraphs, too, or blank lines are not what
separates the labels. A display formula, an environment, a drawing and a block of code are whole: no label and no
blank line inside of one counts.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from thinkprm_jax.protocol.wording import NUMBER_WORDS

_NAMES = "b|strong|em|i|u|h[1-6]|p|li|div|span|font|mark|big|code|center"
_TAGS = rf"(?:<(?:{_NAMES})(?:[ \t][^<>\n]{{0,80}})?>[ \t]{{0,4}}){{1,4}}"
_END_TAG = r"</[a-z]{1,8}[1-6]?>"
_STRONG = r"\*{2,3}|_{2,3}|`|\\(?:textbf|underline|(?:sub){0,2}section\*?|paragraph)\{|\{\\bf(?:series)?(?![a-z])"
_BOLD = rf"{_STRONG}|\*(?=\w)|_(?=[A-Z步第])|\\textit\{{"
_CLOSED = rf"(?:\*{{1,3}}|_{{1,3}}|`|\}}|(?:{_END_TAG}[ \t]{{0,4}}){{1,4}})"
_PLAIN = (word for word in NUMBER_WORDS if word.isascii() and word.islower())
_FIGURES = r"\d{1,6}(?!\d)"
_NUMBER = rf"(?P<number>{_FIGURES}|{'|'.join(sorted(_PLAIN, key=len, reverse=True))})"
_ZH = r"[一二三四五六七八九十]{1,3}"
_B = r"[ \t\u00a0\u3000]{0,4}"  # blanks; a bound, so that no line takes more than linear time
# A line that begins with a label: `Step 1:`, `## Step 1`, `**Step 1: a title**`, `**Step 1** a`, `Step 1 - ...`,
# `- Step 1.`, `[Step 1]`, `Step #1`, `Step (1):`, `Step 1 of 3:`, `Step one:`, `Step 1 (a title):`,
# `\textbf{Step 1.}`, `<b>Step 1:</b>`, `Step 1\.`, `步骤1：`, `第一步，`
_STEP_LINE = re.compile(
    # the marks of a quotation or a heading, a bullet or a number
    rf"^[ \t]{{0,40}}(?:>{_B})?(?:\#{{1,6}}{_B})?(?:[-*+•][ \t]{{1,4}}|\d{{1,4}}[.)][ \t]{{1,4}})?"
    rf"(?:\\(?:item|noindent)\b{_B})?(?P<tags>{_TAGS})?(?P<bold>{_BOLD})?{_B}[\[(【]?{_B}"
    rf"(?:Step(?:[ \t\u00a0\u3000]{{1,4}}|-(?=\d)|(?=\\?[\#\d]))"
    rf"(?:(?P<hash>\\?\#)|No\.?|\((?=\d{{1,6}}\)[ \t]*(?:[:：.]|$)))?{_B}{_NUMBER}"
    rf"(?:{_B}/{_B}\d{{1,6}}|{_B}\bof[ \t]{{1,4}}\d{{1,6}})?"
    rf"|步[骤驟]{_B}(?P<zh>{_FIGURES}|{_ZH})|第{_B}(?P<zh_step>{_FIGURES}|{_ZH}){_B}步)"
    rf"{_B}[\])】]?{_B}(?P<closed>{_CLOSED}{_B})?"
    r"(?:\\?[:.)](?!\d)|[：、．]|(?<=步)[，,]|[-–—](?=[ \t])|[-=]>|→|\||(?=[ \t]*(?:\n|\Z))|(?<=[\])】])"
    r"|(?(hash)(?=[ \t])|(?!))"
    r"|(?(closed)(?<=\*\*|__|.[}>])(?=[ \t]|<br)|(?!))"  # what is set off is no part of a sentence
    rf"|(?=\([^()\n]{{1,60}}\){_B}[:：]))(?:{_B}{_CLOSED}(?=\s|\Z|<br))?(?:{_B}<br[ \t]{{0,3}}/?>)?",
    re.MULTILINE | re.IGNORECASE,
)
_HEADING_LINE = re.compile(
    rf"^[ \t]{{0,3}}(?:\#{{1,6}}{_B}(?P<bold>{_BOLD})?|(?P<tags><h[1-6](?:[ \t][^<>\n]{{0,80}})?>){_B})"
    rf"(?:(?P<number>{_FIGURES})(?:\\?[.):：、])?|[(（](?P<bracketed>{_FIGURES}|{_ZH})[)）]|(?P<zh>{_ZH})、)(?=\s)",
    re.MULTILINE | re.IGNORECASE,
)
_LIST_LINE = re.compile(
    rf"^(?P<indent>[ \t]{{0,3}})(?P<tags>{_TAGS})?(?P<bold>{_BOLD})?"
    rf"(?:(?P<number>{_FIGURES})\\?(?P<point>[.)．、])|(?P<zh>{_ZH})(?P<zh_point>、)"
    rf"|[(（](?P<bracketed>{_FIGURES}|{_ZH})(?P<bracket>[)）]))"
    rf"{_CLOSED}?(?:(?<=[．、])|(?<=）)|(?=\s))",
    re.MULTILINE | re.IGNORECASE,
)
_TAG_NAME = re.compile(r"<([a-zA-Z]{1,8}[1-6]?)")
# `by (1)`; not `f(1)`, not `\\frac{1}{2}(3)`.
_REFERENCE = re.compile(r"(?<![A-Za-z0-9_)\\}\]])[(（](\d{1,6})[)）]")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}|[\u4e00-\u9fff]")  # and no name of a LaTeX command
# A line that is the title of the answer, as PRM800K has it: no step begins with it.
_ANSWER_TITLE = re.compile(
    r"[#*_ \t]{1,10}(?:the )?(?:final )?answer[*_: \t]{0,6}(?:\n[ \t]*\n|\Z)", re.IGNORECASE
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


class LocatedStep(NamedTuple):
    """A step, and where it stands in the text of its solution: ``text[start:end]``, without the label and as it
    was written (marks of bold type that close behind a title, and line ends, may be others there)."""

    text: str
    start: int
    end: int


def split_solution(text: str) -> list[str]:
    """The steps of a solution, without their labels; blank text has none. Text before the first label belongs to
    step 1 where no blank line stands between them, and is a step of its own where one does.

    Example:

        split_solution("## Step 1: half of 8 is 4.\\n\\n## Step 2: so 4.")  # ["half of 8 is 4.", "so 4."]

    Args:
      text: a whole solution.
    """
    return [step.text for step in locate_steps(text)]


def locate_steps(text: str) -> list[LocatedStep]:
    """The steps of :func:`split_solution` with their places, one behind the other."""
    plain = text.removeprefix("\ufeff").replace("\r\n", "\n")
    stripped = plain.strip()
    before = len(text) - len(text.removeprefix("\ufeff"))
    blanks = len(plain) - len(plain.lstrip())
    steps = [(step, start + blanks, end + blanks) for step, start, end in _located(stripped)]
    if "\r\n" in text:  # each is one sign longer than its newline
        ends = [place.start() - number - before for number, place in enumerate(re.finditer("\r\n", text))]
        steps = [
            (step, start + bisect.bisect_left(ends, start), end + bisect.bisect_left(ends, end))
            for step, start, end in steps
        ]
    return [LocatedStep(step, start + before, end + before) for step, start, end in steps]


def _located(text: str) -> list[LocatedStep]:
    whole = _Whole(text)
    blanks = whole.outside(_BLANK_LINES.finditer(text))
    labels = _runs(whole.outside(_STEP_LINE.finditer(text)))
    if labels and not _are_details(labels, blanks):
        return _labelled(text, labels, blanks)
    headings = _one_list(whole.outside(_HEADING_LINE.finditer(text)))
    if len(headings) > 1:
        return _labelled(text, headings, blanks)
    items = _one_list(_outermost(whole.outside(_LIST_LINE.finditer(text))))
    if _is_the_solution(text, items, blanks):
        return _labelled(text, items, blanks, is_list=True)
    return _paragraphs(text, blanks, 0, len(text))


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
    text = next(text for name in ("number", "zh", "zh_step", "bracketed") if (text := found.get(name)))
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
    marks = ("bold", "tags", "point", "zh_point", "bracket")
    if any(one[mark] != other[mark] for mark in marks):
        return False
    flush_right = one.end("number") - one.start() == other.end("number") - other.start()
    return one["indent"] == other["indent"] or flush_right


def _are_details(labels: Sequence[re.Match[str]], blanks: Sequence[re.Match[str]]) -> bool:
    """They are bullets of paragraphs: they begin again in each, below its first line."""
    bullets = all(label[0].lstrip()[:1] in "-*+•" for label in labels)
    again = any(_begins_again(labels, index) for index in range(len(labels)))
    opening = {blank.end() for blank in blanks}
    return bullets and again and bool(blanks) and not any(label.start() in opening for label in labels)


def _is_the_solution(text: str, items: Sequence[re.Match[str]], blanks: Sequence[re.Match[str]]) -> bool:
    """A numbered list is, unless it is a detail in a text of paragraphs, or its numbers name equations."""
    if len(items) < 2 or any(blank.end() < items[0].start() for blank in blanks):
        return False
    if items[0]["bracketed"] and _are_equations(text, items):
        return False
    between = any(items[0].start() < blank.start() < items[-1].start() for blank in blanks)
    return between or sum(blank.start() > items[-1].start() for blank in blanks) < 2


def _are_equations(text: str, items: Sequence[re.Match[str]]) -> bool:
    """One of them is no more than a formula that the text names by its number: `(1) x + y = 3`, `by (1)`."""
    ends = [(item, text.find("\n", item.end())) for item in items]
    formulas = {
        str(_number(item))
        for item, end in ends
        if not _WORD.search(text, item.end(), end if end >= 0 else len(text))
    }
    starts = {item.start("bracketed") - 1 for item in items}
    return any(found[1] in formulas and found.start() not in starts for found in _REFERENCE.finditer(text))


def _labelled(
    text: str, labels: Sequence[re.Match[str]], blanks: Sequence[re.Match[str]], is_list: bool = False
) -> list[LocatedStep]:
    """The parts from one label to the next, without the labels; and the paragraphs around them. Paragraphs behind
    a list are no part of its last item, even where its items are lines: a plan does not hold the work."""
    starts, opening = [label.start() for label in labels], {blank.end() for blank in blanks}
    before = _paragraphs(text, blanks, 0, starts[0])
    # What stands right above the first label belongs to its step.
    lead = before.pop() if before and starts[0] not in opening else None
    steps, several = before, False  # several: paragraphs belong to the steps of this run
    for index, (label, end) in enumerate(zip(labels, [*starts[1:], len(text)], strict=True)):
        inside = _breaks(text, _within(blanks, label.end(), end))
        if inside and not text[label.end() : inside[0].start()].strip():  # the label has a line of its own
            inside = inside[1:]
        last = index + 1 == len(labels) or _begins_again(labels, index + 1)
        if not is_list and index > 0 and not _begins_again(labels, index):
            several = several or label.start() not in opening
        cut = inside[0].start() if inside and last and not several else end
        step = _without_closers(text[label.end() : cut], label)
        start, stop = _bare(text, label.end(), cut)
        if lead:
            step, start = f"{lead.text}\n\n{step}".strip(), lead.start
            stop = max(stop, lead.end)
        steps += [LocatedStep(step, start, stop), *_paragraphs(text, inside, cut, end)]
        several, lead = (several or bool(inside)) and not last, None
    return [step for step in steps if step.text]


def _bare(text: str, start: int, end: int) -> tuple[int, int]:
    """The part without blanks at its ends."""
    part = text[start:end]
    bare = part.strip()
    start += len(part) - len(part.lstrip()) if bare else 0
    return start, start + len(bare)


def _begins_again(labels: Sequence[re.Match[str]], index: int) -> bool:
    return index > 0 and _number(labels[index]) <= _number(labels[index - 1])


def _without_closers(body: str, label: re.Match[str]) -> str:
    """Bold marks and tags close behind a title, or at the end of the step."""
    bold, inside = label["bold"], label[0][label.end("bold") - label.start() :] if label["bold"] else ""
    closer = "}" if bold and bold.startswith(("\\", "{")) else bold
    if closer and closer not in inside:
        body = body.replace(closer, "", 1)
    for name in _TAG_NAME.findall(label["tags"] or ""):
        if f"</{name}>" not in label[0]:
            body = body.replace(f"</{name}>", "", 1)
    return body.strip()


def _breaks(text: str, blanks: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """Those behind which something new begins: an indented paragraph is part of what is above it, and the answer
    under its title is part of the last step."""
    breaks = [blank for blank in blanks if text.rfind("\n", 0, blank.end()) + 1 == blank.end()]
    return list(itertools.takewhile(lambda blank: not _ANSWER_TITLE.match(text, blank.end()), breaks))


def _within(blanks: Sequence[re.Match[str]], start: int, end: int) -> list[re.Match[str]]:
    """Those with something on both sides, between two places."""
    first = bisect.bisect_right(blanks, start, key=re.Match.start)
    return list(blanks[first : bisect.bisect_left(blanks, end, first, key=re.Match.end)])


def _paragraphs(text: str, blanks: Sequence[re.Match[str]], start: int, end: int) -> list[LocatedStep]:
    """The parts between the blank lines, from one place to another."""
    first = bisect.bisect_left(blanks, start, key=re.Match.start)
    inside = blanks[first : bisect.bisect_right(blanks, end, first, key=re.Match.end)]
    cuts = [start, *(place for blank in inside for place in blank.span()), end]
    places = (_bare(text, a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=True))
    return [LocatedStep(text[a:b], a, b) for a, b in places if a < b]
