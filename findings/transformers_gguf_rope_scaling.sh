#!/usr/bin/env bash
# transformers 5.24.0: a GGUF file of a qwen2 or llama model loses its rope scaling. The file says yarn with a factor of 4
# (qwen2.rope.scaling.*), or has the factors of Llama 3.1 (rope_freqs.weight); the configuration made of it says
# `default`, and nothing is said. Short prompts look right, since yarn and Llama 3.1 hardly change nearby positions;
# long chains come out of another model. llama.cpp follows both.
# Instead: set rope_parameters by hand after loading, or read the keys as thinkprm_jax does.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check \
    transformers==5.24.0 gguf==0.19.0 torch==2.13.0 numpy==2.4.6

cat > "$work/run.py" << 'PYTHON'
import sys
from pathlib import Path

import gguf
import numpy as np
from transformers import AutoConfig

for family in ("qwen2", "llama"):
    folder = Path(sys.argv[1]) / family
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / "model.gguf", family)
    writer.add_context_length(131072)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(64)
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(500000.0)
    writer.add_vocab_size(32)
    if family == "qwen2":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(32768)
    else:
        writer.add_tensor("rope_freqs.weight", np.full(32, 8, np.float32))
    writer.add_tensor("token_embd.weight", np.zeros((32, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    config = AutoConfig.from_pretrained(folder, gguf_file="model.gguf")
    print(family, config.rope_parameters)
PYTHON
HF_HUB_OFFLINE=1 "$work/env/bin/python" "$work/run.py" "$work" 2> "$work/said" | tee "$work/seen"
if grep -i "rope\|yarn\|scaling" "$work/said"; then
    echo "it says something now"
    exit 1
fi

diff - "$work/seen" << 'SEEN'
qwen2 {'rope_theta': 500000.0, 'rope_type': 'default'}
llama {'rope_theta': 500000.0, 'rope_type': 'default'}
SEEN
