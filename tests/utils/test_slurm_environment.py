"""The variables of a SLURM job step in the words of torchrun."""

import pytest

from slowfast.utils.slurm import first_host, task_environment

STEP = {
    "SLURM_JOB_ID": "70123", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "9", "SLURM_LOCALID": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("node_list", "first"),
    [
        ("node1", "node1"),
        ("b,a", "b"),
        ("gpu[03-05,9],login", "gpu03"),
        ("rack[2,4]-node[001-004].example.org,x[1-2]", "rack2-node001.example.org"),
        ("10.0.0.[5-6]", "10.0.0.5"),
    ],
)
def test_first_host(node_list, first):
    assert first_host(node_list) == first


def test_task_of_a_step():
    found = task_environment(STEP)
    port = int(found.pop("MASTER_PORT"))
    assert found == {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu07"}
    # The same for all tasks, others for other jobs and for other steps, never one that the system hands out.
    assert int(task_environment({**STEP, "SLURM_PROCID": "3"})["MASTER_PORT"]) == port
    others = [
        task_environment({**STEP, **change})["MASTER_PORT"]
        for change in ({"SLURM_JOB_ID": "70124"}, {"SLURM_STEP_ID": "1"})
    ]
    assert len({str(port), *others}) == 3
    for job in range(0, 10**6, 997):
        assert 1024 < int(task_environment({**STEP, "SLURM_JOB_ID": str(job)})["MASTER_PORT"]) < 32768


def test_what_is_set_already_counts_more():
    chosen = task_environment({**STEP, "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "4242"})
    assert (chosen["MASTER_ADDR"], chosen["MASTER_PORT"]) == ("10.0.0.7", "4242")
    assert task_environment({**STEP, "RANK": "0", "WORLD_SIZE": "2"}) == {}  # torchrun inside a task


def test_alone():
    assert task_environment({}) == {}
    assert task_environment({**STEP, "SLURM_STEP_NUM_TASKS": "1"}) == {}
    # A batch script: SLURM says which tasks a step of it would have, but it is none.
    assert task_environment({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) == {}
