"""Damaged files as users may have them, made from good ones by a seed; and what may become of them: one line.

`support.damaged_cases` has the good ones. `benchmarks/damaged_files.py` runs thousands, the tests a sample.
"""

from __future__ import annotations

import json
import random
import re
import resource
import shutil
import signal
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import damage_gguf
from thinkprm_jax.errors import RequestError, UserError, one_line

MOST_SECONDS = 5
MOST_MEGABYTES = 500

# As they stand in a file of JSON.
VALUES = (
    "null", "true", "false", "0", "-1", "1", "-0.0", "0.5", "1e999", "-1e999", "1e-400", "NaN", "Infinity",
    "-Infinity",
    "9" * 400, "-" + "9" * 400, "9" * 5000, "2147483648", "4000000000", "9223372036854775808", "100000", '""',
    '"x"',
    '"' + "x" * 100_000 + '"', '"\\ud800"', '"\\u0000"', '"../../x"', '"/dev/zero"', '"auto"', "[]", "{}", "[[]]",
    "[null]", '[""]', "[0]", '{"": null}', '{"content": null}', '{"type": "yarn"}', "[" * 5000 + "]" * 5000,
    "[" * 900 + "NaN" + "]" * 900,
    '{"a":' * 5000 + "1" + "}" * 5000, "[" + "0," * 20_000 + "0]",
)  # fmt: skip
SCALARS = (
    "null", "~", "-1", "0", "1e999", ".inf", ".nan", "9" * 400, "9" * 5000, "0x" + "f" * 3000, "1:59:59", "yes",
    "!!int ''", "!!bool x", "!!timestamp x", "!!binary é", "!!python/object:a.b c", "!!set {a}", "2026-13-01",
    "[]",
    "{}", "[[]]", "{a: {b: [c]}}", '"\\ud800"', '""', "*x", "&x [*x]", "'" + "x" * 20_000 + "'", "[" * 2000,
    "a: b: c",
    "4294967296", "18446744073709551616", "../..", "/dev/zero", "-0", "1_0", "0o17", "|", "?", "<<: *a", "%",
)  # fmt: skip
PIECES = (
    "{{ messages }}", "{% for m in messages %}", "{% endfor %}", "{{ m.content }}", "{{ m['role'] + m['x'] }}",
    "{% if loop.last %}", "{% endif %}", "{% set n = namespace(s='x') %}", "{% set n.s = n.s ~ n.s %}",
    "{% for i in range(100000) %}", "{{ 'x' * 99999999 }}", "{{ x | tojson(indent=99999999) }}",
    "{% set a = [a, a] %}",
    "{{ 9 ** 999999 }}", "{{ 'a'.center(99999999) }}", "{% macro f(x) %}", "{% endmacro %}", "{{ f(f(1)) }}",
    "{{ a",
    "{% raw %}", "{# ", "{{ '%99999999d' % 1 }}", "{% include 'x' %}", "{{ messages[0]['content'] }}", "{{ 1/0 }}",
    "{{ raise_exception('no') }}", "{{ lipsum(99999) }}", "{{ strftime_now('%Q') }}", "{% generation %}",
    "\x00", "é",
    "{{ range(99999999) | list }}", "{{ ''.join(range(100000) | map('string')) }}", "{{ self }}", "{% block a %}",
    "{{ messages | map(attribute='content') | join(', ') }}", "{{ cycler(*messages) }}",
    "{{ bos_token * eos_token }}",
)  # fmt: skip


class Stuck(BaseException):
    """It took too long."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "read", or the line that refuses it; ``fault``: what is wrong with that, or None."""

    text: str
    fault: str | None


@dataclass(frozen=True)
class Case:
    """A file, how it is damaged, and what reads it."""

    name: str
    good: Path
    read: Callable[[Path], object]
    folder: Path | None = None  # that holds the file, at any depth: it is copied and read whole


def outcome(case: Case, seed: int, work: Path) -> Outcome:
    """Damages the file of ``case`` in a copy below ``work`` and reads that."""
    draw = random.Random(f"{case.name} {seed}")
    shutil.rmtree(work, ignore_errors=True)
    if case.folder is not None:
        shutil.copytree(case.folder, work)
        target, given = work / case.good.relative_to(case.folder), work
    else:
        work.mkdir(parents=True)
        target = given = work / case.good.name
    if case.folder is not None and draw.random() < 0.15:
        _take_away(target, given, draw)
    else:
        content = case.good.read_bytes()
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            content = damage(case.good.name, content, draw)
        target.write_bytes(content)
    before, start = _megabytes(), time.monotonic()
    fault = None
    try:
        with_alarm(lambda: case.read(given))
        text = "read"
    except (UserError, RequestError) as error:
        text = one_line(error)  # as programs print it
    except Stuck:
        text, fault = "", f"took more than {MOST_SECONDS} s"
    except BaseException as error:
        text, fault = "", f"{type(error).__name__}: {str(error)[:300]}"
    if fault is None and time.monotonic() - start > MOST_SECONDS:
        fault = f"took {time.monotonic() - start:.1f} s"
    if fault is None and _megabytes() - before > MOST_MEGABYTES:
        fault = f"took {_megabytes() - before:.0f} MB"
    shutil.rmtree(work)
    return Outcome(text, fault)


