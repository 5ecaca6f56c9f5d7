"""Chat templates: the names they see, and what they may cost."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.tokenizer.chat_template import LONGEST, render

CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be short. <&>"},
    {"role": "user", "content": "2 + 2?"},
    {
        "role": "assistant",
        "content": "4",
        "tool_calls": [{"name": "a", "arguments": {"a": 2, "é": [1, None]}}],
    },
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
# What templates of models do with what they see; each is compared with transformers.
SAME = [
    "{{ documents is defined }} {{ tools is none }} {{ documents is none }} {{ add_generation_prompt }}",
    "{{ bos_token }}{{ eos_token }}{{ sep_token is defined }}{{ thinking is defined }}{{ loop is defined }}",
    "{% for m in messages %}{{ m.role }}{{ m['content'] | trim }}{% if loop.last %}!{% endif %}{% endfor %}",
    "{{ messages[2].tool_calls[0].arguments | tojson }}{{ messages | tojson(indent=2) }}",
    "{{ messages[2].tool_calls | tojson(ensure_ascii=True, separators=(',', ':'), sort_keys=True) }}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
    "{% generation %}a{% set seen = 1 %}{% endgeneration %}{{ seen is defined }}",
    "{% set ns = namespace(a=0) %}{% for m in messages %}{% set ns.a = ns.a + 1 %}{% endfor %}{{ ns.a ~ 'x' }}",
    "{{ '%s-%03d' % ('a', 7) }}{{ '{:>5}|{}'.format('a', 1) }}{{ 'a,b'.split(',')[-1] }}{{ 'x' in 'xyz' }}",
    "{{ dict(a=1).items() | list }}{{ [3, 1] | sort | join('-') }}{{ 'abc'[::-1] }}{{ 'ab' * 3 }}{{ 2 ** 9 }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}{{ range(3) | sum }}",
    "{% macro say(m, end='.') %}{{ m.role ~ end }}{% endmacro %}{% for m in messages %}{{ say(m) }}{% endfor %}",
    "{%- if messages[0]['role'] == 'system' -%}\n  {{- '\\n' + messages[0].content }}\n{%- endif %}\n",
    "{% set parts = 'a</think>\n\nb'.split('</think>') %}{{ parts[-1].lstrip('\n') }}{{ parts | first | upper }}",
    "{% macro say() %}{{ caller(1) }}{% endmacro %}{% call(x) say() %}{{ x }}{% endcall %}",
    "{{ strftime_now('%Y') }}",
]


@pytest.mark.parametrize("template", SAME)
def test_a_template_says_what_it_says_in_transformers(template: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    [expected], _ = render_jinja_template([CHAT], chat_template=template, add_generation_prompt=True, **TOKENS)
    assert render(template, CHAT, True, TOKENS) == expected


def test_the_year_is_that_of_the_clock() -> None:
    assert render("{{ strftime_now('%Y') }}", CHAT, True, {}) == str(datetime.datetime.now().year)


LARGE = "{% set s = 'x' * 100000 %}"
DOUBLING = (
    "{{% set n = namespace(s='x') %}}{{% for i in range(60) %}}{{% set n.s = {} %}}{{% endfor %}}{{{{ n.s }}}}"
)
TOO_MUCH = {
    "loops": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "loops that skip": "{% for i in range(100000) %}{% for j in range(100000) if false %}{% endfor %}{% endfor %}",
    "calls": "{% macro m(n) %}{% if n > 0 %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "range": "{{ range(10 ** 9) }}",
    "a repeated text": "{{ 'x' * 1000000000 }}",
    "a repeated text, turned": "{{ 1000000000 * 'x' }}",
    "a repeated list": "{{ [1] * 1000000000 }}",
    "a power": "{{ 9 ** 9999999 }}",
    "doubled by ~": DOUBLING.format("n.s ~ n.s"),
    "doubled by +": DOUBLING.format("n.s + n.s"),
    "lists of lists": DOUBLING.format("[n.s, n.s]"),
    "tables of tables": DOUBLING.format("dict(a=n.s, b=n.s)"),
    "a width": "{{ 'x' | center(1000000000) }}",
    "a width of a method": "{{ 'x'.ljust(1000000000) }}",
    "a width in a format": "{{ '%1000000000d' % 1 }}",
    "a width from a value": "{{ '%*d' % (1000000000, 1) }}",
    "a width in format()": "{{ '{:1000000000}'.format(1) }}",
    "a width from a value in format()": "{{ '{:{}}'.format(1, 1000000000) }}",
    "replace": LARGE + "{{ s.replace('', s) }}",
    "the filter replace": LARGE + "{{ s | replace('x', s) }}",
    "join": LARGE + "{{ range(100000) | list | join(s) }}",
    "join of what is made on the way": LARGE + "{{ s.join(range(100000) | map('string')) }}",
    "indent": "{{ 'a\nb' | indent(1000000000) }}",
    "tojson": "{{ [1] | tojson(indent=1000000000) }}",
    "bytes": "{{ (1).to_bytes(1000000000) | length }}",
    "tabs": "{{ '\t'.expandtabs(1000000000) }}",
    "translate": LARGE + "{{ s.translate({120: s}) }}",
    "searching": "{% set s = 'x' * 3000000 %}{% for i in range(100000) %}{% if 'y' in s %}{% endif %}{% endfor %}",
    "copying": "{% set s = 'x' * 3000000 %}{% for i in range(100000) %}{% set t = s[1:] %}{% endfor %}",
    "letters": "{% set s = 'x' * 3000000 %}{% for i in range(100000) %}{% set t = s | upper %}{% endfor %}",
    "long output": "{% for i in range(100000) %}" + "x" * 4000 + "{% endfor %}",
    "a long block": "{% set q %}{% for i in range(100000) %}" + "x" * 4000 + "{% endfor %}{% endset %}",
    "sum": "{{ ([[1]] * 50000) | sum(start=[]) | length }}",
    "round": "{{ 1.5 | round(1000000000, 'ceil') }}",
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_template_that_takes_too_much_is_stopped(name: str) -> None:
    with pytest.raises(UserError, match=r"the chat template (makes|takes|pads|fails)"):
        render(TOO_MUCH[name], CHAT, True, TOKENS)


BAD = {
    "{{ messages": "cannot be read: line 1:",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}": "cannot be read: nested too deeply",
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000: "cannot be read: nested too deeply",
    "{% for i in [1] %}" * 30 + "{% endfor %}" * 30: "cannot be read: too many statically nested blocks",
    "x" * (LONGEST + 1): "is longer than",
    "{{ none + 1 }}": "fails on these messages: unsupported operand",
    "{{ 1 / 0 }}": "fails on these messages: division by zero",
    "{{ messages.x.y }}": "refuses these messages",
    "{{ raise_exception('roles must\nalternate') }}": "refuses these messages: roles must alternate",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": "fails on these messages: nested too deeply",
    "{% include 'x' %}": "fails on these messages: no loader",
    "{{ lipsum() }}": "refuses these messages: 'lipsum' is undefined",
    "{{ 10 ** 5000 }}": "fails on these messages: Exceeds the limit",
    "{{ ''.__class__.__mro__ }}": "refuses these messages",
}  # fmt: skip


@pytest.mark.parametrize("template", BAD, ids=range(len(BAD)))
def test_what_is_wrong_with_a_template_is_one_line(template: str) -> None:
    with pytest.raises(UserError) as caught:
        render(template, CHAT, True, TOKENS)
    assert BAD[template] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_long_chat_is_not_too_much() -> None:
    chat = [{"role": "user" if turn % 2 else "assistant", "content": f"{turn} " * 500} for turn in range(1000)]
    template = (
        "{% for m in messages %}{% if loop.index0 < messages | length - 1 and m.role == 'assistant' %}"
        "{{ '<a>' + m.content.replace('1', 'one').strip() + '</a>' }}{% else %}{{ m.content | trim }}{% endif %}"
        "{% if m.tools is defined %}{{ m.tools | tojson }}{% endif %}{% endfor %}"
    )
    assert len(render(template, chat, True, TOKENS)) > 10**6
