"""Whether two final answers are equal, and the canonical form under which equal answers vote together.

Strings decide what they can (`thinkprm_jax.grading.normalise`): equal spelling, plain numbers, words. The rest
is algebra by math-verify, in worker processes, each comparison within a time limit that holds even inside sympy.
What cannot be parsed, or is not settled within the limit, is not equal: no answer raises.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from thinkprm_jax.errors import UserError
from thinkprm_jax.grading.extract import Found, Kind, extract_answer, find_answer, read_letter
from thinkprm_jax.grading.normalise import (
    drop_assignment,
    has_percent,
    is_words,
    normalise,
    read_number,
    same_text,
    write_number,
)
from thinkprm_jax.grading.pool import shared_pool

__all__ = [
    "Form",
    "Found",
    "Kind",
    "MathOptions",
    "answers_equal",
    "canonical_answer",
    "canonical_many",
    "cut_comparisons",
    "equal_many",
    "extract_answer",
    "find_answer",
    "normalise",
]

Form = Literal["bare", "text"]
TIMEOUT = 5.0  # seconds a comparison
_MATCH_TYPES = ("latex", "expr")
_WHOLE_ANSWER = 200  # characters: a longer text with no box and no `the answer is` is not taken for an answer
_REMEMBERED = 100_000  # results


@dataclass(frozen=True)
class MathOptions:
    """What math-verify is told.

    match_types: how it may read a text, of `latex` and `expr`. precision: decimals to which numbers are rounded
    where one was written with a decimal point. strict: whether names of variables matter, and sets differ from
    tuples. allow_set_relation_comp: whether `1 < x < 2` as the prediction may equal `(1, 2)` as the gold answer.
    """

    match_types: tuple[str, ...] = _MATCH_TYPES
    precision: int = 6
    strict: bool = True
    allow_set_relation_comp: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any] | None, where: str) -> MathOptions:
        """Checked options of a JSON object; `where` names it in errors (UserError)."""
        known = {field.name: field.default for field in fields(cls)}
        values = dict(options or {})
        for name, value in values.items():
            if name not in known:
                raise UserError(f"{where}: options: {name} is not one of {', '.join(known)}")
            if name == "match_types":
                if not isinstance(value, Sequence) or not value or not set(value) <= set(_MATCH_TYPES):
                    raise UserError(f"{where}: options: match_types must be a list of {', '.join(_MATCH_TYPES)}")
                values[name] = tuple(value)
            elif type(value) is not type(known[name]):
                raise UserError(f"{where}: options: {name} must be {type(known[name]).__name__}, not {value!r}")
        return cls(**values)


DEFAULT_OPTIONS = MathOptions()


class _Memory:
    """The last results by their arguments. A dict in order of insertion, since algebra repeats itself much."""

    def __init__(self) -> None:
        self._results: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def missing(self, keys: Iterable[Any]) -> list[Any]:
        """The keys without a result, once each, in order."""
        with self._lock:
            return [key for key in dict.fromkeys(keys) if key not in self._results]

    def get(self, keys: Sequence[Any], computed: Mapping[Any, Any]) -> list[Any]:
        """The results of keys, `computed` among them, which are remembered."""
        with self._lock:
            results = [computed[key] if key in computed else self._results.get(key) for key in keys]
            self._results.update(computed)
            while len(self._results) > _REMEMBERED:
                del self._results[next(iter(self._results))]
        return results


_equalities = _Memory()
_canonicals = _Memory()


def answers_equal(
    gold: str | None,
    prediction: str | None,
    kind: Kind = "math",
    timeout: float = TIMEOUT,
    options: MathOptions = DEFAULT_OPTIONS,
    form: Form = "bare",
) -> bool:
    """Whether `prediction` is the answer `gold`. None and "" equal nothing.

    Example:

        answers_equal("1/2", "\\\\frac{1}{2}")  # True

    kind: math; choice (both name the same letter); exact (the same characters but for white space around them).
    timeout: seconds, for the algebra of a comparison; what is not settled then is not equal.
    form: bare, answers as `extract_answer` gives them or a data set holds them; text, in which the answers must
    first be found. Raises UserError only where math-verify is needed and missing.

    For maths the order matters: a gold answer `x=5` accepts `5`, a gold answer `(1,2)` accepts `1<x<2` by option
    only. Any thread may call this; the first call that needs algebra waits some seconds for its worker.
    """
    return equal_many([(gold, prediction)], kind, timeout, options, form)[0]


def equal_many(
    pairs: Iterable[tuple[str | None, str | None]],
    kind: Kind = "math",
    timeout: float = TIMEOUT,
    options: MathOptions = DEFAULT_OPTIONS,
    form: Form = "bare",
) -> list[bool]:
    """`answers_equal` of each (gold, prediction), the algebra on several workers, equal pairs once."""
    _check(kind, timeout, form)
    pairs = list(pairs)
    results = [_without_algebra(gold, prediction, kind, options, form) for gold, prediction in pairs]
    open_keys = [(*pair, options, form) for pair, result in zip(pairs, results, strict=True) if result is None]
    todo = _equalities.missing(open_keys)
    arguments = [
        {"gold": gold, "prediction": prediction, "options": asdict(options), "form": form}
        for gold, prediction, options, form in todo
    ]
    replies = shared_pool().run_many("compare", arguments, timeout) if todo else []
    computed = {key: reply is True for key, reply in zip(todo, replies, strict=True)}
    algebra = iter(_equalities.get(open_keys, computed))
    return [bool(next(algebra)) if result is None else result for result in results]


def canonical_answer(answer: str | None, kind: Kind = "math", timeout: float = TIMEOUT) -> str | None:
    """The form that equal answers share, for counting votes: `\\frac{1}{2}` for `0.5`, `2/4` and `x = \\frac12`.

    answer: bare (what `extract_answer` returns); None or one without content gives None. Maths that cannot be
    parsed, or not within `timeout` seconds, keeps its normalised spelling. Results are remembered. Raises
    UserError only where math-verify is needed and missing.
    """
    return canonical_many([answer], kind, timeout)[0]


def canonical_many(
    answers: Iterable[str | None], kind: Kind = "math", timeout: float = TIMEOUT
) -> list[str | None]:
    """`canonical_answer` of each, the algebra on several workers, equal answers once."""
    _check(kind, timeout)
    if kind != "math":
        read = read_letter if kind == "choice" else str.strip
        return [(read(answer) or None) if answer else None for answer in answers]
    normals = [_normal_value(answer) for answer in answers]
    todo = [key for key in _canonicals.missing(normals) if key and _plain_form(key) is None]
    replies = shared_pool().run_many("canonical", [{"answer": key} for key in todo], timeout) if todo else []
    computed = {key: reply or key for key, reply in zip(todo, replies, strict=True)}
    algebra = _canonicals.get(normals, computed)
    return [(result or _plain_form(key)) if key else None for key, result in zip(normals, algebra, strict=True)]


def cut_comparisons() -> int:
    """How many comparisons and canonical forms of this process ended by the limit (or with their worker)."""
    return shared_pool().cut


def _check(kind: str, timeout: float, form: str = "bare") -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, not {kind!r}")
    if form not in get_args(Form):
        raise ValueError(f"form must be one of {', '.join(get_args(Form))}, not {form!r}")
    if not timeout > 0:
        raise ValueError(f"timeout must be greater than 0, not {timeout!r}")


def _without_algebra(
    gold: str | None, prediction: str | None, kind: Kind, options: MathOptions, form: Form
) -> bool | None:
    """What strings alone can say; None: it takes algebra."""
    if not gold or not prediction or gold.isspace() or prediction.isspace():
        return False
    if kind != "math":
        if form == "text":
            first, second = extract_answer(gold, kind), extract_answer(prediction, kind)
        elif kind == "choice":
            first, second = read_letter(gold), read_letter(prediction)
        else:
            first, second = gold.strip(), prediction.strip()
        return first is not None and first == second
    if form == "text":
        wanted, found = _stated(gold), _stated(prediction)
        if wanted is None or found is None or has_percent(wanted) != has_percent(found):
            return None
        # Where a text does not plainly state another answer than the gold one, math-verify may still find it.
        return same_text(normalise(wanted), normalise(found), options.precision) or None
    if has_percent(gold) != has_percent(prediction):
        return None
    return same_text(normalise(gold), normalise(prediction), options.precision)


def _stated(text: str) -> str | None:
    """The answer that a text states in a box or a phrase, or is: never a guess."""
    found = find_answer(text)
    if found is not None and found.rule != "number":
        return found.answer
    return text if len(text) <= _WHOLE_ANSWER and "\n" not in text.strip() else None


def _normal_value(answer: str | None) -> str:
    return drop_assignment(normalise(answer or ""))


def _plain_form(normal: str) -> str | None:
    """The canonical form of what needs no algebra: numbers, and words."""
    number = read_number(normal)
    if number is not None:
        return write_number(number[0])
    return normal.lower() if is_words(normal) else None
