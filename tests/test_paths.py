"""What may be read and written, said before it is opened."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.paths import check_input, check_output, check_output_folder
from thinkprm_jax.records.files import atomic_write
from thinkprm_jax.records.jsonl import iterate_rows
from thinkprm_jax.user_files import read_json


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with one of each kind in it."""
    (tmp_path / "file").write_text("{}\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "to_device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "socket"))
    return tmp_path


@pytest.mark.parametrize("name", ["file", "link", "new", "folder/new"])
def test_files_and_what_is_not_there_yet_pass(place, name):
    check_input(place / name)
    check_output(place / name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("folder", "is a folder"),
        ("pipe", "is a pipe"),
        ("socket", "is a socket"),
        ("to_device", "is a device"),
        ("/dev/null", "is a device"),
        ("/dev/zero", "is a device"),
        ("ftp://host/rows.jsonl", "ftp://host/rows.jsonl: files are read and written at gs://, s3://"),
        (Path("https://host/rows.jsonl"), "https:/host/rows.jsonl: files are read and written at gs://, s3://"),
    ],
)
def test_what_is_no_file_is_neither_read_nor_written(place, name, said):
    path = name if str(name).startswith(("ftp:", "https:")) else place / name
    for refused in (check_input, check_output, check_output_folder, lambda path: atomic_write(path, "")):
        if (refused, name) != (check_output_folder, "folder"):
            with pytest.raises(UserError, match=said):
                refused(path)
    with pytest.raises(UserError, match=said):
        list(iterate_rows(path))
    with pytest.raises(UserError, match=said):
        read_json(path)


def test_a_pipe_is_read_by_whoever_reads_once(place):
    check_input(place / "pipe", pipes=True)
    with pytest.raises(UserError, match="read again when a run goes on"):
        check_output(place / "pipe")


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/new.jsonl"])
def test_names_of_devices_are_no_place_for_results_wherever_they_lead(path):
    with pytest.raises(UserError, match="is a device, and the output must be a file"):
        check_output(path)


def test_a_folder_may_be_new_or_a_folder(place):
    check_output_folder(place / "folder")
    check_output_folder(place / "new")
    with pytest.raises(UserError, match="is a file, and the output must be a folder"):
        check_output_folder(place / "file")


def test_a_drive_is_no_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_output("C:/rows.jsonl")
