"""A jinja2 sandbox that also limits time and memory: a chat template comes with a model and may ask for any amount
of either.

Nothing is measured by a clock and nothing is stopped from outside: a rendering has a budget of steps, so it ends
the same way on every machine. Loops, calls, filters and operators take steps, one for each and one for every few
characters that they read or make; and what they would make is bounded before they make it.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jinja2
import jinja2.sandbox
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from thinkprm_jax.errors import UserError

MOST_STEPS = 500_000  # a second or two; a chat of a thousand turns takes a tenth of it
MOST_TEXT = 4_000_000  # characters of one value; an entry of a list or a table counts as many as _ENTRY
_STEP_TEXT = 64  # characters that are read or made in one step
_ENTRY = 32
_MOST_WIDTH = 10_000  # of what a format pads

# What may be longer than all that it is given: by a number, or by a text that stands in many places.
_GROWING_METHODS = frozenset((
    "center", "expandtabs", "format", "format_map", "join", "ljust", "rjust", "to_bytes", "translate", "zfill",
))  # fmt: skip
_GROWING_FILTERS = frozenset(("batch", "center", "format", "indent", "join", "round", "slice", "sum", "tojson"))
_DEEP_FILTERS = frozenset(("escape", "forceescape", "e", "format", "join", "safe", "string", "tojson"))
_QUICK_FILTERS = frozenset(("count", "d", "default", "first", "last", "length", "attr", "items"))
# For web pages; each takes more time than its text is long.
_LEFT_OUT_FILTERS = ("pprint", "striptags", "urlize", "wordwrap", "xmlattr")
_LEFT_OUT_GLOBALS = ("lipsum",)
_COMPARING_TESTS = ("in", "eq", "==", "equalto", "ne", "!=", "lt", "lessthan", "<", "gt", "greaterthan", ">", "ge",
                    ">=", "le", "<=")  # fmt: skip
_WIDTH = re.compile(r"\d{5,}")


class _Budget:
    """Of one rendering; the messages' own text comes on top."""

    def __init__(self, given: int = 0) -> None:
        self.most = MOST_TEXT + 4 * given
        self.steps = MOST_STEPS + given

    def spend(self, size: int = 0) -> None:
        """One step, and those for ``size`` characters."""
        if size > self.most:
            raise UserError(f"the chat template makes a value of more than {self.most:,} characters")
        self.steps -= 1 + size // _STEP_TEXT
        if self.steps < 0:
            raise UserError("the chat template takes too many steps for these messages")

    def measure(self, value: Any) -> int:
        """Characters of a value and all that is in it; the walk ends where they are too many."""
        total, rest = 0, [value]
        while rest and total <= self.most:
            item = rest.pop()
            if isinstance(item, (str, bytes)):
                total += len(item)
            elif isinstance(item, int):
                total += item.bit_length() // 3
            elif isinstance(item, dict):
                total += _ENTRY * (len(item) + 1)
                rest += [*item.keys(), *item.values()] if total <= self.most else []
            elif isinstance(item, (list, tuple, set, frozenset)):
                total += _ENTRY * (len(item) + 1)
                rest += item if total <= self.most else []
            else:
                total += _ENTRY
        return total

    def check_growth(self, name: str, first: Any, others: list[Any]) -> None:
        """Before something is made that may have the length of the product of what it is given."""
        if isinstance(first, str) and name in ("format", "format_map", "%"):
            if _WIDTH.search(first):
                raise UserError(f"the chat template pads a text to more than {_MOST_WIDTH:,} characters")
            if "*" not in first and ":{" not in first:  # no width from a value
                self.spend(self.measure(first) + self.measure(others))
                return
            others = [entry for item in others for entry in (item if isinstance(item, tuple) else [item])]
        factor = 1 + sum(abs(item) if isinstance(item, int) else self.measure(item) for item in others)
        self.spend(min((1 + self.measure(first)) * factor, self.most + 1))

    def check_repeat(self, value: Any, count: Any) -> None:
        """Before a text or a list is repeated."""
        times = abs(count) if isinstance(count, int) else 1
        self.spend(min(self.measure(value) * times, self.most + 1))


_budget: ContextVar[_Budget | None] = ContextVar("budget", default=None)


def _current() -> _Budget:
    """Of the rendering that runs; what is computed while a template is compiled has one for each operation."""
    return _budget.get() or _Budget()


@contextlib.contextmanager
def limited(given: Any) -> Iterator[None]:
    """A rendering of what is ``given`` to the template, with a budget of its own."""
    token = _budget.set(_Budget(_Budget().measure(given)))
    try:
        yield
    finally:
        _budget.reset(token)


