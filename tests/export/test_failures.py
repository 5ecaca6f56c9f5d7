"""`thinkprm export` where something is in the way: one line, status 2, and nothing that loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from support import oracle, tiny_run
from support.full_disk import room_for
from thinkprm_jax import cli
from thinkprm_jax.checkpoint import safetensors_io
from thinkprm_jax.checkpoint.huggingface import load_model, read_config
from thinkprm_jax.checkpoint.training_state import CheckpointStore
from thinkprm_jax.errors import UserError
from thinkprm_jax.export import run as exporting
from thinkprm_jax.model.parameters import parameter_shapes
from thinkprm_jax.training.trainer import TrainState

pytestmark = pytest.mark.slow


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return oracle.save(oracle.random_model("qwen2", 4, 2, tied=True), tmp_path / "base")


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Path:
    tiny_run.make_run(tmp_path / "run", base, lora=True)
    return tmp_path / "run"


def export(*arguments: object) -> int:
    return cli.main(["export", *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture, out: Path, *arguments: object) -> str:
    """The line that is said; the folder does not come into being, nor anything beside it."""
    before = sorted(out.parent.rglob("*"))
    assert export(*arguments) == 2
    assert sorted(out.parent.rglob("*")) == before
    said = capsys.readouterr().err.removesuffix("\n")
    assert said.startswith("thinkprm export: error: ")
    assert "\n" not in said
    return said.removeprefix("thinkprm export: error: ")


def test_the_adapter_of_a_full_run(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tiny_run.make_run(tmp_path / "full", base)
    said = refused(capsys, tmp_path / "out", tmp_path / "full", tmp_path / "out", "--adapter")
    assert said == f"--adapter: {tmp_path / 'full'} has no LoRA adapter, all of its weights were trained"


def test_a_base_that_has_changed(run: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] += 0.01
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    said = refused(capsys, tmp_path / "out", run, tmp_path / "out")
    assert said == f"{base}: its weights are not those that the run in {run} began with"


def test_a_base_that_has_gone(run: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    base.rename(tmp_path / "elsewhere")
    assert refused(capsys, tmp_path / "out", run, tmp_path / "out") == f"{base}: no such folder"


def test_a_checkpoint_of_another_recipe(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("rank: 4", "rank: 8"))
    said = refused(capsys, tmp_path / "out", run, tmp_path / "out")
    assert "/checkpoints/4 does not fit the run's model and recipe: layers.0.attention.key.lora_a, " in said


def test_a_damaged_checkpoint(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for file in (run / "checkpoints" / "4" / "state").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:50])
    assert "/checkpoints/4 cannot be read: " in refused(capsys, tmp_path / "out", run, tmp_path / "out")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("checkpoints/4/_CHECKPOINT_METADATA", '{"item_handlers": 1.5}', "/checkpoints cannot be read: "),
        (
            "checkpoints/4/state",
            None,
            "/checkpoints/4 cannot be read: the index of its arrays is missing or damaged",
        ),
        ("metrics.jsonl", '{"step": 2}\n\udcff\n', "/run/metrics.jsonl:2: not UTF-8"),
        ("metrics.jsonl", '{"step": "two", "loss": 1}\n', "/run/metrics.jsonl:1: cannot be read"),
        ("metrics.jsonl", "5\n", "/run/metrics.jsonl:1: cannot be read"),
        ("metrics.jsonl", r'{"step": 1, "l\ud800": 1}' + "\n", "/run/metrics.jsonl:1: cannot be read"),
        ("metrics.jsonl", '{"step": 1, "loss": 1' + "0" * 400 + "}\n", "/run/metrics.jsonl:1: cannot be read"),
    ],
)
def test_damaged_files_of_a_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, file: str, content: str | None, words: str
) -> None:
    if content is None:
        shutil.rmtree(run / file)
    else:
        (run / file).write_text(content, encoding="utf-8", errors="surrogateescape")
    assert words in refused(capsys, tmp_path / "out", run, tmp_path / "out")


def test_weights_that_are_not_finite(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tiny_run.make_run(tmp_path / "run", base)
    with CheckpointStore(tmp_path / "run" / "checkpoints") as store:
        shapes = parameter_shapes(read_config(base))
        params = {name: jnp.ones(shape) for name, shape in shapes.items()}
        params["norm.scale"] = jnp.full((32,), jnp.nan)
        store.save(6, TrainState(params, {}, jnp.int32(6)), {"data": {}})
        store.wait()
    said = refused(capsys, tmp_path / "out", tmp_path / "run", tmp_path / "out")
    assert said.endswith("/checkpoints/6: norm.scale holds numbers that are not finite")


def test_numbers_too_large_for_float16(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.self_attn.k_proj.bias"][0] = 70_000.0
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    tiny_run.make_run(tmp_path / "run", base, lora=True)
    said = refused(capsys, tmp_path / "out", tmp_path / "run", tmp_path / "out", "--dtype", "float16")
    assert said.startswith("model.layers.0.self_attn.k_proj.bias: its numbers go from ")
    assert said.endswith(" to 70000, which float16 cannot hold")


def test_a_checkpoint_deleted_while_it_is_read(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that trains on deletes its older checkpoints."""
    read = exporting.SavedWeights.read

    def slow(saved: exporting.SavedWeights, name: str) -> np.ndarray:
        if (run / "checkpoints" / "2").exists():
            (run / "checkpoints" / "2").rename(run / "deleted")
        return read(saved, name)

    monkeypatch.setattr(exporting.SavedWeights, "read", slow)
    with pytest.raises(UserError, match=r"checkpoints/2 was deleted while it was read"):
        exporting.write_run(run_of(run), tmp_path / "out", 2, np.dtype(np.float32))


