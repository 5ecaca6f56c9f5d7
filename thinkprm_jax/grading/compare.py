"""Whether two final answers are equal, and under which key an answer votes. Both ask the same keys.

An answer becomes a key (`thinkprm_jax.grading.meaning`) and keys are compared (`thinkprm_jax.grading.keys.same`):
nothing else decides. Formulas that our own grammar has no place for (sums, integrals, limits) are read by
math-verify, in worker processes within a time limit that holds even inside sympy; what it does not read to the
last token either is compared as text. No answer raises.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, get_args

from thinkprm_jax.grading.extract import Found, Kind, extract_answer, find_answer, read_letter
from thinkprm_jax.grading.keys import PRECISION, Key, same
from thinkprm_jax.grading.meaning import key_of_spelling, key_of_values, spelling_of
from thinkprm_jax.grading.normalise import LONGEST, normalise
from thinkprm_jax.grading.pool import shared_pool
from thinkprm_jax.grading.tokens import is_symbolic

__all__ = [
    "Form",
    "Found",
    "Kind",
    "answers_equal",
    "cut_comparisons",
    "equal_many",
    "extract_answer",
    "find_answer",
    "normalise",
    "vote_keys",
]

Form = Literal["bare", "text"]
TIMEOUT = 5.0  # seconds an answer
_REMEMBERED = 100_000  # keys


class _Memory:
    """The keys of the last answers by their spelling, since answers repeat themselves. In order of insertion."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}
        self._lock = threading.Lock()

    def known(self, spellings: Iterable[str]) -> dict[str, Key | None]:
        """The key of each spelling, once, in order; None where it is to be computed."""
        with self._lock:
            return {spelling: self._keys.get(spelling) for spelling in spellings}

    def add(self, computed: Mapping[str, Key]) -> None:
        with self._lock:
            self._keys.update(computed)
            while len(self._keys) > _REMEMBERED:
                del self._keys[next(iter(self._keys))]


_memory = _Memory()


def answers_equal(
    gold: str | None,
    prediction: str | None,
    kind: Kind = "math",
    timeout: float = TIMEOUT,
    precision: int = PRECISION,
    form: Form = "bare",
) -> bool:
    """Whether `prediction` is the answer `gold`. None and "" equal nothing. The order of the two does not matter.

    Example:

        answers_equal("1/2", "\\\\frac{1}{2}")  # True

    kind: math; choice (both name the same letter); exact (the same characters but for white space around them).
    timeout: seconds, for what only math-verify can read; what is not read then is compared as text. precision:
    decimals, see `thinkprm_jax.grading.keys.same`. form: bare, answers as `extract_answer` gives them or a data
    set holds them; text, in which the answers must first be found. Raises UserError only where math-verify is
    needed and missing. Any thread may call this.
    """
    return equal_many([(gold, prediction)], kind, timeout, precision, form)[0]


def equal_many(
    pairs: Iterable[tuple[str | None, str | None]],
    kind: Kind = "math",
    timeout: float = TIMEOUT,
    precision: int = PRECISION,
    form: Form = "bare",
) -> list[bool]:
    """`answers_equal` of each (gold, prediction); every answer is read once."""
    _check(kind, timeout, form)
    pairs = [(_found(gold, kind, form), _found(prediction, kind, form)) for gold, prediction in pairs]
    if kind != "math":
        return [gold is not None and gold == prediction for gold, prediction in pairs]
    spelled = [(_spelling(gold), _spelling(prediction)) for gold, prediction in pairs]
    # One spelling has one key, which need not be made to say that it is the same.
    keys = _keys_of([one for first, second in spelled if first != second for one in (first, second)], timeout)
    return [
        bool(first) and (first == second or (bool(second) and same(keys[first], keys[second], precision)))
        for first, second in spelled
    ]


def vote_keys(answers: Sequence[str | None], kind: Kind = "math", timeout: float = TIMEOUT) -> list[str | None]:
    """One spelling for the answers that are equal among `answers`, under which they vote together; None where
    there is no answer.

    Two answers get the same spelling where `answers_equal` says that they are equal. Only where one equals two
    that differ from each other (`12\\%` is `12` and `0.12`, `0.333333` is two fractions) it votes with one of
    them, the first that needs no second reading. Numbers are reduced fractions; otherwise the first spelling
    counts.
    """
    _check(kind, timeout)
    if kind != "math":
        return [_found(answer, kind, "bare") for answer in answers]
    spellings = [_spelling(answer) for answer in answers]
    keys = _keys_of(spellings, timeout)
    found = [keys.get(spelling) for spelling in spellings]
    distinct = {key.text: key for key in found if key is not None}
    # Keys that can be the same as others come last: they join what is there.
    voted: dict[str, Key] = {}
    for key in sorted(distinct.values(), key=lambda key: key.is_soft):
        joined = (
            key.text if not key.is_soft else next((n for n, other in voted.items() if same(key, other)), key.text)
        )
        voted.setdefault(joined, key)
        distinct[key.text] = voted[joined]
    spelled: dict[str, str] = {}
    for answer, one in zip(answers, found, strict=True):
        if one is not None and answer is not None and distinct[one.text].text == one.text:
            spelled.setdefault(one.text, one.written or normalise(answer))
    return [None if key is None else spelled[distinct[key.text].text] for key in found]


def cut_comparisons() -> int:
    """How many answers of this process were not read because of the limit (or died with their worker)."""
    return shared_pool().cut


def _spelling(answer: str | None) -> str:
    return spelling_of(answer) if answer else ""


def _keys_of(spellings: Iterable[str], timeout: float) -> dict[str, Key]:
    """The key of each spelling; "" has none."""
    keys = _memory.known(filter(None, spellings))
    missing = [spelling for spelling, key in keys.items() if key is None]
    symbolic = [spelling for spelling in missing if is_symbolic(spelling)]  # which our grammar does not read
    if symbolic:
        # Other processes read these while this one reads the rest.
        with ThreadPoolExecutor(1, thread_name_prefix="answers") as executor:
            read = executor.submit(_read_by_math_verify, symbolic, timeout)
            computed = {spelling: key_of_spelling(spelling) for spelling in missing}
            computed.update(read.result())
    else:
        computed = {spelling: key_of_spelling(spelling) for spelling in missing}
    _memory.add({spelling: key for spelling, key in computed.items() if len(spelling) <= LONGEST})
    return {spelling: key or computed[spelling] for spelling, key in keys.items()}


def _read_by_math_verify(spellings: Sequence[str], timeout: float) -> dict[str, Key]:
    """The keys of those that it understands."""
    replies = shared_pool().run_many("read", [{"answer": spelling} for spelling in spellings], timeout)
    found = {
        spelling: key_of_values(values)
        for spelling, values in zip(spellings, replies, strict=True)
        if values is not None
    }
    return {spelling: key for spelling, key in found.items() if key is not None}


def _found(answer: str | None, kind: Kind, form: Form) -> str | None:
    """The answer to compare; None where there is none."""
    if answer is not None and form == "text":
        found = find_answer(answer, kind)
        answer = None if found is None else found.answer
    if answer is None or not answer.strip():
        return None
    if kind == "math":
        return answer
    return (read_letter(answer) if kind == "choice" else answer.strip()) or None


def _check(kind: str, timeout: float, form: str = "bare") -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, not {kind!r}")
    if form not in get_args(Form):
        raise ValueError(f"form must be one of {', '.join(get_args(Form))}, not {form!r}")
    if not timeout > 0:
        raise ValueError(f"timeout must be greater than 0, not {timeout!r}")
