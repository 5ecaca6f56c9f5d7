"""Loading onto several devices, by several processes, and within bounds of memory; each in its own process."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from support import oracle
from support.processes import finish, free_address, start
from thinkprm_jax.checkpoint.adapter import adapter_of, write_adapter
from thinkprm_jax.checkpoint.huggingface import load_model, read_config, save_model
from thinkprm_jax.model.lora import LoraSpec, lora_shapes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family = getattr(request, "param", "qwen2")
    keys = {"head_dim": 8} if family == "qwen3" else {}
    theirs = oracle.random_model(family, 8, 2, tied=False, **keys)
    return oracle.save(theirs, tmp_path_factory.mktemp("placement"), max_shard_size="60KB")


MESHES = """
import sys, numpy as np, jax
from jax.sharding import PartitionSpec as P
from thinkprm_jax.checkpoint.huggingface import load_model, save_model
from thinkprm_jax.distributed.mesh import make_mesh
folder, tokens, out = sys.argv[1:]
tokens = np.load(tokens)
for number, (data, fsdp, tensor) in enumerate([(1, 1, 8), (1, 8, 1), (2, 2, 2), (1, 2, 4)]):
    mesh = make_mesh(data, fsdp, tensor)
    model, tokenizer = load_model(folder, mesh=mesh)
    kernel, embedding = model.layers[0].mlp.gate.kernel[...], model.embed.embedding[...]
    assert kernel.sharding.shard_shape(kernel.shape) == (64 // fsdp, 72 // tensor)
    # Too few KV heads for 4 or 8 devices: copied.
    key = model.layers[0].attention.key.kernel[...]
    assert key.sharding.shard_shape(key.shape) == (64 // fsdp, 16 // (tensor if tensor == 2 else 1))
    placed = jax.device_put(tokens, jax.NamedSharding(mesh, P(("data", "fsdp"))))
    with jax.set_mesh(mesh):
        logits = jax.jit(lambda model, tokens: model(tokens))(model, placed)
    np.save(f"{out}/{number}.npy", np.asarray(logits))
eager = model(tokens[:1, :5])  # outside jit as well
np.testing.assert_allclose(eager, logits[:1, :5], atol=1e-4)
save_model(model, tokenizer, f"{out}/saved")
"""


@pytest.mark.parametrize("folder", ["qwen2", "qwen3"], indirect=True)
def test_meshes_of_eight_devices(folder: Path, tmp_path: Path) -> None:
    tokens = np.stack([oracle.prompt(20, seed) for seed in range(8)])
    np.save(tmp_path / "tokens.npy", tokens)
    finish([start(MESHES, folder, tmp_path / "tokens.npy", tmp_path, devices=8)])
    model = load_model(folder)[0]
    expected = jax.jit(lambda model, tokens: model(tokens))(model, tokens)
    for number in range(4):
        np.testing.assert_allclose(np.load(tmp_path / f"{number}.npy"), expected, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / "saved")[0], model)


DTYPES = """
import sys, numpy as np, jax
from thinkprm_jax.checkpoint.huggingface import load_model
from thinkprm_jax.distributed.mesh import make_mesh
folder, out = sys.argv[1:]
for dtype in ("bfloat16", "float32"):
    model, _ = load_model(folder, dtype, make_mesh(fsdp=4, tensor=2))
    kernel = model.layers[0].mlp.gate.kernel[...]
    assert (kernel.dtype, kernel.sharding.shard_shape(kernel.shape)) == (dtype, (64 // 4, 72 // 2))
    leaves = jax.tree.leaves(model)
    np.savez(f"{out}/{dtype}.npz", *[np.asarray(leaf, np.float32) for leaf in leaves])
"""


@pytest.mark.parametrize("adapter", [False, True])
def test_bfloat16_files_on_eight_devices(folder: Path, tmp_path: Path, adapter: bool) -> None:
    """Frozen bases stay bfloat16, what trains becomes float32; an adapter is added piece by piece."""
    half = tmp_path / "half"
    save_model(*load_model(folder), half, dtype="bfloat16")
    loaded = half
    if adapter:
        loaded, spec, rng = tmp_path / "adapter", LoraSpec(4, 8.0), np.random.default_rng(0)
        shapes = lora_shapes(read_config(half), spec)
        matrices = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        loaded.mkdir()
        write_adapter(
            loaded, adapter_of(matrices, spec.scale), spec, read_config(half), str(half), np.dtype(np.float32)
        )
    finish([start(DTYPES, loaded, tmp_path, devices=8)])
    for dtype in ("bfloat16", "float32"):
        expected = jax.tree.leaves(load_model(loaded, dtype)[0])
        found = np.load(tmp_path / f"{dtype}.npz")
        # A product of other pieces may be summed in another order.
        tolerance = {"bfloat16": 2**-7, "float32": 1e-6}[dtype] if adapter else 0
        for name, array in zip(found.files, expected, strict=True):
            np.testing.assert_allclose(found[name], np.asarray(array, np.float32), rtol=tolerance, atol=tolerance)


POD = """
import sys, numpy as np, jax
address, process, folder, out = sys.argv[1:]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(address, 2, int(process))
from thinkprm_jax.checkpoint import huggingface, safetensors_io
from thinkprm_jax.distributed.mesh import make_mesh

values = 0
read = safetensors_io.SafetensorsFile.read
def counted(*arguments):
    global values
    result = read(*arguments)
    values += result.size
    return result
safetensors_io.SafetensorsFile.read = counted
model, tokenizer = huggingface.load_model(folder, mesh=make_mesh(fsdp=2, tensor=2))
total = sum(leaf.size for leaf in jax.tree.leaves(model))
print(values / total)
logits = jax.jit(lambda model, tokens: model(tokens))(model, np.arange(10)[None])
huggingface.save_model(model, tokenizer, out)
assert huggingface.load_model(out, mesh=make_mesh(fsdp=4))  # no process returns before the files are there
"""


def test_two_processes(folder: Path, tmp_path: Path) -> None:
    address = free_address()
    pod = [start(POD, address, process, folder, tmp_path / "out", devices=2) for process in range(2)]
    for output in finish(pod):
        assert float(output.split()[0]) < 0.6  # of the numbers of the checkpoint were read by this process
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / "out")[0], load_model(folder)[0])


LARGE = """
import sys, numpy as np, jax
from pathlib import Path
from flax import nnx
from thinkprm_jax.checkpoint import huggingface, names, safetensors_io
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder
folder, dtype, devices = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def memory(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024

config = ModelConfig(vocab_size=60_000, hidden_size=512, intermediate_size=1024, num_layers=2, num_heads=8,
                     num_kv_heads=2, head_dim=64)
mesh = make_mesh(tensor=devices) if devices > 1 else None
if not (folder / "model.safetensors").exists():
    half = np.dtype(jax.numpy.bfloat16)
    abstract = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0)))
    shapes = {".".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(abstract))}
    tensors = []
    for t in names.stored_tensors(config):
        shape = shapes[t.path][::-1 if t.transposed else 1]
        tensors.append(safetensors_io.TensorToWrite(t.name, shape, half, lambda shape=shape: np.ones(shape, half)))
    safetensors_io.write_safetensors(folder / "model.safetensors", tensors, {})
jax.block_until_ready(jax.numpy.zeros(1))
Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
before = memory("VmRSS")
model = huggingface.load_decoder(folder, config, dtype, mesh)
parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(model))
print(parameters, memory("VmHWM") - before - parameters)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux")
@pytest.mark.parametrize(("dtype", "devices"), [("float32", 1), ("bfloat16", 1), ("bfloat16", 4)])
def test_host_memory(tmp_path: Path, dtype: str, devices: int) -> None:
    (output,) = finish([start(LARGE, tmp_path, dtype, devices, devices=devices)])
    parameters, beyond = map(int, output.split())
    assert parameters > 120 * 10**6
    # The blocks being copied and what tracing the model takes: not even the largest tensor (61 or 123 MB).
    assert beyond < 60 * 10**6
