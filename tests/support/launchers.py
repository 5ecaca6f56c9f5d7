"""A world for launchers: programs in place of gcloud, srun and kubectl that write down their calls."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

LAUNCH = Path(__file__).parents[2] / "train" / "launch"

# Two hosts are two home folders. `ssh` runs the command there, `scp` copies; the state of the slice is a file.
GCLOUD = r"""#!/usr/bin/env bash
echo "gcloud $*" >>"$WORLD/calls"
verb=$4; name=$5; shift 5
worker=all; command=; spot=; source=; target=
for argument in "$@"; do
    case $argument in
        --worker=*) worker=${argument#*=} ;;
        --command=*) command=${argument#*=} ;;
        --*) ;;
        *) target=$argument ;;
    esac
done
[[ $worker == all ]] && workers="0 1" || workers=$worker
status=0
case $verb in
    describe)
        if [[ $source$target$* == *networkEndpoints* ]]; then echo 2; exit; fi
        cat "$WORLD/state" 2>/dev/null || { echo "ERROR: NOT_FOUND: no $name" >&2; exit 1; } ;;
    create) rm -rf "$WORLD"/host*; mkdir "$WORLD/host0" "$WORLD/host1"; echo READY >"$WORLD/state" ;;
    delete) rm "$WORLD/state" ;;
    scp) for i in $workers; do cp "$name" "$WORLD/host$i/${target#*:}"; done ;;
    ssh)
        [[ $(cat "$WORLD/state") == READY ]] || exit 255
        for i in $workers; do
            (cd "$WORLD/host$i" && HOME=$PWD bash -c "$command") || { s=$?; ((status)) || status=$s; }
        done
        [[ $(cat "$WORLD/state") == READY ]] || exit 255
        ;;
esac
exit $status
"""
# What a host has; `thinkprm` ends as the next line of `ends` says, or waits for a signal.
THINKPRM = r"""#!/usr/bin/env bash
echo "thinkprm $* in $PWD cache $THINKPRM_JAX_CACHE" >>"$WORLD/calls"
if [[ $1 == score ]]; then
    echo "of $JAX_PROCESS_ID/$JAX_NUM_PROCESSES, bounds $TPU_HOST_BOUNDS" >>"$WORLD/calls"
    [[ $* != *1/2* ]]; exit
fi
echo "step 1/94 on $HOME"
[[ $HOME == */host0 ]] || { sleep 1; exit 0; }
end=$(head -n 1 "$WORLD/ends"); sed -i 1d "$WORLD/ends"
case $end in
    preempted) sleep 0.3; echo PREEMPTED >"$WORLD/state"; exit 75 ;;
    wait) trap 'exit 75' TERM; while true; do sleep 0.05; done ;;
    *) exit "$end" ;;
esac
"""
UV = r"""#!/usr/bin/env bash
[[ $1 == venv ]] || exit 0
mkdir -p "$HOME/thinkprm/venv/bin" && cp "$WORLD/bin/thinkprm" "$HOME/thinkprm/venv/bin/"
"""
# A checkout whose HEAD is what is there.
GIT = r"""#!/usr/bin/env bash
for argument in "$@"; do
    [[ $argument != --output=* ]] || tar -czf "${argument#*=}" -C "$2" train/launch configs
done
"""
SUDO = """#!/usr/bin/env bash
echo "sudo $*" >>"$WORLD/calls"
case $1 in mount) touch "$WORLD/mounted" ;; mkdir) "$@" ;; esac
"""
MOUNTPOINT = """#!/usr/bin/env bash
[[ -e $WORLD/mounted ]]
"""


class World:
    """A folder with stand-ins on its PATH."""

    def __init__(self, folder: Path, **programs: str) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name, text in programs.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        self.environment = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(folder),
            "WORLD": str(folder),
        }

    def start(self, script: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(LAUNCH / script), *arguments],
            env=self.environment | variables,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, script: str, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        process = self.start(script, *arguments, **variables)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def calls(self, of: str) -> list[str]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(of)]
