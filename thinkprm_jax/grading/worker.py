"""The child program of `pool.py`: one line of JSON in, one out, with sympy and math-verify in between.

    python -m thinkprm_jax.grading.worker

It has no time limit of its own, since none can be kept inside sympy: its parent kills it. math-verify's limits,
which are signals and work in a main thread only, are switched off.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from thinkprm_jax.grading.points import POINTS, drawn
from thinkprm_jax.grading.tokens import GREEK, tokenize

MEMORY_LIMIT = 4 << 30  # bytes of address space: 10^(10^9) ends in a MemoryError, not in the machine's swap


def main() -> None:
    # What sympy or a parser prints must not stand between the answers.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _limit_memory()
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # whatever the parent had set
    try:
        tasks = _load_tasks()
    except ImportError as error:
        _reply(replies, {"missing": str(error)})
        return
    _reply(replies, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        with _alarm(2 * request["limit"] + 10):
            try:
                result = tasks[request["task"]](request["arguments"])
            except Exception:  # of the maths: RecursionError, MemoryError, whatever a parser meets
                result = None
        _reply(replies, {"result": result})


def _reply(replies: Any, message: Mapping[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Should the parent be gone when the limit is over, the system ends this process: the alarm has no handler, so
    it needs no Python to run. Between tasks there is none: a worker waits as long as its parent lives."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _load_tasks() -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    """The tasks by name. Raises ImportError where math-verify or a part of it is missing."""
    import logging

    import math_verify
    import sympy

    logging.disable(logging.CRITICAL)
    extraction = [math_verify.LatexExtractionConfig()]

    def read(arguments: Mapping[str, Any]) -> list[list[str]] | None:
        """The [real, imaginary] values of a formula at the points of `thinkprm_jax.grading.points`; None where it
        is not understood, all of it."""
        answer = arguments["answer"]
        parsed = math_verify.parse(f"${answer}$", extraction, parsing_timeout=None)
        expression = parsed[0] if parsed else None
        if not isinstance(expression, sympy.Expr) or not _covers(expression, answer, sympy):
            return None
        return _values(expression.doit(), sympy)

    return {"read": read}


def _covers(expression: Any, answer: str, sympy: Any) -> bool:
    """Whether every number and name of the text stands in what was parsed."""
    leaves = [str(leaf) for leaf in sympy.preorder_traversal(expression) if not leaf.args]
    for token in tokenize(answer):
        if token.kind == "number":
            number = sympy.Rational(token.text)
            if not any(leaf.is_Rational and abs(leaf) == number for leaf in expression.atoms(sympy.Rational)) and (
                number not in (0, 1, 2) and str(token.text) not in leaves
            ):
                return False
        if token.kind == "letter" and token.text not in "eid" and token.text not in leaves:
            return False
    return True


def _values(expression: Any, sympy: Any) -> list[list[str]] | None:
    if expression.has(sympy.Integral, sympy.Limit, sympy.Sum, sympy.Product, sympy.nan, sympy.zoo, sympy.oo):
        return None
    if expression.is_Rational:
        return [[str(expression), "0"]]
    symbols = sorted(expression.free_symbols, key=str)
    found = []
    for point in range(POINTS if symbols else 1):
        values = {symbol: _at(symbol, point, sympy) for symbol in symbols}
        real, imaginary = expression.subs(values).evalf(60).as_real_imag()
        if not (real.is_Number and imaginary.is_Number):
            return None
        found.append([str(sympy.Float(real, 60)), str(sympy.Float(imaginary, 60)) if imaginary else "0"])
    return found


def _at(symbol: Any, point: int, sympy: Any) -> Any:
    name = str(symbol).replace("{", "").replace("}", "")
    value = drawn(f"\\{name}" if name in GREEK else name, point)
    return sympy.Rational(value.numerator, value.denominator)


if __name__ == "__main__":
    main()
