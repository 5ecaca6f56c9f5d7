#!/usr/bin/env bash
# google-tunix 0.1.7: GRPO draws the solutions of every step with the same random numbers. RolloutConfig.seed is None by
# default, and the vanilla sampler reads None as PRNGKey(0), at every call: row b samples its token t with the same noise
# in all steps, whatever the prompt, and in each micro batch of rollouts. So a run does not sample the policy: it explores
# one draw of noise, and what that draw favours at a place is tried there again and again. Rewards look right, and no
# log says so. Instead: give the config another seed before each step, as the batches are handed over (`batches`).
# Shown with a learning rate of 0, a tiny model with random weights and 8 solutions a step.
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


class Letters:  # ids: padding 0, begin 1, end 2, then a to z
    encode = staticmethod(lambda text, **_: [ord(letter) - 94 for letter in text])
    decode = staticmethod(lambda ids, **_: "".join(chr(id + 94) if id > 2 else "?" for id in ids))
    pad_id, bos_id, eos_id = (staticmethod(lambda id=id: id) for id in range(3))


config = ModelConfig(num_layers=1, vocab_size=29, embed_dim=16, hidden_dim=32, num_heads=2, head_dim=8,
                     num_kv_heads=1, rope_theta=10_000, norm_eps=1e-6)
mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


def run(name, seeds):
    with jax.set_mesh(mesh):
        policy = Qwen2(config, rngs=nnx.Rngs(0))
    rollout = RolloutConfig(max_tokens_to_generate=24, max_prompt_length=8, kv_cache_size=32, temperature=1.0)
    training = RLTrainingConfig(actor_optimizer=optax.sgd(0.0), eval_every_n_steps=99, max_steps=4)
    roles = dict.fromkeys((Role.ACTOR, Role.ROLLOUT), mesh)
    cluster = RLCluster(actor=policy, tokenizer=Letters(), cluster_config=ClusterConfig(
        role_to_mesh=roles, training_config=training, rollout_config=rollout))
    steps = []

    def reward(prompts, completions, **_):
        steps.append(list(completions))
        return [float(len(text)) for text in completions]

    def batches():
        for prompt, seed in zip(["abc", "abc", "abc", "xyz"], seeds):
            rollout.seed = seed
            yield {"prompts": np.array([prompt])}

    GRPOLearner(cluster, GRPOConfig(num_generations=8, beta=0.0), reward).train(batches())
    for number in (1, 2):
        same = sum(now == then for now, then in zip(steps[number], steps[0]))
        print(f"{name}, step {number}: {same} of 8 solutions are those of step 0")
    pairs = [(x, y) for now, then in zip(steps[3], steps[0]) for x, y in zip(now, then)]
    share = sum(x == y for x, y in pairs) / len(pairs)
    print(f"{name}, another prompt: {'most' if share > 0.5 else 'few'} letters are those of step 0")


run("as it is", [None] * 4)
run("seeds by us", range(4))
PYTHON
JAX_PLATFORMS=cpu TQDM_DISABLE=1 "$work/env/bin/python" "$work/run.py" 2> "$work/log" | tee "$work/seen" ||
    { tail -n 5 "$work/log"; exit 1; }

diff - "$work/seen" << 'SEEN'
as it is, step 1: 8 of 8 solutions are those of step 0
as it is, step 2: 8 of 8 solutions are those of step 0
as it is, another prompt: most letters are those of step 0
seeds by us, step 1: 0 of 8 solutions are those of step 0
seeds by us, step 2: 0 of 8 solutions are those of step 0
seeds by us, another prompt: few letters are those of step 0
SEEN
