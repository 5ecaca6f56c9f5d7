#!/usr/bin/env bash
# E3: verifier compute on 200 solutions of Omni-MATH: rounds of up to 8,192 tokens in sequence (the paper's curve) and
# chains in parallel, in one command: F1 by tokens, and what n = k gains over k rounds, paired. Stopped, it goes on.
# The paper: ThinkPRM-14B is 15 F1 above DiscPRM-14B and 7.2 above the judge at equal budget; the judge drops after 16K.
set -euo pipefail
thinkprm() { command thinkprm "$@" || [ $? -eq 1 ]; } # 1: some solutions got no verdict, which is counted

thinkprm evaluate processbench --subset omnimath --limit 200 --model launch/ThinkPRM-14B --max-length 36864 --max-gen-tokens 8192 --sweep n=1,2,4,8 --sweep rounds=1,2,3,4 --output-dir runs/e3/thinkprm_14b
# The judge thinks longer: one output of up to 8K, 16K, 24K and 32K tokens.
thinkprm evaluate processbench --subset omnimath --limit 200 --verifier judge --model deepseek-ai/DeepSeek-R1-Distill-Qwen-14B --max-length 10240 --max-gen-tokens 8192 --output-dir runs/e3/judge_8192
thinkprm evaluate processbench --subset omnimath --limit 200 --verifier judge --model deepseek-ai/DeepSeek-R1-Distill-Qwen-14B --max-length 18432 --max-gen-tokens 16384 --output-dir runs/e3/judge_16384
thinkprm evaluate processbench --subset omnimath --limit 200 --verifier judge --model deepseek-ai/DeepSeek-R1-Distill-Qwen-14B --max-length 26624 --max-gen-tokens 24576 --output-dir runs/e3/judge_24576
thinkprm evaluate processbench --subset omnimath --limit 200 --verifier judge --model deepseek-ai/DeepSeek-R1-Distill-Qwen-14B --max-length 34816 --max-gen-tokens 32768 --output-dir runs/e3/judge_32768
thinkprm evaluate processbench --subset omnimath --limit 200 --model runs/disc_prm_14b/exported --output-dir runs/e3/disc_prm