def run_of(folder: Path) -> exporting.TrainingRun:
    settings = {"data": {"train": {"chains": "x.jsonl"}}, "lora": tiny_run.LORA}
    return exporting.TrainingRun(folder, "", settings, str(folder.parent / "base"), tiny_run.SPEC)


def test_a_run_that_is_training(run: Path, tmp_path: Path) -> None:
    """Its checkpoints folder is open, and another one is half-written."""
    half = run / "checkpoints" / "6.orbax-checkpoint-tmp"
    half.mkdir()
    with CheckpointStore(run / "checkpoints", read_only=True):
        assert export(run, tmp_path / "out") == 0
    assert half.exists()
    load_model(tmp_path / "out")


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("adapter", [[], ["--adapter"]])
def test_an_interrupted_export_does_not_load(
    run: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool, adapter: list[str]
) -> None:
    """Stopped in the middle of the weights, as by Ctrl-C; an older model in the folder is still whole then."""
    out = tmp_path / "place" / "out"
    if existing:
        assert export(run, out, "--step", 2) == 0
    older = {path: path.read_bytes() for path in out.rglob("*")}

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors_io.os, "fsync", interrupted)
    assert export(run, out, *adapter) == 130
    assert {path: path.read_bytes() for path in out.rglob("*")} == older
    assert [path.name for path in (tmp_path / "place").iterdir()] == (["out"] if existing else [])


