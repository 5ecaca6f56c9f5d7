"""The launchers, run for real with programs in place of gcloud, srun and kubectl that write down their calls."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from support.launchers import GCLOUD, GIT, LAUNCH, MOUNTPOINT, SUDO, THINKPRM, UV, World

RECIPE = "configs/train/r1_distill_1.5b.yaml"
SCRIPTS = [*sorted(LAUNCH.glob("*.sh")), *sorted(LAUNCH.glob("*.sbatch"))]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_it(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


# TPU VMs


@pytest.fixture
def cloud(tmp_path: Path) -> World:
    world = World(tmp_path, gcloud=GCLOUD, git=GIT, thinkprm=THINKPRM, uv=UV, sudo=SUDO, mountpoint=MOUNTPOINT)
    (world.folder / "shared").mkdir()
    world.environment |= {
        "TPU_NAME": "prm",
        "ZONE": "us-west4-a",
        "NFS": "10.0.0.2:/share",
        "SHARED": str(world.folder / "shared"),
        "PAUSE": "0",
    }
    return world


def ends(world: World, *how: str) -> None:
    (world.folder / "ends").write_text("".join(f"{end}\n" for end in how))


@pytest.mark.slow
def test_keep_makes_a_slice_anew_after_a_preemption_and_ends_with_the_run(cloud: World) -> None:
    ends(cloud, "preempted", "0")
    status, out, err = cloud.run("tpu_vm.sh", "keep", RECIPE, "seed=1", "model.tokenizer=a b'c", SPOT="1")
    assert status == 0, err
    assert "step 1/94 on" in out
    verbs = [line.split()[4] for line in cloud.calls("gcloud")]
    assert verbs.count("create") == 2
    assert verbs.count("delete") == 1
    create = next(line for line in cloud.calls("gcloud") if " create " in line)
    for option in (
        "--accelerator-type=v5litepod-16",
        "--version=v2-alpha-tpuv5-lite",
        "--spot",
        "--zone=us-west4-a",
    ):
        assert option in create
    programs = cloud.calls("thinkprm")
    assert len(programs) == 4  # two hosts, twice
    for line in programs:
        # Every argument arrives as it was given; relative paths are on the shared disk.
        assert line.startswith("thinkprm train --status-if-stopped 75 ")
        assert line.endswith(
            f"thinkprm/code/{RECIPE} seed=1 model.tokenizer=a b'c in {cloud.folder}/shared "
            f"cache {cloud.folder}/shared/compiled"
        )


def test_keep_does_not_repeat_what_was_refused(cloud: World) -> None:
    ends(cloud, "2")
    status, _, err = cloud.run("tpu_vm.sh", "keep", RECIPE)
    assert status == 2
    assert "the run was refused" in err


@pytest.mark.slow
def test_keep_gives_up_where_the_slice_is_well_and_the_run_is_not(cloud: World) -> None:
    ends(cloud, "1", "1", "1", "1")
    status, _, err = cloud.run("tpu_vm.sh", "keep", RECIPE)
    assert status == 2
    assert "three failures in a row (last exit status 1)" in err


def test_run_says_the_runs_status_and_stop_saves(cloud: World) -> None:
    ends(cloud, "wait")
    assert cloud.run("tpu_vm.sh", "create")[0] == 0
    assert cloud.run("tpu_vm.sh", "install")[0] == 0
    run = cloud.start("tpu_vm.sh", "run", RECIPE)
    while not all((cloud.folder / host / "thinkprm/pid").exists() for host in ("host0", "host1")):
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    status, _, err = cloud.run("tpu_vm.sh", "run", RECIPE)
    assert status == 2
    assert "a run is under way here" in err
    assert cloud.run("tpu_vm.sh", "stop")[0] == 0
    _, err = run.communicate(timeout=30)
    assert run.returncode == 75, err
    assert "exit status 75" in cloud.run("tpu_vm.sh", "logs")[1]


@pytest.mark.parametrize("missing", ["TPU_NAME", "ZONE", "NFS"])
def test_a_variable_that_is_missing_is_named(cloud: World, missing: str) -> None:
    status, _, err = cloud.run("tpu_vm.sh", "run", RECIPE, **{missing: ""})
    assert status
    assert f"set {missing}" in err
    assert not cloud.calls("gcloud")


def test_judge_gives_every_host_its_shard_and_ends_with_the_worst_status(cloud: World) -> None:
    assert cloud.run("tpu_vm.sh", "create")[0] == 0
    assert cloud.run("tpu_vm.sh", "install")[0] == 0
    arguments = ["score", "a b.jsonl", "--shard", "{shard}/{shards}", "--output", "out/{shard}.jsonl"]
    status, _, err = cloud.run("tpu_vm.sh", "judge", *arguments)
    assert status == 1, err
    assert sorted(call.split(" in ")[0] for call in cloud.calls("thinkprm")) == [
        f"thinkprm score a b.jsonl --shard {i}/2 --output out/{i}.jsonl" for i in (0, 1)
    ]
    # No host waits for the others of its slice.
    # No host shares an output with the others.
    assert sorted(cloud.calls("of ")) == [f"of {i}/1, bounds 1,1,1" for i in (0, 1)]
    cloud.run("tpu_vm.sh", "judge", "score", "in.jsonl", "--output", "out/")
    assert sorted(cloud.calls("of "))[1::2] == [f"of {i}/2, bounds 1,1,1" for i in (0, 1)]


def test_judge_wants_a_place_for_each_shard(cloud: World) -> None:
    status, _, err = cloud.run("tpu_vm.sh", "judge", "score", "in.jsonl", "--output", "out.jsonl")
    assert status == 2
    assert "no {shard} in the arguments" in err


# SLURM

# srun's process is the shell that would watch the tasks; scancel is what reaches them.
SRUN = r"""#!/usr/bin/env bash
echo "srun $*" >>"$WORLD/calls"
while [[ ! -e $WORLD/end ]]; do sleep 0.02; done
exit "$(cat "$WORLD/end")"
"""
SCANCEL = """#!/usr/bin/env bash
echo "scancel $*" >>"$WORLD/calls"
sleep 0.1
echo 75 >"$WORLD/end.new" && mv "$WORLD/end.new" "$WORLD/end"
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >>"$WORLD/calls"
"""


@pytest.fixture
def slurm(tmp_path: Path) -> World:
    world = World(tmp_path, srun=SRUN, scancel=SCANCEL, scontrol=SCONTROL)
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/thinkprm").touch(mode=0o755)
    world.environment |= {"SLURM_JOB_ID": "7", "VENV": str(tmp_path / "venv")}
    return world


def wait_for_srun(world: World, job: subprocess.Popen[str]) -> None:
    while not world.calls("srun"):
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)


def test_a_job_that_ends_says_the_runs_status(slurm: World) -> None:
    for end in ("0", "2", "1"):
        (slurm.folder / "end").write_text(end)
        assert slurm.run("slurm.sbatch", RECIPE, "seed=1")[0] == int(end)
    assert slurm.calls("srun")[0].endswith(f"/venv/bin/thinkprm train --status-if-stopped 75 {RECIPE} seed=1")
    assert not slurm.calls("scontrol")


def test_before_the_time_limit_a_job_saves_and_is_queued_again(slurm: World) -> None:
    job = slurm.start("slurm.sbatch", RECIPE)
    wait_for_srun(slurm, job)
    job.send_signal(signal.SIGUSR1)
    _, err = job.communicate(timeout=30)
    assert job.returncode == 0, err
    assert slurm.calls("scancel") == ["scancel --signal=TERM 7"]
    assert slurm.calls("scontrol") == ["scontrol requeue 7"]


def test_a_cancelled_job_waits_for_its_checkpoint_and_stays_away(slurm: World) -> None:
    job = slurm.start("slurm.sbatch", RECIPE)
    wait_for_srun(slurm, job)
    job.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert job.poll() is None
    (slurm.folder / "end").write_text("75")
    assert job.wait(timeout=30) == 0
    assert not slurm.calls("scontrol")


def test_the_batch_script_names_what_is_missing(slurm: World) -> None:
    assert "set VENV" in slurm.run("slurm.sbatch", RECIPE, VENV="")[2]
    assert "give a RECIPE" in slurm.run("slurm.sbatch")[2]
    status, _, err = slurm.run("slurm.sbatch", RECIPE, VENV="/nowhere")
    assert status == 2
    assert "no /nowhere/bin/thinkprm" in err


# What a task of an array is: a program that ends as `ends` says, or waits for a signal as thinkprm does.
TASK = r"""#!/usr/bin/env bash
printf '%s\n' "thinkprm" "$@" >>"$WORLD/arguments"
[[ -e $WORLD/ends ]] && exit "$(cat "$WORLD/ends")"
touch "$WORLD/waits"
trap 'exit 143' TERM
while true; do sleep 0.02; done
"""
ARRAY = {
    "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_COUNT": "8",
    "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "7",
}  # fmt: skip


@pytest.fixture
def array(slurm: World) -> World:
    (slurm.folder / "venv/bin/thinkprm").write_text(TASK)
    slurm.environment |= ARRAY
    return slurm


def test_a_task_of_an_array_judges_its_shard(array: World) -> None:
    (array.folder / "ends").write_text("1")
    status, _, err = array.run(
        "judge.sbatch", "score", "a b.jsonl", "--shard", "{shard}/{shards}", "--mesh", "auto"
    )
    assert status == 1, err
    assert (array.folder / "arguments").read_text().splitlines() == [
        "thinkprm", "score", "a b.jsonl", "--shard", "3/8", "--mesh", "auto",
    ]  # fmt: skip


def test_tasks_that_share_a_folder_have_one_command(array: World) -> None:
    (array.folder / "ends").write_text("3")
    assert array.run("judge.sbatch", "score", "in.jsonl", "--output", "judged/", SLURM_ARRAY_TASK_MIN="3")[0] == 3
    assert (array.folder / "arguments").read_text().split() == [
        "thinkprm",
        "score",
        "in.jsonl",
        "--output",
        "judged/",
    ]


@pytest.mark.parametrize("program", ["search", "collect", "evaluate"])
def test_tasks_of_other_programs_share_a_folder_too(array: World, program: str) -> None:
    (array.folder / "ends").write_text("0")
    assert array.run("judge.sbatch", program, "in.yaml", "--output-dir", "runs/one")[0] == 0


def test_a_task_whose_time_is_up_is_queued_again(array: World) -> None:
    job = array.start("judge.sbatch", "score", "in.jsonl", "--output", "{shard}.jsonl")
    while not (array.folder / "waits").exists():
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    _, err = job.communicate(timeout=30)
    assert job.returncode == 0, err
    assert array.calls("scontrol") == ["scontrol requeue 7_3"]


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["score", "in.jsonl"], {}, "no {shard} in the arguments"),
        (["evaluate", "arithmetic"], {}, "no folder that tasks of evaluate share"),
        (["score", "{shard}"], {"SLURM_ARRAY_TASK_COUNT": "2"}, "set SHARDS"),
        (["score", "{shard}"], {"SHARDS": "3"}, "there is no shard 3 of 3"),
        (["score", "{shard}"], {"SLURM_ARRAY_TASK_ID": ""}, "this is for sbatch --array"),
        ([], {}, "give a program"),
    ],
)
def test_an_array_names_what_is_missing(array: World, arguments, variables, said) -> None:
    status, _, err = array.run("judge.sbatch", *arguments, **variables)
    assert status
    assert said in err


def test_some_of_an_array_again_with_the_number_of_shards(array: World) -> None:
    (array.folder / "ends").write_text("0")
    few = {"SLURM_ARRAY_TASK_COUNT": "1", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "3"}
    assert array.run("judge.sbatch", "score", "{shard}/{shards}", SHARDS="8", **few)[0] == 0
    assert (array.folder / "arguments").read_text().splitlines() == ["thinkprm", "score", "3/8"]


# GKE

KUBECTL = """#!/usr/bin/env bash
echo "kubectl $*" >>"$WORLD/calls"
cat >"$WORLD/applied.yaml"
"""
GKE = {"IMAGE": "europe-docker.pkg.dev/p/r/thinkprm:1", "CLAIM": "disk"}


def test_the_jobset_of_a_v5e_16(tmp_path: Path) -> None:
    world = World(tmp_path, kubectl=KUBECTL)
    arguments = [
        "/opt/thinkprm/configs/train/r1_distill_1.5b.yaml",
        'data.train.chains="a&b.jsonl"',
        "output=x\\y",
    ]
    status, _, err = world.run("gke.sh", "apply", *arguments, **GKE)
    assert status == 0, err
    assert world.calls("kubectl") == ["kubectl apply -f -"]
    manifest = yaml.safe_load((tmp_path / "applied.yaml").read_text())
    assert (manifest["kind"], manifest["metadata"]["name"]) == ("JobSet", "thinkprm")
    (job,) = manifest["spec"]["replicatedJobs"]
    job = job["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    # Sixteen chips: four hosts with four each, all of them in one slice.
    assert job["completions"] == job["parallelism"] == 4
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
    assert container["command"] == ["thinkprm", "train", "--status-if-stopped", "75"]
    assert container["args"] == arguments
    assert container["image"] == GKE["IMAGE"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "disk"
    assert pod["volumes"][0]["name"] == container["volumeMounts"][0]["name"]
    # A refusal is final; Kubernetes allows these rules only where pods do not start again by themselves.
    assert pod["restartPolicy"] == "Never"
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert rule["onExitCodes"]["values"] == [2]
    assert "${" not in (tmp_path / "applied.yaml").read_text()[1000:]


@pytest.mark.parametrize("missing", GKE)
def test_the_jobset_names_what_is_missing(tmp_path: Path, missing: str) -> None:
    status, out, err = World(tmp_path).run("gke.sh", "render", RECIPE, **(GKE | {missing: ""}))
    assert status
    assert f"set {missing}" in err
    assert not out


def test_the_jobset_that_judges(tmp_path: Path) -> None:
    world = World(tmp_path, kubectl=KUBECTL)
    arguments = [
        "score",
        "in.parquet",
        "--shard",
        "{shard}/{shards}",
        "--output",
        "{shard}.jsonl",
        "--model",
        "$x",
    ]
    status, _, err = world.run("gke.sh", "apply", *arguments, **GKE, HOSTS="6")
    assert status == 0, err
    (job,) = yaml.safe_load((tmp_path / "applied.yaml").read_text())["spec"]["replicatedJobs"]
    job = job["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert job["completions"] == job["parallelism"] == job["maxFailedIndexes"] == 6
    assert container["command"] == ["thinkprm"]
    # Kubernetes fills in $(SHARD); $$ is its $.
    expected = ["score", "in.parquet", "--shard", "$(SHARD)/6", "--output", "$(SHARD).jsonl", "--model", "$$x"]
    assert container["args"] == expected
    assert container["env"][0]["name"] == "SHARD"
    assert container["env"][2] == {"name": "JAX_NUM_PROCESSES", "value": "1"}
    _, out, _ = world.run("gke.sh", "render", "search", "r.yaml", **GKE, HOSTS="6")
    assert '{name: JAX_NUM_PROCESSES, value: "6"}' in out
    rules = {rule["onExitCodes"]["values"][0]: rule["action"] for rule in job["podFailurePolicy"]["rules"]}
    assert rules == {1: "FailIndex", 2: "FailJob"}


def test_a_jobset_that_judges_wants_a_place_for_each_shard(tmp_path: Path) -> None:
    status, out, err = World(tmp_path).run("gke.sh", "render", "score", "in.jsonl", **GKE)
    assert status == 2
    assert "no {shard} in the arguments" in err
    assert not out
