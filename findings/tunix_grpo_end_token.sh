#!/usr/bin/env bash
# google-tunix 0.1.7: GRPO never trains the end of a solution. The vanilla sampler cuts the ids of a completion before
# its end token, so the end is in no loss, whatever the padding is: a reward cannot teach a policy to stop, nor when. A
# policy that writes on gets a worse reward, and only the tokens it wrote are blamed. Other trainers (TRL) have the end
# token in the completion. Instead: start from a policy that ends by itself, give max_tokens_to_generate room, and watch
# the share of solutions that end; or train the end elsewhere.
# Shown with a tiny model that ends at once with a chance of 1/29: the ids that the training step gets.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check google-tunix==0.1.7 jax==0.10.2 flax==0.12.8

cat > "$work/run.py" << 'PYTHON'
import jax
import numpy as np
import optax
from flax import nnx
from tunix.models.qwen2.model import ModelConfig, Qwen2
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig

PADDING, BEGIN, END, WIDTH = 0, 1, 2, 48


class Letters:  # then a to z from 3 on
    encode = staticmethod(lambda text, **_: [ord(letter) - 94 for letter in text])
    decode = staticmethod(lambda ids, **_: "".join(chr(id + 94) if id > 2 else "?" for id in ids))
    pad_id, bos_id, eos_id = (staticmethod(lambda id=id: id) for id in range(3))


config = ModelConfig(num_layers=1, vocab_size=29, embed_dim=16, hidden_dim=32, num_heads=2, head_dim=8,
                     num_kv_heads=1, rope_theta=10_000, norm_eps=1e-6)
mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
with jax.set_mesh(mesh):
    policy = Qwen2(config, rngs=nnx.Rngs(0))
rollout = RolloutConfig(max_tokens_to_generate=WIDTH, max_prompt_length=8, kv_cache_size=64, temperature=1.0)
training = RLTrainingConfig(actor_optimizer=optax.sgd(0.0), eval_every_n_steps=99, max_steps=1)
cluster = RLCluster(actor=policy, tokenizer=Letters(), cluster_config=ClusterConfig(
    role_to_mesh=dict.fromkeys((Role.ACTOR, Role.ROLLOUT), mesh), training_config=training, rollout_config=rollout))
update = cluster.update_actor


def look(examples, *others):
    for example in examples:
        ids, counts = np.asarray(example.completion_ids), np.asarray(example.completion_mask)
        print("some solutions ended before the longest that may be:", bool((ids[:, -1] == PADDING).any()))
        print("end tokens in the ids to train on:", int((ids == END).sum()))
        print("end tokens that the mask of the loss lets through:", int((counts[ids == END] > 0).sum()))
    return update(examples, *others)


cluster.update_actor = look
reward = lambda prompts, completions, **_: [-float(len(text)) for text in completions]  # the shorter, the better
GRPOLearner(cluster, GRPOConfig(num_generations=16, beta=0.0), reward).train([{"prompts": np.array(["abc"])}])
PYTHON
JAX_PLATFORMS=cpu TQDM_DISABLE=1 "$work/env/bin/python" "$work/run.py" 2> "$work/log" | tee "$work/seen" ||
    { tail -n 5 "$work/log"; exit 1; }

diff - "$work/seen" << 'SEEN'
some solutions ended before the longest that may be: True
end tokens in the ids to train on: 0
end tokens that the mask of the loss lets through: 0
SEEN
