"""How processes find each other and notice an end, with threads and loopback sockets in place of hosts."""

from __future__ import annotations

import queue
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import processes
from thinkprm_jax.distributed.rendezvous import Launch, ProcessGroup, find_launch, rendezvous
from thinkprm_jax.errors import UserError


def launches(*numbers: int, of: int) -> list[Launch]:
    address = processes.free_address()
    return [Launch(address, of, number, "test") for number in numbers]


def gather_all(members: list[Launch], timeout: float) -> list:
    """The links, or the refusal, of each."""

    def one(launch: Launch) -> object:
        try:
            return rendezvous(launch, timeout)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(one, members))


SLURM = {
    "SLURM_JOB_ID": "70000",
    "SLURM_STEP_NODELIST": "gpu[007-009,020],login",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
}


def test_what_the_environment_says() -> None:
    assert find_launch(environment={}) is None
    assert find_launch(environment={"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"}) is None  # sbatch without srun
    assert find_launch(environment=SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) is None
    found = find_launch(environment=SLURM)
    assert found == Launch(f"gpu007:{61440 + 70000 % 4096}", 4, 2, "SLURM")
    shared = SLURM | {"SLURM_STEP_TASKS_PER_NODE": "8(x4)", "SLURM_LOCALID": "5"}
    assert find_launch(environment=shared).local_devices == [5]
    assert find_launch(environment=shared | {"CUDA_VISIBLE_DEVICES": "3"}).local_devices is None
    given = {"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "1"}
    assert find_launch(environment=SLURM | given) == Launch("h:1", 3, 1, "JAX_* variables")
    assert find_launch("[::1]:2", 2, 0, environment=given).host_and_port == ("::1", 2)
    assert find_launch(environment=given | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("host:1", 2, None), "several processes: JAX_PROCESS_ID not given; all three or none"),
        (("host", 2, 0), "flags: the coordinator must be HOST:PORT, not 'host'"),
        (("host:1", 2, 2), "flags: there is no process 2 of 2; ids begin with 0"),
        (("host:1", "x", 2), "flags: 'x' is no whole number"),
    ],
)
def test_half_a_description_is_refused(given: tuple, message: str) -> None:
    with pytest.raises(UserError) as error:
        find_launch(*given, environment={})
    assert str(error.value) == message


def test_an_id_given_twice_is_one_line_for_everybody() -> None:
    said = gather_all(launches(0, 1, 1, of=3), timeout=10)
    host = socket.gethostname()
    assert said[0] == f"two processes have the id 1: one on {host}, one on {host}"
    assert sorted(said[1:]) == [f"process 1 of 3: {said[0]}"] * 2


def test_other_mistakes_at_the_start() -> None:
    (alone,) = launches(1, of=2)
    (said,) = gather_all([alone], timeout=0.5)
    assert said.startswith(f"process 1 of 2: no answer from the coordinator {alone.address} within 0 s (")
    said = gather_all(launches(0, 2, of=4), timeout=1)
    assert said[0] == "waited 1 s for process 1, 3 of 4"
    assert said[1] == f"process 2 of 4: {said[0]}"
    first = launches(0, of=2)[0]
    said = gather_all([first, Launch(first.address, 3, 1, "test")], timeout=10)
    assert said[0] == f"process 1 on {socket.gethostname()} knows of 3 processes, process 0 of 2"
    with socket.create_server(("", 0)) as taken:
        (said,) = gather_all([Launch(f"127.0.0.1:{taken.getsockname()[1]}", 2, 0, "test")], timeout=1)
    assert said.endswith("does another process 0 run on this host?")


@pytest.fixture
def trio() -> list[tuple[ProcessGroup, dict, queue.Queue]]:
    """Three joined processes: each with its links and what its watch reports."""
    members = launches(0, 1, 2, of=3)
    joined = []
    for launch, links in zip(members, gather_all(members, timeout=10), strict=True):
        heard: queue.Queue[str] = queue.Queue()
        joined.append((ProcessGroup(launch, links, heard.put), links, heard))
    return joined


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_an_end_is_heard_by_all(trio: list, lost: int) -> None:
    group, links, heard = trio[lost]
    group._stopped = True
    for link in links.values():
        link.socket.shutdown(socket.SHUT_RDWR)  # what the kernel does for an ended process
    for number in {0, 1, 2} - {lost}:
        line = trio[number][2].get(timeout=5)
        # Whoever hangs on process 0 hears that process 0 has ended, or what it passed on.
        assert line.startswith(f"process {lost} on {socket.gethostname()} has ended, so this one ends too; start")
    assert heard.empty()


def test_a_failure_is_passed_on_with_its_reason(trio: list) -> None:
    trio[2][0].break_off("the disk is full")
    for number in (0, 1):
        assert "process 2 on " in (line := trio[number][2].get(timeout=5))
        assert "has ended (the disk is full), so" in line


def test_the_clean_end_waits_for_all(trio: list) -> None:
    with ThreadPoolExecutor(3) as pool:
        leaving = [pool.submit(group.leave) for group, _, _ in trio[:2]]
        with pytest.raises(TimeoutError):
            leaving[1].result(timeout=0.3)
        pool.submit(trio[2][0].leave).result(timeout=5)
        for future in leaving:
            future.result(timeout=5)
    for _, links, _ in trio:
        for link in links.values():
            link.close()
    assert all(heard.empty() for _, _, heard in trio)
