#!/usr/bin/env bash
# E2: binary F1 by the number of training examples. First train the verifiers: ThinkPRM-14B on the first 500 of the 1K
# chains (configs/train/r1_distill_14b_lora.yaml, data.train.limit=500 output=runs/thinkprm_14b_500), DiscPRM-14B on
# 1,000, 10,000, 50,000 and all 98,000 solutions of PRM800K (configs/train/disc_prm_14b.yaml, data.train.limit=1000
# output=runs/disc_prm_14b_1000 and so on: the first ones of the file, so shuffle its lines once), then `thinkprm export
# RUN RUN/exported` each. The paper gives its curve as a picture only.
set -euo pipefail
thinkprm() { command thinkprm "$@" || [ $? -eq 1 ]; } # 1: some solutions got no verdict, which is counted

thinkprm evaluate processbench --subset olympiadbench omnimath --model runs/thinkprm_14b_500/exported --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e2/thinkprm_500
thinkprm evaluate processbench --subset olympiadbench omnimath --model launch/ThinkPRM-14B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e2/thinkprm_1000
thinkprm evaluate processbench --subset olympiadbench omnimath --model runs/disc_prm_14b_1000/exported --output-dir runs/e2/disc_prm_1000
thinkprm evaluate processbench --subset olympiadbench omnimath --model runs/disc_prm_14b_10000/exported --output-dir runs/e2/disc_prm_10000
thinkprm evaluate processbench --subset olympiadbench omnimath --model runs/disc_prm_14b_50000/exported --output-dir runs/e2/disc_prm_50000
thinkprm evaluate processbench --subset olympiadbench omnimath --model runs/disc_prm_14b_98000/exported --output-dir runs/e2/disc_prm_98000
thinkprm evaluate processbench --subset olympiadbench omnimath --verifier judge --model deepseek-ai/DeepSeek-R1-Distill-Qwen-14B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e2/judge
thinkprm evaluate labels --figure binary_f1_paper_average --output-dir runs/e2 ThinkPRM:500=runs/e2/thinkprm_500/figures.json ThinkPRM:1000=runs/e2/thinkprm_1000/figures.json DiscPRM:1000=runs/e2/disc_prm_1000/figures.json DiscPRM:10000=runs/e2/disc_prm_10000/figures.json DiscPRM:50000=runs/e2/disc_prm_50000/figures.json DiscPRM:98000=runs/e2/disc_prm_98000/figures.json judge:0=runs/e2/judge/figures.json
