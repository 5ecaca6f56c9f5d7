"""Chat templates as Hugging Face checkpoints write them: jinja2 in a sandbox with limits, with the names such
templates expect."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes

from thinkprm_jax.errors import UserError, is_failure, reason
from thinkprm_jax.tokenizer.template_limits import LimitedEnvironment, limited

LONGEST = 100_000  # characters of a template, of which the longest that models have take a quarter


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}` marks assistant text for loss masks; rendering
    ignores the mark."""

    tags = {"generation"}  # noqa: RUF012  the type of the base class

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A scope of its own, as in transformers: what is set inside stays inside.
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller: jinja2.runtime.Macro) -> str:
        return caller()


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes HTML characters, which templates for language models do not want.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=16)
def _compile(source: str) -> jinja2.Template:
    if len(source) > LONGEST:
        raise UserError(f"the chat template is longer than {LONGEST:,} characters")
    environment = LimitedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.limit_filters("tojson")
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"the chat template cannot be read: line {error.lineno}: {error.message}") from error
    except BaseException as error:  # nested too deeply for Python, or for its compiler
        raise _failure("the chat template cannot be read", error) from error


def render(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool,
    variables: Mapping[str, str],
) -> str:
    """The text of `messages` under the template `source`.

    Args:
      variables: the tokens that the configuration names: bos_token and the like.
    Raises:
      UserError: the template is none, refuses the messages, fails, or takes more time or memory than any has use
        for: see :mod:`.template_limits`.
    """
    template = _compile(source)
    names = {
        "messages": [dict(message) for message in messages],
        "add_generation_prompt": add_generation_prompt,
        "tools": None,
        "documents": None,
        **variables,
    }
    try:
        with limited(names):
            return template.render(names)
    except jinja2.TemplateError as error:
        text = " ".join(str(error).split())
        raise UserError(f"the chat template refuses these messages: {text[:_LONGEST_REASON]}") from error
    except BaseException as error:
        raise _failure("the chat template fails on these messages", error) from error


_LONGEST_REASON = 500  # characters


def _failure(what: str, error: BaseException) -> BaseException:
    if isinstance(error, UserError) or not is_failure(error):
        return error
    return UserError(f"{what}: {reason(error, '{}')}")