def with_alarm(work: Callable[[], object]) -> None:
    def ring(*_: Any) -> None:
        raise Stuck

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    try:
        work()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _megabytes() -> float:
    """The most memory that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# Damage


def _take_away(file: Path, folder: Path, draw: random.Random) -> None:
    """The file, or a folder around it, is not there, is empty, or is a folder in place of a file."""
    around = [parent for parent in file.parents if parent.is_relative_to(folder) and parent != folder]
    target = draw.choice([file, *around])
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    way = draw.randrange(3)
    if way == 1:
        target.write_bytes(b"")
    if way == 2:
        target.mkdir()


def damage(name: str, content: bytes, draw: random.Random) -> bytes:
    """``content`` with one thing wrong, in a way that fits files of this name."""
    if draw.random() < 0.15:
        return _bytes(content, draw)
    if name.endswith((".json", ".jsonl")) or content[:1] == b"{":  # Orbax's files of JSON have other names
        return _json(content, draw)
    if name.endswith(".yaml"):
        return _yaml(content, draw)
    if name.endswith(".safetensors"):
        return _safetensors(content, draw)
    if name.endswith(".jinja"):
        return _template(content, draw)
    if name.endswith(".gguf"):
        return damage_gguf.damage(content, draw) or _bytes(content, draw)
    return _bytes(content, draw)


def _bytes(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content) + 1)
    way = draw.randrange(7)
    if way == 0:
        return content[:place]
    if way == 1:
        return content[:place] + draw.randbytes(draw.choice((1, 8, 500))) + content[place:]
    if way == 2:
        return (
            content[:place] + draw.choice((b"\xff", b"\x00", b"\xed\xa0\x80", b"\xef\xbb\xbf")) + content[place:]
        )
    if way == 3:
        return content[:place] + content[place + draw.choice((1, 7, 300)) :]
    if way == 4:
        return draw.choice(
            (b"", b"null", b"[]", b"\x00" * 64, b"version https://git-lfs.github.com/spec/v1\noid x\n")
        )
    if way == 5:
        return content.decode("utf-8", "replace").encode("utf-16")
    return content[place:] + content[:place]


def _json(content: bytes, draw: random.Random) -> bytes:
    lines = content.split(b"\n") if content.count(b"\n") > 1 and content[:2] != b"{\n" else [content]
    number = draw.randrange(len(lines))
    try:
        tree = json.loads(lines[number])
    except (ValueError, RecursionError):
        return _bytes(content, draw)
    packing = tree.get("quantization_config") if isinstance(tree, dict) else None
    inside = isinstance(packing, dict) and draw.random() < 0.5  # what this file has that others have not
    path = ["quantization_config", *_some_path(packing, draw)] if inside else _some_path(tree, draw)
    mark = "a value that stands nowhere else"
    tree = _put(tree, path, mark, draw)
    text = json.dumps(tree, ensure_ascii=draw.random() < 0.5).replace(json.dumps(mark), draw.choice(VALUES))
    lines[number] = text.encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def _some_path(tree: Any, draw: random.Random) -> list[Any]:
    path: list[Any] = []
    while isinstance(tree, (dict, list)) and tree and (not path or draw.random() < 0.75):
        key = draw.choice(list(tree)) if isinstance(tree, dict) else draw.randrange(len(tree))
        path.append(key)
        tree = tree[key]
    return path


def _put(tree: Any, path: Sequence[Any], mark: str, draw: random.Random) -> Any:
    """Another value at a place; sometimes none, or one beside it."""
    if not path:
        return mark
    at = tree
    for key in path[:-1]:
        at = at[key]
    way = draw.random()
    if way < 0.1:
        del at[path[-1]]
    elif way < 0.2 and isinstance(at, dict):
        at[draw.choice(("", "x" * 1000, "\ud800", "layer_types", "rope_scaling", "999999999999"))] = mark
    elif way < 0.2 and isinstance(at, list):
        at.insert(path[-1], mark)
    else:
        at[path[-1]] = mark
    return tree


def _yaml(content: bytes, draw: random.Random) -> bytes:
    lines = content.decode("utf-8", "replace").split("\n")
    number = draw.randrange(len(lines))
    name, colon, _ = lines[number].partition(":")
    way = draw.random()
    if way < 0.7 and colon:
        lines[number] = f"{name}: {draw.choice(SCALARS)}"
    elif way < 0.8:
        del lines[number]
    elif way < 0.9:
        lines.insert(
            number, draw.choice(("\t", "- x", "  a: b", "a: &a [1]\nb: *a", "--- x", "unknown: 1", "<<: {n: 1}"))
        )
    else:
        lines[number] = " " * draw.randrange(9) + lines[number]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _safetensors(content: bytes, draw: random.Random) -> bytes:
    if len(content) < 16:  # damaged before
        return _bytes(content, draw)
    (length,) = struct.unpack("<Q", content[:8])
    length = min(length, len(content))
    if draw.random() < 0.2:
        return (
            struct.pack("<Q", draw.choice((0, 1, max(length - 1, 0), length + 8, 2**31, 2**63, 2**64 - 1)))
            + content[8:]
        )
    header = _json(content[8 : 8 + length], draw)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _template(content: bytes, draw: random.Random) -> bytes:
    parts = re.split(r"(\{%.*?%\}|\{\{.*?\}\})", content.decode("utf-8", "replace"))
    place = draw.randrange(len(parts))
    way = draw.random()
    if way < 0.6:
        parts[place:place] = draw.choices(PIECES, k=draw.choice((1, 2, 5)))
    elif way < 0.8:
        parts[place] = draw.choice(PIECES)
    else:
        del parts[place]
    return "".join(parts).encode("utf-8", "surrogatepass")
