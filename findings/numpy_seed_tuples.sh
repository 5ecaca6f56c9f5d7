#!/usr/bin/env bash
# numpy 2.4.6: a tuple of whole numbers seeds a generator as one row of 32-bit words, with zeros behind it. So tuples
# that differ are one seed: (2**32 + 5, 0) is (5, 1), and 5 is (5, 0). Code that seeds with (seed, epoch) or (seed,
# worker) draws the data of run 5, epoch 1 in run 4294967301, epoch 0, without a word. Instead: keep each number below
# 2**32 and the tuples of one length, or use SeedSequence(seed, spawn_key=(epoch,)), which keeps them apart.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6

cat > "$work/run.py" << 'PYTHON'
import numpy as np

for seed in [(2**32 + 5, 0), (5, 1), 5, (5, 0), (5, 0, 0)]:
    print(seed, np.random.default_rng(seed).permutation(8).tolist())
for key in [0, 1]:
    print("spawn_key", key, np.random.default_rng(np.random.SeedSequence(5, spawn_key=(key,))).permutation(8).tolist())
PYTHON
"$work/env/bin/python" "$work/run.py" | tee "$work/seen"

diff - "$work/seen" << 'SEEN'
(4294967301, 0) [4, 2, 5, 0, 7, 6, 3, 1]
(5, 1) [4, 2, 5, 0, 7, 6, 3, 1]
5 [1, 4, 2, 3, 7, 5, 6, 0]
(5, 0) [1, 4, 2, 3, 7, 5, 6, 0]
(5, 0, 0) [1, 4, 2, 3, 7, 5, 6, 0]
spawn_key 0 [6, 1, 0, 3, 2, 4, 7, 5]
spawn_key 1 [4, 1, 3, 5, 0, 7, 2, 6]
SEEN
