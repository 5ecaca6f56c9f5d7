#!/usr/bin/env bash
# math-verify 0.9.0 reads a repeating decimal between dollar signs as its integer part: 0.\overline{3} becomes 0.
# So a grader calls 0.\overline{3} and 0.\overline{6} equal, and 0.\overline{3} and 1/3 different, in both directions
# without a word. MATH has such answers. Instead: turn the notation into a fraction before parsing, or compare strings.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check math-verify==0.9.0 latex2sympy2_extended==1.11.0 \
    sympy==1.14.0

cat > "$work/run.py" << 'PYTHON'
from math_verify import parse, verify

for gold, answer in [
    (r"$0.\overline{3}$", r"$0.\overline{6}$"),
    (r"$0.\overline{3}$", "$0$"),
    (r"$0.\overline{3}$", r"$\frac{1}{3}$"),
]:
    print(gold, parse(gold)[0], answer, parse(answer)[0], verify(parse(gold), parse(answer)))
PYTHON
"$work/env/bin/python" "$work/run.py" | tee "$work/seen"

diff - "$work/seen" << 'SEEN'
$0.\overline{3}$ 0 $0.\overline{6}$ 0 True
$0.\overline{3}$ 0 $0$ 0 True
$0.\overline{3}$ 0 $\frac{1}{3}$ 1/3 False
SEEN
