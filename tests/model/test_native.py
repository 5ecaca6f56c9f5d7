"""C++ that is compiled by the machine that runs it; here a function that gives a number."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from pathlib import Path

import pytest

from thinkprm_jax.model.native import NoLibraryError, load_library


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A source, with a cache of its own."""
    monkeypatch.setenv("THINKPRM_JAX_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "seven.cc"
    path.write_text('extern "C" int number() { return 7; }', encoding="utf-8")
    load_library.cache_clear()
    yield path
    load_library.cache_clear()


def number(source: Path, flags: tuple[str, ...] = ()) -> int:
    load_library.cache_clear()
    return load_library(source, str(source.parent), flags)[0].number()


def kept(source: Path) -> list[Path]:
    return sorted((source.parent / "cache").iterdir())


def test_what_is_compiled_is_kept(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert number(source) == 7
    [file] = kept(source)
    monkeypatch.setenv("PATH", "")  # no compiler is needed any more
    assert number(source) == 7
    assert kept(source) == [file]


def test_another_source_is_compiled_anew(source: Path) -> None:
    assert number(source) == 7
    source.write_text('extern "C" int number() { return 8; }', encoding="utf-8")
    assert number(source) == 8


@pytest.mark.parametrize("damage", ["empty", "cut", "changed"])
def test_a_damaged_file_is_compiled_anew(source: Path, damage: str) -> None:
    number(source)
    [file] = kept(source)
    whole = file.read_bytes()
    file.unlink()  # it is mapped into this process
    changed = whole[:-100] + bytes(100)
    file.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "changed": changed}[damage])
    assert number(source) == 7
    assert file.read_bytes() == whole


def test_two_at_once_do_not_disturb_each_other(source: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: load_library.__wrapped__(source, ".", ())[0].number(), range(3)))
    assert found == [7, 7, 7]
    assert len(kept(source)) == 1


def test_without_a_cache_it_is_compiled_all_the_same(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINKPRM_JAX_CACHE", "off")
    assert number(source) == 7
    assert not (source.parent / "cache").exists()


def test_a_cache_that_cannot_be_written_is_done_without(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source.parent / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("THINKPRM_JAX_CACHE", str(source.parent / "file" / "cache"))
    assert number(source) == 7


def test_a_flag_that_the_compiler_does_not_know_is_left_out(source: Path) -> None:
    assert number(source, ("-march=of-another-world",)) == 7


def test_no_compiler(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(NoLibraryError, match=r"no C\+\+ compiler"):
        number(source)


def test_a_compiler_that_is_not_there(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(source.parent / "no-compiler"))
    with pytest.raises(NoLibraryError, match=r"no-compiler cannot compile seven\.cc: .*No such file"):
        number(source)


def test_a_source_that_does_not_compile(source: Path) -> None:
    source.write_text("int number( {", encoding="utf-8")
    with pytest.raises(NoLibraryError, match=r"cannot compile seven\.cc: .*error") as raised:
        number(source)
    assert "\n" not in str(raised.value)
    assert kept(source) == []
