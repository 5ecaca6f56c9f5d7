"""Data replicas: independent decode loops on parts of a mesh, fed from one queue, and what they share."""

from __future__ import annotations

import pytest

from support import processes
from thinkprm_jax.sampler.dealing import Dealer

# One process for all of it, since nearly all of its time is compilation.
PROGRAM = """
import dataclasses, json, threading
import jax
from flax import nnx
from support import tiny_model
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.parameters import parameter_shardings
from thinkprm_jax.sampler import Force, Request, Sampler, Think

tokenizer = tiny_model.load_tokenizer()
config = dataclasses.replace(
    tiny_model.make_config(tokenizer), num_heads=4, num_kv_heads=2, num_layers=2, initializer_range=0.3,
    vocab_size=tokenizer.vocab_size + tokenizer.vocab_size % 2, eos_token_id=tokenizer.eos_id,
)

def on(mesh, seed=3):
    model = Decoder(config, rngs=nnx.Rngs(seed))
    graph, state = nnx.split(model)
    shardings = parameter_shardings(config, mesh)
    placed = [
        (path, leaf.replace(jax.device_put(leaf[...], shardings[".".join(map(str, path))])))
        for path, leaf in nnx.to_flat_state(state)
    ]
    return nnx.merge(graph, nnx.from_flat_state(placed))

def writes(most):
    def script():
        thought = yield Think(most)
        yield Force((9, 8, 7))
        return thought.ids + (yield Think(3)).ids
    return script

def mesh_of(data, tensor):
    return make_mesh(data=data, tensor=tensor, devices=jax.devices()[:data * tensor])

def sampler_on(mesh, **more):
    return Sampler(on(mesh), tokenizer, mesh=mesh, **{"slots": 8, "max_length": 120, "chunk": 8, **more})

def requests():
    prompts = [[1 + i] * (5 + 3 * i) for i in range(7)] + [[30] * 20 + [31]] * 4
    return [Request(p, writes(12), float(i % 2), seed=i) for i, p in enumerate(prompts)]

def values(sampler):
    results = dict(sampler.run(requests()))
    assert all(result.error is None for result in results.values()), results
    return [results[i].value for i in range(len(results))]

found = {}
alone = values(sampler_on(mesh_of(1, 1)))
found["same"] = {}
for data, tensor in ((4, 1), (2, 2), (1, 2)):
    sampler = sampler_on(mesh_of(data, tensor))
    found["same"][f"{data}x{tensor}"] = [values(sampler) == alone, sampler.workers]
    if data == 4:
        four = sampler

# What a replica computes with is the mesh's own memory.
wide = four.split_model()[1]
views = four._views.of(wide)
weight = nnx.to_flat_state(wide)[0][1].get_raw_value()
mine = jax.tree.leaves(views[2])[0]
found["copied"] = mine.unsafe_buffer_pointer() != weight.addressable_shards[2].data.unsafe_buffer_pointer()

# One long chain holds up nobody: it takes its own replica's steps, the others take theirs.
before = [worker.stats.decode_steps for worker in four._workers]
longest = four.submit(Request([77, 3], writes(96), seed=1))
short = [four.submit(Request([60 + i, 2], writes(4), seed=i)) for i in range(3)]
order = []
longest.add_done_callback(lambda _: order.append("long"))
for handle in short:
    handle.add_done_callback(lambda _: order.append("short"))
handles = [four.submit(Request([90 + i, 2], writes(4), seed=i)) for i in range(9)]
longest.result()
for handle in handles:
    handle.result()
steps = [worker.stats.decode_steps - b for worker, b in zip(four._workers, before)]
found["steps"], found["order"] = sorted(steps), order

# Chains of one prompt go together, problems apart.
prompts = [[40 + i] * 90 for i in range(4) for _ in range(2)]
pair = sampler_on(mesh_of(4, 1))
before = pair.stats
with pair.loop.changed:
    handles = [pair.submit(Request(p, writes(4), 1.0, seed=i)) for i, p in enumerate(prompts)]
for handle in handles:
    handle.result()
found["prefilled"] = pair.stats.prefilled_tokens
found["each"] = [worker.stats.finished for worker in pair._workers]

# New weights, while all of them work: what was submitted before ends with the old ones, everywhere.
mesh = mesh_of(4, 1)
other = values(Sampler(on(mesh_of(1, 1), 5), tokenizer, mesh=mesh_of(1, 1), slots=8, max_length=120, chunk=8))
old = [four.submit(each) for each in requests()]
four.step()
box = []
thread = threading.Thread(target=lambda: box.append(four.update_weights(on(mesh, 5))))
thread.start()
while not four._weights.pending and not four.weight_version:
    pass
new = [four.submit(each) for each in requests()]
found["old"] = [handle.result().value for handle in old] == alone
found["new"] = [handle.result().value for handle in new] == other
thread.join()
found["versions"] = [sorted({h.result().weight_version for h in each}) for each in (old, new)] + box

# A replica that fails: its callers hear of it, the others go on, and soon it gets nothing more.
broken = four._workers[1]
def fail(*_):
    raise RuntimeError("device lost")
broken.device.decode = fail
outcomes = []
for _ in range(6):
    handles = [four.submit(Request([50 + i] * 9, writes(4), seed=i)) for i in range(4)]
    outcomes.append(sum(handle.exception() is not None for handle in handles))
found["failures"], found["serving"] = outcomes, four._dealer.serving
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    return processes.answer(PROGRAM, devices=4)


@pytest.mark.parametrize(("mesh", "loops"), [("4x1", 4), ("2x2", 2), ("1x2", 1)])
def test_the_same_tokens_as_on_one_device(found, mesh, loops):
    assert found["same"][mesh] == [True, loops]


def test_weights_are_there_once_a_replica(found):
    assert not found["copied"]


def test_a_long_chain_holds_up_nobody(found):
    assert found["order"] == ["short", "short", "short", "long"]
    *others, longest = found["steps"]
    assert longest >= 96  # of the long chain
    assert max(others) < 50


def test_chains_of_one_prompt_go_together_and_prompts_apart(found):
    assert found["prefilled"] == 4 * 89  # each prompt once, but for its last token
    assert found["each"] == [2, 2, 2, 2]


def test_new_weights_come_to_all_replicas_between_two_requests(found):
    assert found["old"]
    assert found["new"]
    assert found["versions"] == [[0], [1], 1]


def test_a_replica_that_fails_tells_its_callers_and_is_given_up(found):
    assert found["failures"] == [1, 1, 1, 0, 0, 0]
    assert found["serving"] == [True, False, True, True]


def test_a_request_goes_where_its_beginning_is_known():
    dealer = Dealer(3)
    dealer.note([1] * 200, 2)
    assert dealer.choose([1] * 200 + [5] * 10, [0, 0, 2], [False] * 3) == 2


def test_a_beginning_that_all_know_decides_nothing():
    dealer = Dealer(2)
    for number in range(2):
        dealer.note([1] * 200, number)
    assert dealer.choose([1] * 200, [3, 1], [False] * 2) == 1


def test_a_short_beginning_does_not_outweigh_many_jobs():
    dealer = Dealer(2)
    dealer.note([1] * 64, 0)
    assert dealer.choose([1] * 64 + [2], [4, 0], [False] * 2) == 1


def test_nobody_without_room_is_chosen():
    dealer = Dealer(2)
    dealer.note([1] * 200, 0)
    assert dealer.choose([1] * 200, [None, 7], [False] * 2) == 1


def test_what_was_known_is_forgotten_with_the_weights():
    dealer = Dealer(2)
    dealer.note([1] * 200, 1)
    dealer.forget()
    assert dealer.choose([1] * 200, [0, 0], [False] * 2) == 0