def test_the_last_move_is_the_one_that_makes_it_load(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between two of the moves into a folder that holds an older model."""
    assert export(run, tmp_path / "out", "--step", 2) == 0
    moves = []

    def move(source: Path, target: Path) -> None:
        if Path(target).parent == tmp_path / "out":  # and not in the place where the files are made
            moves.append(Path(target).name)
            with pytest.raises(UserError, match=r"holds no config\.json"):
                load_model(tmp_path / "out")
        source.rename(target)

    monkeypatch.setattr("thinkprm_jax.checkpoint.files.os.replace", move)
    assert export(run, tmp_path / "out") == 0
    assert moves[-1] == "config.json"
    assert len(moves) > 4
    load_model(tmp_path / "out")


def test_one_kind_of_folder_replaces_the_other(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(run, out)
    (out / "notes.txt").write_text("mine")
    (out / "chat_template.jinja").write_text("of an older model; it would win over tokenizer_config.json")
    assert export(run, out, "--adapter") == 0
    names = {path.name for path in out.iterdir()}
    assert "adapter_model.safetensors" in names
    assert not names & {"model.safetensors", "chat_template.jinja"}
    assert (out / "notes.txt").read_text() == "mine"
    assert export(run, out) == 0
    assert not list(out.glob("adapter*"))


# The hub


class FakeHub:
    """Notes what is asked of it; ``refuse`` names a call that fails."""

    calls: list[tuple[str, dict[str, Any]]]
    refuse = ""

    def _note(self, call: str, **arguments: Any) -> None:
        if call == self.refuse:
            raise OSError("401 Client Error\nmore lines")
        self.calls.append((call, arguments))

    def whoami(self) -> None:
        self._note("whoami")

    def create_repo(self, repo_id: str, **arguments: Any) -> None:
        self._note("create_repo", repo_id=repo_id, **arguments)

    def upload_folder(self, **arguments: Any) -> None:
        self._note("upload_folder", **arguments)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeHub]:
    fake = type("Fake", (FakeHub,), {"calls": []})
    monkeypatch.setattr("huggingface_hub.HfApi", fake)
    return fake


def test_push(run: Path, tmp_path: Path, hub: type[FakeHub], capsys: pytest.CaptureFixture) -> None:
    assert export(run, tmp_path / "out", "--push", "me/verifier") == 0
    assert "https://huggingface.co/me/verifier" in capsys.readouterr().out
    assert [name for name, _ in hub.calls] == ["whoami", "create_repo", "upload_folder"]
    assert hub.calls[1][1] == {"repo_id": "me/verifier", "private": True, "exist_ok": True}
    uploaded = hub.calls[2][1]
    assert (uploaded["repo_id"], uploaded["folder_path"]) == ("me/verifier", str(tmp_path / "out"))
    for file in (tmp_path / "out").iterdir():
        assert any(file.match(pattern) for pattern in uploaded["allow_patterns"])
    assert 'ThinkPRM("me/verifier"' in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("me", "'me' is no repository of the Hugging Face Hub; write OWNER/NAME"),
        ("a/b/c", "'a/b/c' is no repository"),
    ],
)
def test_a_push_that_cannot_be(
    run: Path, tmp_path: Path, hub: type[FakeHub], capsys: pytest.CaptureFixture, name: str, message: str
) -> None:
    assert refused(capsys, tmp_path / "out", run, tmp_path / "out", "--push", name).startswith(message)


def test_a_push_without_login_fails_before_the_work(
    run: Path, tmp_path: Path, hub: type[FakeHub], capsys: pytest.CaptureFixture
) -> None:
    hub.refuse = "whoami"
    said = refused(capsys, tmp_path / "out", run, tmp_path / "out", "--push", "me/verifier")
    assert said == "me/verifier: not uploaded (401 Client Error)"


def test_a_failed_upload_keeps_the_folder(
    run: Path, tmp_path: Path, hub: type[FakeHub], capsys: pytest.CaptureFixture
) -> None:
    hub.refuse = "upload_folder"
    assert export(run, tmp_path / "out", "--push", "me/verifier") == 2
    assert "not uploaded" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "config.json").read_text())["hidden_size"] == 32


@pytest.mark.parametrize("room", [100, 20_000])
def test_a_full_disk(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, room: int) -> None:
    with room_for(room):
        said = refused(capsys, tmp_path / "out", run, tmp_path / "out")
    assert said.startswith(f"{tmp_path / 'out'}")
    assert said.endswith("File too large")
    assert export(run, tmp_path / "out") == 0
