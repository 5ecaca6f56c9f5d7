"""Files that users give: whatever is wrong with one is one line that names it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from support import tiny_model
from thinkprm_jax.checkpoint.huggingface import load_model
from thinkprm_jax.errors import RequestError, UserError, one_line, reading
from thinkprm_jax.recipe import MOST_BYTES, load_recipe, read_fields
from thinkprm_jax.records.datasets import iterate_source
from thinkprm_jax.records.inputs import SolutionFile
from thinkprm_jax.records.jsonl import read_rows
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.user_files import read_json, read_text


class PanicException(BaseException):
    """As libraries in Rust raise it."""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("name"), "'name' is missing"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "not UTF-8 (byte 1)"),
        (FileNotFoundError(2, "No such file or directory"), "No such file or directory"),
        (MemoryError(), "needs more memory than there is"),
        (OverflowError("too large\nto be true"), "cannot be read (too large)"),
        (TypeError(), "cannot be read (TypeError)"),
        (PanicException("index out of bounds"), "cannot be read (index out of bounds)"),
    ],
)
def test_every_failure_while_reading_is_one_line(error: BaseException, line: str) -> None:
    with pytest.raises(UserError) as caught, reading("a.json"):
        raise error
    assert str(caught.value) == f"a.json: {line}"


@pytest.mark.parametrize("error", [UserError("said"), RequestError("said"), KeyboardInterrupt(), SystemExit(3)])
def test_what_is_said_already_and_what_stops_a_program_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, reading("a.json"):
        raise error
    assert caught.value is error


def test_a_message_is_printed_in_one_line_of_bounded_length() -> None:
    assert one_line(UserError("a\nb  c")) == "a b  c"
    assert len(one_line(UserError("x" * 10**6))) < 5000


def test_a_config_of_many_layers_is_compared_with_its_weights(tmp_path: Path) -> None:
    folder = tiny_model.save_folder(tmp_path / "model", layers=1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 100_000}))
    with pytest.raises(UserError, match=r"num_hidden_layers is 100000, it must be a whole number from 1 to 1000"):
        load_model(folder)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"\xff{}", "not UTF-8"),
        (b"{", "cannot be read as JSON"),
        (b"[1]", "is no JSON object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"n": ' + b"9" * 5000 + b"}", "cannot be read as JSON"),
        (b'{"a": 1}' + b" " * 100, "is longer than 100 bytes"),
    ],
)
def test_what_is_wrong_with_a_json_file(tmp_path: Path, content: bytes, line: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=line) as caught:
        read_json(path, most=100 if b"  " in content else 2**20)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_mark_of_the_byte_order_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode())
    assert read_json(path) == {"a": 1}


def test_devices_are_not_read_and_pipes_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="/dev/zero: is a device, not a file"):
        read_text("/dev/zero", 10)
    receiver, sender = os.pipe()
    os.write(sender, b"text")
    os.close(sender)
    assert read_text(f"/dev/fd/{receiver}", 10, pipes=True) == "text"
    os.close(receiver)


@dataclasses.dataclass(frozen=True)
class Numbers:
    number: float = 1.0
    count: int = 2
    name: str = ""


NESTED = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("number: .inf", "line 1: number must be a number, not inf"),
        ("number: 1e999", "must be a number, not '1e999'"),
        ("number: " + "9" * 400, "must be a number, not one of"),
        ("count: " + "9" * 400, "at most 64 bits, not one of"),
        ("count: 0x" + "f" * 5000, "at most 64 bits"),
        ("count: " + "9" * 5000, "line 1: .* cannot be read as a value"),
        ("name: !!timestamp x", "line 1: 'x' cannot be read as a value"),
        ("name: !!int ''", "cannot be read as a value"),
        ("name: !!bool x", "cannot be read as a value"),
        ("name: !!python/object:a.b x", "cannot be read as a value"),
        (NESTED, "more than 10,000 values"),
        ("name: &a [*a]", "nested too deeply"),
        ("[" * 20_000, "nested too deeply"),
        ("name: " + "x" * MOST_BYTES, "is longer than"),
        ("name: [" + "x, " * 200 + "]", "must be a text, not a list"),
    ],
)
def test_what_is_wrong_with_a_recipe(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=line) as caught:
        load_recipe(Numbers, path)
    assert str(caught.value).startswith(f"recipe {path}")
    assert len(str(caught.value)) < 400


def test_the_fields_of_any_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("a: &x [1, 2]\nb: {c: *x}\n")
    assert read_fields(path) == {"a": [1, 2], "b": {"c": [1, 2]}}
    path.write_text("[1]")
    with pytest.raises(UserError, match="no table of fields"):
        read_fields(path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "tokenizer.model"])
def test_a_pointer_of_git_lfs_says_so(tmp_path: Path, name: str) -> None:
    for file in {"tokenizer_config.json", name}:
        (tmp_path / file).write_text("{}")
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 4665\n")
    with pytest.raises(
        UserError, match=f"{name}: is a pointer of git-lfs, not the file: run `git lfs pull`"
    ) as error:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(error.value)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 4665\n"
READERS = [read_rows, SolutionFile, lambda path: list(iterate_source(str(path)))]


@pytest.mark.parametrize("read", READERS)
def test_rows_that_are_a_pointer_of_git_lfs_say_so(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(POINTER)
    with pytest.raises(UserError, match=r"rows.jsonl.*: is a pointer of git-lfs, not the file"):
        read(path)


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_other_files_of_rows_that_are_a_pointer_say_so(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"rows.{suffix}").write_text(POINTER)
    with pytest.raises(UserError, match=rf"rows.{suffix}: is a pointer of git-lfs"):
        list(iterate_source(str(tmp_path / f"rows.{suffix}")))


ROW = '{"problem": "1 + 1?", "steps": ["It is 2."]'


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (ROW + ', "steps": []}', "the field `steps` is given twice in one object"),
        (ROW + ', "note": [{"a": 1, "b": {"a": 2}, "\\u0061": 3}]}', "the field `a` is given twice in one object"),
        (ROW + ', "n": ' + "1" * 5000 + "}", "not JSON: a whole number of more than 4,300 digits"),
    ],
)
def test_what_a_row_cannot_hold(tmp_path: Path, read: Callable[[Path], object], line: str, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{ROW}}}\n{line}\n")
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value) == f"{path}:2: {said}"


def test_a_key_may_stand_in_several_objects(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(ROW + ', "a": {"steps": 1, "x": [{"a": ":{"}, {"a": "\\"a\\": "}]}}\n')
    assert read_rows(path)[0][1]["a"]["x"] == [{"a": ":{"}, {"a": '"a": '}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,\n "b": {"c": 1,\n "c": 2}}', "line 3: the field `c` is given twice in one object"),
        ('{"a": 1,\n "a": 1}', "line 2: the field `a` is given twice in one object"),
        ('{"' + "k" * 500 + '": 1, "' + "k" * 500 + '": 1}', f"line 1: the field `{'k' * 80}...` is given twice"),
        ('{"a": ' + "9" * 5000 + "}", "cannot be read as JSON (a whole number of more than 4,300 digits)"),
        ("[" * 100_000, "cannot be read as JSON (nested too deeply)"),
        (r'{"a": ["b\ud800"]}', "a text in it has a lone surrogate (U+D800)"),
        (r'{"\uDFFF": 1}', "a text in it has a lone surrogate (U+DFFF)"),
    ],
)
def test_what_a_json_file_cannot_hold(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_json(path)
    assert str(error.value).startswith(f"{path}: {said}")


def test_both_halves_of_a_pair_are_one_character(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(r'{"a": "\ud83d\ude00 \\ud800"}')
    assert read_json(path) == {"a": "\U0001f600 \\ud800"}


@dataclasses.dataclass(frozen=True)
class Named:
    model: str = ""


def test_a_text_of_a_recipe_has_whole_characters(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: a\n")
    with pytest.raises(UserError, match=r"the text has a lone surrogate \(U\+D800\)"):
        load_recipe(Named, path, [r'model="\ud800"'])


def test_a_list_of_rows_names_the_line_of_a_key_that_stands_twice(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[\n{"a": 1},\n{"a": 1,\n"a": 2}\n]')
    with pytest.raises(UserError, match=r"rows.json:4: the field `a` is given twice"):
        list(iterate_source(str(tmp_path / "rows.json")))


def test_a_template_that_fails_later_names_its_folder(tmp_path: Path) -> None:
    folder = tiny_model.save_folder(tmp_path / "model", layers=1)
    for name, text in (("loop", "{% for i in range(99999999) %}{% endfor %}"), ("none", "x")):
        (folder / "chat_template.jinja").write_text(text)
        tokenizer = Tokenizer.load(folder)
        with pytest.raises(UserError, match=rf"^{folder}: the chat template "):
            tokenizer.encode_chat([{"role": "user", "content": name}])
