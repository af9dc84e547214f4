"""A SLURM cluster of two nodes on this machine, in a folder of its own: python slurm_cluster.py COMMAND ...

Runs the command with SLURM_CONF set, then takes the cluster down. Needs the daemons of SLURM and munge (Debian:
``apt-get install slurmctld slurmd slurm-client munge``; with SLURM_TEST_INSTALL=1 this is done if they are missing) and
the rights of root, because slurmd starts the tasks of other users. Nothing outside the folder is read or changed.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "sinfo")
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

    Raises:
        Unavailable: programs or rights are missing, or the daemons do not come up.
    """
    _require_programs()
    folder = Path(folder)
    (folder / "state").mkdir()
    folder.chmod(0o755)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(host=socket.gethostname().split(".")[0], folder=folder, ports=_free_ports(3))
    )
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    munge_files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    munge_files.append(f"--socket={folder}/munge.socket")
    with ExitStack() as stack:
        stack.enter_context(_daemon(folder, environment, "munged", "--foreground", "--force", *munge_files))
        _wait(lambda: (folder / "munge.socket").exists(), "munged makes no socket", folder)
        stack.enter_context(_daemon(folder, environment, "slurmctld", "-D", "-i"))
        for node in ("127.0.0.1", "127.0.0.2"):
            stack.enter_context(_daemon(folder, environment, "slurmd", "-D", "-N", node))
        idle = ["sinfo", "--noheader", "--states=idle", "--format=%D"]
        _wait(lambda: _output(idle, environment) == "2", "the nodes do not become idle", folder)
        stack.callback(_end_jobs, environment)
        yield environment


def _require_programs():
    missing = [program for program in PROGRAMS if _path(program) is None]
    if missing and os.environ.get("SLURM_TEST_INSTALL") == "1":
        for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            installed = subprocess.run(["apt-get", *command], capture_output=True, text=True, check=False)
        missing = [program for program in PROGRAMS if _path(program) is None]
        if missing:
            raise Unavailable(f"SLURM could not be installed: {installed.stderr.strip()[-300:]}")
    if missing:
        raise Unavailable(f"no {', '.join(missing)}: apt-get install {' '.join(PACKAGES)}, or SLURM_TEST_INSTALL=1")
    if os.geteuid() != 0:
        raise Unavailable("slurmd needs the rights of root")


def _path(program):
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


@contextmanager
def _daemon(folder, environment, name, *arguments):
    with open(folder / "daemons.log", "a") as log:
        process = subprocess.Popen([_path(name), *arguments], stdout=log, stderr=log, env=environment)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_jobs(environment):
    subprocess.run(["scancel", "--user=root", "--full"], env=environment, check=False, capture_output=True)
    queue = ["squeue", "--noheader"]
    deadline = time.monotonic() + 30
    while _output(queue, environment) and time.monotonic() < deadline:
        time.sleep(0.5)


def _output(command, environment):
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    return finished.stdout.strip()


def _wait(is_true, problem, folder, timeout_sec=30):
    deadline = time.monotonic() + timeout_sec
    while not is_true():
        if time.monotonic() > deadline:
            raise Unavailable(f"{problem}: {(folder / 'daemons.log').read_text()[-1000:]}")
        time.sleep(0.2)


def _free_ports(number):
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        try:
            with slurm_cluster(temporary) as cluster:
                status = subprocess.run(sys.argv[1:], env=cluster, check=False).returncode
        except Unavailable as error:
            sys.exit(f"no SLURM here: {error}")
    sys.exit(status)
