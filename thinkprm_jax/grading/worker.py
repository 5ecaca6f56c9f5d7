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

from thinkprm_jax.grading.normalise import has_percent, normalise, write_number

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
    extraction = {
        "latex": math_verify.LatexExtractionConfig(),
        "expr": math_verify.ExprExtractionConfig(),
    }

    def parse(text: str, match_types: list[str]) -> list[Any]:
        return math_verify.parse(text, [extraction[name] for name in match_types], parsing_timeout=None)

    def agree(gold: str, prediction: str, options: Mapping[str, Any]) -> bool:
        return math_verify.verify(
            parse(gold, options["match_types"]),
            parse(prediction, options["match_types"]),
            float_rounding=options["precision"],
            strict=options["strict"],
            allow_set_relation_comp=options["allow_set_relation_comp"],
            timeout_seconds=None,
        )

    def compare(arguments: Mapping[str, Any]) -> bool:
        gold, prediction, options = arguments["gold"], arguments["prediction"], arguments["options"]
        if arguments["form"] == "text":
            return agree(gold, prediction, options)
        if agree(_as_maths(gold), _as_maths(prediction), options):
            return True
        # math-verify knows fewer units and typed characters than the normaliser, which drops a percent sign.
        if has_percent(gold) != has_percent(prediction):
            return False
        cleaned = normalise(gold), normalise(prediction)
        return cleaned != (gold, prediction) and agree(_as_maths(cleaned[0]), _as_maths(cleaned[1]), options)

    def canonical(arguments: Mapping[str, Any]) -> str | None:
        parsed = parse(_as_maths(arguments["answer"]), ["latex"])
        expression = parsed[0] if parsed else None
        if not isinstance(expression, (sympy.Basic, sympy.MatrixBase)):
            return None
        expression = _simplified(expression, sympy)
        if isinstance(expression, sympy.Rational):
            return write_number(expression)
        if expression.has(sympy.nan, sympy.zoo):
            return None
        return normalise(sympy.latex(expression))

    return {"compare": compare, "canonical": canonical}


def _as_maths(answer: str) -> str:
    """The answer between the marks that tell math-verify where the mathematics is."""
    return "$" + answer.replace("\\$", "").replace("$", "").replace("\n", " ").strip() + "$"


def _simplified(expression: Any, sympy: Any) -> Any:
    """A form that equal expressions share, as far as sympy has one: rational functions are one expanded fraction,
    decimals are exact, an equation's variable alone on the left is dropped."""
    if isinstance(expression, sympy.Eq) and isinstance(expression.lhs, sympy.Symbol):
        expression = expression.rhs
    if isinstance(expression, sympy.MatrixBase):
        return expression.applyfunc(lambda part: _simplified(part, sympy))
    if not isinstance(expression, sympy.Expr):
        return sympy.simplify(expression)
    expression = expression.doit().replace(
        lambda part: isinstance(part, sympy.Float), lambda part: sympy.Rational(str(part))
    )
    if expression.free_symbols and expression.is_rational_function(*expression.free_symbols):
        return sympy.cancel(sympy.together(expression))
    return sympy.simplify(expression)


if __name__ == "__main__":
    main()
