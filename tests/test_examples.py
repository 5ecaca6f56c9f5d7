"""The programs in examples/ run as they stand, and the notebook still prints what is stored in it."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from support import serving
from support.session import CACHE_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def shared_compilations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples use the library, which leaves JAX's cache alone: here they share the test session's."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", os.environ[CACHE_VARIABLE])
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def run(name: str, *arguments: str, cwd: Path, **environment: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "JAX_PLATFORMS": "cpu", **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_short_and_shown_in_the_docs() -> None:
    pages = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("examples.md", "verifiers.md")]
    programs = sorted(EXAMPLES.glob("*.py"))
    assert len(programs) >= 4
    for program in programs:
        assert len(program.read_text(encoding="utf-8").splitlines()) <= 80, program.name
        assert any(f'--8<-- "examples/{program.name}"' in page for page in pages), program.name
        assert f"def test_{program.stem}(" in Path(__file__).read_text(encoding="utf-8"), program.name


@pytest.mark.slow
def test_score_file(tmp_path: Path) -> None:
    lines = run("score_file.py", cwd=tmp_path).splitlines()
    assert len(lines) == 8
    assert sum("every step is right" in line for line in lines) == 3
    assert "0.000  line 2  step 2: 56 - 22 = 44." in lines


@pytest.mark.slow
def test_score_file_splits_whole_solutions_and_names_what_cannot_be_judged(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"problem": "What is 27 - 12 + 26?", "solution": "Step 1: 27 - 12 = 15.\\n\\nStep 2: 15 + 26 = 51."}\n'
        '{"problem": "How much is 1 + 1?", "solution": ""}\n'
    )
    lines = run("score_file.py", str(rows), cwd=tmp_path).splitlines()
    assert sorted(lines)[0].startswith("0.000  line 1  step 2: 15 + 26 = 51.")
    assert any(line.startswith("line 2 could not be judged: ") for line in lines)


@pytest.mark.slow
def test_own_search(tmp_path: Path) -> None:
    lines = run("own_search.py", cwd=tmp_path).splitlines()
    assert "78 + 12 = 90" in lines[0]
    assert lines[-1].endswith("\\boxed{94}.")
    assert all(float(line.split()[0]) > 0.5 for line in lines)


def test_own_verifier(tmp_path: Path) -> None:
    lines = run("own_verifier.py", cwd=tmp_path).splitlines()
    assert len(lines) == 8
    assert lines[1].split("\t") == ["example-2", "0.0000", "first error in step 2", "1:1.000 2:0.000"]
    assert lines[3].split("\t")[1] == "0.7000"  # its setting: no sum in the first step


@pytest.mark.slow
def test_train_on_own_chains(tmp_path: Path) -> None:
    output = run("train_on_own_chains.py", "own", cwd=tmp_path)
    assert output.splitlines()[-1] == "Is the solution correct? No"
    assert {path.name for path in (tmp_path / "own").iterdir()} == {"chains.jsonl", "recipe.yaml", "run", "model"}


@pytest.mark.slow
@pytest.mark.parametrize("reward", ["rule", "steps"])
def test_rl_tunix(reward: str, tmp_path: Path) -> None:
    pytest.importorskip("tunix", reason="tunix is not installed: pip install google-tunix==0.1.7")
    lines = run("rl_tunix.py", "--steps", "2", "--held-out", "16", "--reward", reward, cwd=tmp_path).splitlines()
    before, after = map(float, lines[-1].removeprefix(f"{reward}, seed 0: ").split(" -> "))
    assert 0 <= before <= 1
    assert 0 <= after <= 1


@pytest.mark.slow
@pytest.mark.parametrize("judge", ["in the trainer's process", "a server"])
def test_rl_trl(judge: str, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="trl is not installed: pip install torch trl")
    sizes = ("--steps", "2", "--problems", "2", "--generations", "4", "--learning-rate", "1e-3")
    with ExitStack() as stack:
        server = ()
        if judge == "a server":
            server = ("--server", stack.enter_context(serving.served(serving.verifier()))[0])
        lines = run("rl_trl.py", "run", *sizes, *server, cwd=tmp_path).splitlines()
    assert lines[-1].startswith("reward ")
    assert lines[-1].endswith("(16 judged, 0 not)")
    start, end = (load_file(tmp_path / "run" / name / "model.safetensors") for name in ("start", "end"))
    assert any((start[name] != end[name]).any() for name in end)  # it was trained


@pytest.mark.slow
def test_several_devices(tmp_path: Path) -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    output = run("several_devices.py", cwd=tmp_path, XLA_FLAGS=flags)
    lines = output.splitlines()
    assert lines[1].startswith("4 devices: mesh {'data': 2, 'fsdp': 1, 'tensor': 2}")
    assert len(lines) == 11
    assert float(lines[-1].removeprefix("largest difference: ")) < 1e-5


@pytest.mark.slow
def test_the_notebook_prints_what_is_stored(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    stored = nbformat.read(EXAMPLES / "verify.ipynb", as_version=4)
    fresh = nbformat.read(EXAMPLES / "verify.ipynb", as_version=4)
    for cell in fresh.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(fresh, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()

    def printed(cell) -> str:
        return "".join(output.text for output in cell.get("outputs", []) if output.output_type == "stream")

    texts = [printed(cell) for cell in stored.cells]
    assert sum(bool(text) for text in texts) == 3
    assert [printed(cell) for cell in fresh.cells] == texts
    assert any(
        "image/png" in output.get("data", {}) for cell in stored.cells for output in cell.get("outputs", [])
    )
