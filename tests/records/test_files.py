"""Files that are whole, whatever happens while they are written."""

from __future__ import annotations

import os
import stat

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.records import files
from thinkprm_jax.records.files import atomic_write, write_json
from thinkprm_jax.user_files import read_json


def test_a_file_is_new_or_replaced(tmp_path):
    path = tmp_path / "page.html"
    atomic_write(path, "first")
    atomic_write(str(path), "zweite Fassung, länger".encode())
    assert path.read_text(encoding="utf-8") == "zweite Fassung, länger"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_its_mode_is_that_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        atomic_write(tmp_path / "a", "")
        (tmp_path / "b").write_text("")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_stops_it_leaves_the_old_file(tmp_path, monkeypatch, stop):
    path = tmp_path / "figures.json"
    atomic_write(path, "old")

    def refuse(*_):
        raise stop

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(UserError if isinstance(stop, OSError) else KeyboardInterrupt) as error:
        atomic_write(path, "new")
    if isinstance(stop, OSError):
        assert str(error.value) == f"{path}: cannot be written: No space left on device"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_behind_a_link_the_file_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    file, link = tmp_path / "there" / "file", tmp_path / "link"
    file.write_text("old")
    link.symlink_to(file)
    atomic_write(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere/file: cannot be written: No such file"):
        atomic_write(tmp_path / "nowhere" / "file", "")


def test_json(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": ["é", "\U0001f600"]})
    assert path.read_text().isascii()
    assert read_json(path) == {"a": ["é", "\U0001f600"]}
    for content, message in (("[1]", "is no JSON object"), ("{", "cannot be read as JSON")):
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            read_json(path)
    with pytest.raises(UserError, match="No such file"):
        read_json(tmp_path / "b.json")