class LimitedEnvironment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox, in which every operation takes from the budget of :func:`limited`."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=_output, **options)
        for name in _LEFT_OUT_FILTERS:
            del self.filters[name]
        for name in _LEFT_OUT_GLOBALS:
            del self.globals[name]
        self.limit_filters()
        tests: dict[str, Any] = self.tests
        tests |= {name: _limited_test(tests[name]) for name in _COMPARING_TESTS}
        self.filters |= {"_tick": _tick, "_seen": _seen, "_concat": _concat}

    def limit_filters(self, *names: str) -> None:
        """Puts filters of these names (all of them, where none is named) under the limits."""
        for name in names or list(self.filters):
            self.filters[name] = _limited_filter(name, self.filters[name])

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Steps().visit(tree)
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = _current()
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            budget.spend(min(left.bit_length() * abs(right), budget.most + 1))
        elif operator == "%":
            budget.check_growth("%", left, [right])
        elif operator == "*" and not isinstance(left, (int, float)):
            budget.check_repeat(left, right)
        elif operator == "*" and not isinstance(right, (int, float)):
            budget.check_repeat(right, left)
        else:
            budget.spend(budget.measure(left) + budget.measure(right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget = _current()
        name = getattr(__obj, "__name__", "")
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if name == "join":
            args = tuple(map(_whole, args))
        others = [*args, *kwargs.values()]
        if isinstance(owner, (str, bytes, int)):
            budget.spend(budget.measure(owner))
            if name in _GROWING_METHODS:
                budget.check_growth(name, owner, others)
            elif name == "replace" and isinstance(owner, str) and len(others) >= 2 and isinstance(others[1], str):
                budget.spend(owner.count(others[0]) * len(others[1]))
        result = super().call(__context, __obj, *args, **kwargs)
        budget.spend(budget.measure(result))
        return result


class _Steps(NodeTransformer):
    """Puts steps into the tree of a template, where no method of the environment is asked."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_filter("_tick", nodes.Const(None))))
        if node.test is not None:
            node.test = nodes.And(_filter("_tick", nodes.Const(None)), node.test)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_filter("_tick", nodes.Const(None))))
        return node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
        return nodes.Const(node.data)  # so that it goes through `finalize` as all that is written does

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter("_concat", nodes.List(node.nodes))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _filter("_seen", node.expr)
        for operand in node.ops:
            operand.expr = _filter("_seen", operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filter("_seen", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_made(self, node: Any) -> nodes.Node:
        """A list of a list of ... of two each has no size to speak of, and no end when it is read."""
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") != "load" else _filter("_seen", node)

    visit_List = visit_Tuple = visit_Dict = visit_made


def _filter(name: str, value: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None)


# Filters that take the context are never computed while a template is compiled.
@jinja2.pass_context
def _tick(context: Any, _: Any) -> bool:
    _current().spend()
    return True


@jinja2.pass_context
def _seen(context: Any, value: Any) -> Any:
    budget = _current()
    budget.spend(budget.measure(value))
    return value


@jinja2.pass_context
def _concat(context: Any, values: list[Any]) -> str:
    budget = _current()
    budget.spend(budget.measure(values))
    return "".join(map(str, values))


_output = _seen


def _whole(value: Any) -> Any:
    """What is made entry by entry, as a list: whoever joins it needs all of it, and its size first."""
    return list(value) if isinstance(value, Iterator) else value


def _limited_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    passed = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

    @functools.wraps(function)
    def limited_filter(*args: Any, **kwargs: Any) -> Any:
        budget = _current()
        first, others = (args[passed] if len(args) > passed else None), [*args[passed + 1 :], *kwargs.values()]
        if name in _GROWING_FILTERS:
            first = _whole(first)
            args = (*args[:passed], first, *args[passed + 1 :]) if len(args) > passed else args
            budget.check_growth(name, first, others)
        elif name == "replace" and len(others) >= 2:
            text, old, new = str(first), str(others[0]), str(others[1])
            budget.spend(len(text) + text.count(old) * len(new))
        elif name in _QUICK_FILTERS:
            budget.spend()
        elif name in _DEEP_FILTERS:
            budget.spend(budget.measure(first))
        elif isinstance(first, (str, list, tuple, dict)):
            budget.spend(len(first) if isinstance(first, str) and name != "list" else _ENTRY * len(first))
        else:
            budget.spend()
        result = function(*args, **kwargs)
        if name not in _QUICK_FILTERS:
            budget.spend(budget.measure(result))
        return result

    return limited_filter


def _limited_test(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def limited_test(*args: Any, **kwargs: Any) -> Any:
        budget = _current()
        budget.spend(budget.measure(args))
        return function(*args, **kwargs)

    return limited_test
