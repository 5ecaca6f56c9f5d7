"""The command line around the programs, and the folder of compiled programs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from thinkprm_jax import cli, program, runtime
from thinkprm_jax.errors import UserError


def test_help_is_quick_and_loads_nothing_heavy():
    code = "import sys; from thinkprm_jax.cli import main; main(['--help']); print(sorted(sys.modules))"
    began = time.monotonic()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.monotonic() - began < 5  # under 1 s on an idle machine
    assert "score" in result.stdout
    for heavy in ("jax", "numpy", "torch", "transformers", "tokenizers"):
        assert f"'{heavy}'" not in result.stdout


def test_unknown_subcommand_names_the_nearest(capsys):
    assert cli.main(["scroe"]) == 2
    assert "did you mean 'score'?" in capsys.readouterr().err


def test_nothing_asked_shows_the_usage(capsys):
    assert cli.main([]) == 2
    assert "usage" in capsys.readouterr().err
    assert cli.main(["--version"]) == 0


def test_an_interrupt_while_a_program_loads_is_one_line_too(tmp_path, monkeypatch, capsys):
    (tmp_path / "slow_to_load.py").write_text("raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.PROGRAMS, "score", ("slow_to_load", "nothing"))
    assert cli.main(["score"]) == 130
    assert capsys.readouterr().err == "thinkprm score: stopped\n"


@pytest.mark.parametrize(("error", "status"), [(UserError("no"), 2), (KeyboardInterrupt(), 130)])
def test_what_the_user_caused_is_one_line(capsys, error, status):
    def main(arguments):
        raise error

    assert program.run(main, [], name="thinkprm x") == status
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_crash_is_no_incomplete_result(capsys):
    def main(arguments):
        raise LookupError("a mistake of ours")

    assert program.run(main, []) == 70
    assert "LookupError: a mistake of ours" in capsys.readouterr().err


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("THINKPRM_JAX_CACHE", str(tmp_path))
    assert runtime.cache_folder() == tmp_path
    monkeypatch.setenv("THINKPRM_JAX_CACHE", "off")
    assert runtime.cache_folder() is None
    monkeypatch.delenv("THINKPRM_JAX_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert runtime.cache_folder().parent == tmp_path / "thinkprm_jax" / "compiled"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the standard says: ignore
    assert runtime.cache_folder().is_relative_to(Path.home() / ".cache")


def test_cache_is_switched_on_and_the_users_own_settings_win(tmp_path):
    code = (
        "import jax; from thinkprm_jax.runtime import enable_compilation_cache as on; "
        "print(on()); jax.jit(lambda x: x + 1)(1.0)"
    )

    def folder(**environment: str) -> str:
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": "", "HOME": str(tmp_path), "JAX_PLATFORMS": "cpu", **environment},
        )
        return result.stdout.strip()

    assert folder(THINKPRM_JAX_CACHE=str(tmp_path / "ours")) == str(tmp_path / "ours")
    assert list((tmp_path / "ours").iterdir())  # however short the compilation was
    assert folder(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs")) == str(tmp_path / "theirs")
