"""One program over a mesh: the same tokens on one device and on eight, with shared beginnings and drafts. Replicas
are in test_replicas.py."""

from __future__ import annotations

import pytest

from support import processes

pytestmark = pytest.mark.slow

PROGRAM = """
import json, sys
import jax
from flax import nnx
from thinkprm_jax import bundled
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.parameters import parameter_shardings
from thinkprm_jax.sampler import Force, Request, Sampler, Think
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from pathlib import Path

kv_heads, drafts = int(sys.argv[1]), int(sys.argv[2])
tokenizer = Tokenizer.load(Path(bundled.__file__).parent / "mini")
config = ModelConfig(
    vocab_size=tokenizer.vocab_size + (-tokenizer.vocab_size % 4), hidden_size=64, intermediate_size=128,
    num_layers=2, num_heads=8, num_kv_heads=kv_heads, head_dim=8, initializer_range=0.3,
    eos_token_id=tokenizer.eos_id,
)
model = Decoder(config, rngs=nnx.Rngs(3))
prompts = [[1 + i] * (5 + 9 * i) for i in range(11)] + [[30] * 40 + [31 + i] * 20 for i in range(4)]

def script():
    thought = yield Think(20, stop_ids=(5,))
    yield Force((9, 8, 7))
    more = yield Think(8)
    return thought.ids + more.ids

def run(mesh, drafts):
    sampler = Sampler(
        model, tokenizer, slots=4, max_length=256, chunk=8, mesh=mesh, prefix_cache=1600, share_from=16,
        drafts=drafts,
    )
    requests = [Request(p, script, float(i % 2), seed=i, keep="context") for i, p in enumerate(prompts)]
    results = dict(sampler.run(requests))
    values = [results[i].value for i in range(len(prompts))]
    again = [Request([*prompts[i], *results[i].ids], script, 1.0, seed=i) for i in (9, 2, 14, 5, 11)]
    results = dict(sampler.run(again))
    values += [results[i].value for i in range(len(again))]
    assert sampler.stats.reprefilled_tokens == 0
    moving = [getattr(sampler._device, name)._cache_size() for name in ("decode", "save", "load", "extend")]
    assert min(moving) > 0
    assert sampler._workers[0].store._prefixes.keys[0].sharding == sampler._workers[0].store.cache.keys[0].sharding
    sharding = sampler._workers[0].store.cache.keys[0].sharding
    return values, sharding, sum(moving), sampler.stats.drafted_tokens

alone, _, programs, _ = run(None, 0)
assert len(jax.devices()) == 8
mesh = make_mesh(fsdp=2, tensor=4)
graph, state = nnx.split(model)
shardings = parameter_shardings(config, mesh)
placed = [
    (path, leaf.replace(jax.device_put(leaf[...], shardings[".".join(map(str, path))])))
    for path, leaf in nnx.to_flat_state(state)
]
model = nnx.merge(graph, nnx.from_flat_state(placed))
query = model.layers[0].attention.query.kernel[...]
spread, cache, programs_of_mesh, drafted = run(mesh, drafts)
print(json.dumps({
    "same": alone == spread, "query": str(query.sharding.spec), "cache": str(cache.spec),
    "more_programs": programs_of_mesh - programs, "drafted": drafted,
}))
"""


@pytest.mark.parametrize(
    ("kv_heads", "split_cache", "drafts"), [(4, True, 0), (2, False, 0), (4, True, 7), (2, False, 3)]
)
def test_the_same_tokens_on_eight_devices(kv_heads, split_cache, drafts):
    """With two KV heads on a tensor axis of four, the KV heads are copied, the query heads still split."""
    found = processes.answer(PROGRAM, kv_heads, drafts, devices=8)
    assert found["same"]
    assert (found["drafted"] > 0) == (drafts > 0)
    assert found["more_programs"] == 0  # each call leaves the cache split as the next one expects it
    assert "'tensor'" in found["query"]
    assert "'fsdp'" in found["cache"]
    assert ("'tensor'" in found["cache"]) == split_cache
