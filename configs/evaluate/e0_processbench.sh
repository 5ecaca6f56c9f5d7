#!/usr/bin/env bash
# E0: standard ProcessBench, four subsets, 3,400 solutions: first-error F1. No such figure of a ThinkPRM has been
# published. Then the vote of eight chains, which is how ProcessBench evaluates sampled critics (there at temperature 1
# and top_p 0.9; here at the 0.6 of ThinkPRM), and a discriminative PRM whose figure is known (73.5).
set -euo pipefail
thinkprm() { command thinkprm "$@" || [ $? -eq 1 ]; } # 1: some solutions got no verdict, which is counted

thinkprm evaluate processbench --model launch/ThinkPRM-1.5B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e0/thinkprm_1.5b
thinkprm evaluate processbench --model launch/ThinkPRM-7B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e0/thinkprm_7b
thinkprm evaluate processbench --model launch/ThinkPRM-14B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e0/thinkprm_14b
thinkprm evaluate processbench --model launch/ThinkPRM-1.5B --max-length 10240 --max-gen-tokens 8192 --n 8 --output-dir runs/e0/thinkprm_1.5b_8
thinkprm evaluate processbench --verifier qwen_prm --model Qwen/Qwen2.5-Math-PRM-7B --output-dir runs/e0/qwen_prm_7b
