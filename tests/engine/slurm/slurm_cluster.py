"""A SLURM cluster of two nodes on this machine, in a folder of its own.

Needs the daemons of SLURM and munge (Debian: ``apt-get install slurmctld slurmd slurm-client munge``; with
SLURM_TEST_INSTALL=1 this is done if they are missing) and the rights of root, because slurmd starts the tasks of other
users. Nothing outside the folder is read or changed.
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
# Neither cgroups nor a database: what a container has is enough. CPUs are said to be there, whatever the machine has.
# The nodes are named by addresses, so that their names lead somewhere. A job put back into the queue waits until
# its credentials expire, in seconds.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=20
NodeName=127.0.0.1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4
NodeName=127.0.0.2 NodeHostname={host} NodeAddr=127.0.0.2 Port={ports[2]} CPUs=4
PartitionName=test Nodes=127.0.0.[1-2] Default=YES State=UP
"""


class Unavailable(Exception):
    """There can be no cluster here; says why."""


@contextmanager
def slurm_cluster(folder):
    """Start a cluster; yield the environment for srun, sbatch and scancel; end its jobs and daemons.

    Args:
        folder: an empty folder, of a short path because the name of a socket in it may have 107 characters.
    """
    _require_programs()
    folder = Path(folder)
    (folder / "state").mkdir()
    folder.chmod(0o755)
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(host=socket.gethostname().split(".")[0], folder=folder, ports=_free_ports(3))
    )
    (folder / "munge.key").touch(mode=0o600)
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    munge_files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    daemons = [["munged", "--foreground", "--force", *munge_files, f"--socket={folder}/munge.socket"]]
    daemons += [["slurmctld", "-D", "-i"], *(["slurmd", "-D", "-N", f"127.0.0.{node}"] for node in (1, 2))]
    with ExitStack() as stack:
        for command in daemons:
            stack.enter_context(_daemon(folder, environment, command))
            _wait(lambda: (folder / "munge.socket").exists(), folder)
        _wait(lambda: _output(environment, "sinfo", "--noheader", "--states=idle", "--format=%D") == "2", folder)
        try:
            yield environment
        finally:
            _output(environment, "scancel", "--user=root", "--full")
            _wait(lambda: not _output(environment, "squeue", "--noheader"), folder)


def _require_programs():
    is_there = shutil.which("munged", path=_SEARCH_PATH) and shutil.which("slurmctld", path=_SEARCH_PATH)
    if not is_there and os.environ.get("SLURM_TEST_INSTALL") == "1":
        for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            is_there = subprocess.run(["apt-get", *command], capture_output=True, check=False).returncode == 0
    if not is_there:
        raise Unavailable(f"no SLURM: apt-get install {' '.join(PACKAGES)}, or SLURM_TEST_INSTALL=1")
    if os.geteuid() != 0:
        raise Unavailable("slurmd needs the rights of root")


_SEARCH_PATH = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"


@contextmanager
def _daemon(folder, environment, command):
    with open(folder / "daemons.log", "a") as log:
        program = shutil.which(command[0], path=_SEARCH_PATH)
        process = subprocess.Popen([program, *command[1:]], stdout=log, stderr=log, env=environment)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _output(environment, *command):
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    return finished.stdout.strip()


def _wait(is_true, folder, timeout_sec=30):
    deadline = time.monotonic() + timeout_sec
    while not is_true():
        if time.monotonic() > deadline:
            raise Unavailable(f"SLURM does not come up or end: {(folder / 'daemons.log').read_text()[-1000:]}")
        time.sleep(0.2)


def _free_ports(number):
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
