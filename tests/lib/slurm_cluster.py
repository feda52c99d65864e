"""How do the tests get a real Slurm? Brings a private one up in a folder of its own,
and takes it down.

Everything lives in the folder (configuration, keys, logs, spool) and works over the loopback only.
By hand: `python tests/lib/slurm_cluster.py FOLDER --nodes 2 --cpus 4`, then Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, Popen, TimeoutExpired, run

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = (
    *("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "mariadb-install-db"),
    *("sbatch", "srun", "squeue", "sinfo", "scancel", "scontrol", "sacct", "sacctmgr"),
)
DAEMONS = {
    "mariadbd",
    "munged",
    "slurmdbd",
    "slurmctld",
    "slurmscriptd",
    "slurmd",
    "slurmstepd",
}
LONGEST_BASE = 60  # a step's socket adds some 40 characters, and the kernel allows 107

BOTH_CONF = """\
SlurmUser=root
AuthInfo=socket={base}/run/munge
"""
SLURM_CONF = """\
ClusterName=zsg
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[slurmctld]}
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd.%n.pid
SlurmdLogFile={base}/log/steps.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# A node may claim more CPUs than the host has.
SlurmdParameters=config_overrides
# Tests wait for these: a batch job starts within 1 s, with the defaults within 10 s.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
ReturnToService=2
# Training on two cores keeps slurmd waiting for its turn.
MessageTimeout=30
MailProg=/bin/true
KillWait={kill_wait_s}
MaxArraySize={max_array_size}
MaxJobCount={max_jobs}
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports[slurmdbd]}
# The clients of slurmdbd look for munge here, not in AuthInfo.
AccountingStoragePass={base}/run/munge
GresTypes=gpu
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=60 PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=60 PriorityTier=10
"""
SLURMDBD_CONF = """\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports[slurmdbd]}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
PidFile={base}/run/slurmdbd.pid
"""


class ClusterError(RuntimeError):
    """The test cluster did not start, did not answer or did not end; the message quotes the log."""


def missing_programs() -> list[str]:
    """The programs a test cluster needs and this host lacks; none missing means it can start."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


def conf_files(
    base: Path,
    host: str,
    host_address: str,
    ports: dict[str, int],
    cpus: int,
    gpus: int,
    **limits: int,
) -> dict[str, str]:
    """The text of slurm.conf, slurmdbd.conf and gres.conf, by name; `ports` names
    daemons and nodes."""
    both = BOTH_CONF
    if host_address == "127.0.0.1":  # or Slurm would bind where nobody calls it
        both += "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny\n"
    shape = f"CPUs={cpus} RealMemory=4000" + (f" Gres=gpu:a800:{gpus}" if gpus else "")
    nodes = [name for name in ports if name not in DAEMONS]
    node_lines = (
        f"NodeName={name} NodeAddr=127.0.0.1 Port={ports[name]} {shape}\n"
        for name in nodes
    )
    gpu_line = (
        f"Name=gpu Type=a800 File={base}/dev/nvidia[0-{gpus - 1}]\n" if gpus else ""
    )
    return {
        "slurm.conf": (
            (both + SLURM_CONF).format(base=base, host=host, ports=ports, **limits)
            + "".join(node_lines)
        ),
        "slurmdbd.conf": (both + SLURMDBD_CONF).format(base=base, ports=ports),
        "gres.conf": "AutoDetect=off\n" + gpu_line,
    }


def _free_ports(count: int) -> list[int]:
    # Below the kernel's ephemeral range, or an outgoing connection may take one before
    # its daemon does.
    free: list[int] = []
    for port in random.SystemRandom().sample(range(10_000, 32_000), 1_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    raise ClusterError(
        f"{count} free ports wanted on 127.0.0.1, {len(free)} found in 10000-32000"
    )


def _listening(port: int) -> bool:
    # Not by connecting: Slurm logs a connection that says nothing as an error.
    sockets = (
        line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
    )
    return any(s[1].endswith(f":{port:04X}") and s[3] == "0A" for s in sockets)


def processes_of(folder: Path) -> set[int]:
    """The ids of the live processes of the cluster in this folder: daemons, steps, and
    what jobs began."""
    parents, ours = {}, set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            state, parent = (
                (process / "stat").read_text().rpartition(")")[2].split()[:2]
            )
            if state == "Z":
                continue
            parents[int(process.name)] = int(parent)
            if _is_daemon(process, folder) or _is_task(process, folder):
                ours.add(int(process.name))
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return ours


def _is_daemon(process: Path, folder: Path) -> bool:
    # By its open files: slurmstepd's title overwrites its environment, and its parent is process 1.
    if (process / "comm").read_text().strip() not in DAEMONS:
        return False
    return any(path.startswith(f"{folder}/") for path in _open_files(process))


def _open_files(process: Path) -> Iterator[str]:
    for fd in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed while we looked
            yield str(fd.readlink())


def _is_task(process: Path, folder: Path) -> bool:
    # Clients carry SLURM_CONF too, but only what runs on a node knows that node's name.
    variables = (process / "environ").read_bytes().split(b"\0")
    on_a_node = any(variable.startswith(b"SLURMD_NODENAME=") for variable in variables)
    return on_a_node and f"SLURM_CONF={folder}/slurm.conf".encode() in variables


def end_processes(folder: Path, limit_s: float = 10) -> None:
    """Kills, by id, every process of the cluster in this folder; raises when one will not die."""
    deadline = time.monotonic() + limit_s
    while ours := processes_of(folder):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{folder}: processes {sorted(ours)} outlive SIGKILL; see `ps -fp`"
            )
        for pid in ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


class SlurmCluster:
    """A running Slurm, from `start` (or `with`) to `stop`; `daemons` holds its
    processes by name."""

    def __init__(
        self,
        folder: Path,
        nodes: int = 2,
        cpus: int = 4,
        gpus: int = 0,
        kill_wait_s: int = 30,
        max_array_size: int = 101,
        max_jobs: int = 10_000,
    ) -> None:
        self.folder = Path(folder).resolve()
        self.node_names = [f"n{i}" for i in range(1, nodes + 1)]
        self.env = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PATH}
        self.daemons: dict[str, Popen] = {}
        self._sizes = dict(
            cpus=cpus,
            gpus=gpus,
            kill_wait_s=kill_wait_s,
            max_array_size=max_array_size,
            max_jobs=max_jobs,
        )
        # the same place by a shorter name, where the path is too long for sockets
        self._base = self.folder
        self._ports: dict[str, int] = {}
        self._reaper: Popen | None = None

    def __enter__(self) -> SlurmCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when every node is idle; on any failure everything begun is ended first."""
        if missing := missing_programs():
            raise ClusterError(
                f"no test cluster without {', '.join(missing)}; install them first"
            )
        if os.getuid() != 0:
            raise ClusterError(
                "no test cluster without root: its daemons and its database expect it"
            )
        if self.folder.exists() and any(self.folder.iterdir()):
            raise ClusterError(
                f"{self.folder} is not empty; name a new folder for the cluster"
            )
        try:
            ports = self._prepare()
            self._start_database()
            self._start_slurm(ports)
        except BaseException:
            self.stop()
            raise

    def run(self, *argv: str, timeout_s: float = 120) -> str:
        """What a client command printed; it runs in the cluster's folder, and must exit with 0."""
        done = self._client(argv, timeout_s)
        if done.returncode:
            raise ClusterError(
                f"{' '.join(argv)}: exit {done.returncode}\n{done.stderr.strip()}"
            )
        return done.stdout

    def start_node(self, name: str) -> None:
        """Starts the slurmd of one node, at first or after a test has killed it."""
        if killed := self.daemons.get(name):
            killed.wait(10)
        self._spawn(name, "slurmd", "-D", "-N", name)

    def start_requeued(self) -> None:
        """Lets requeued jobs start: Slurm holds them for two minutes. At once, nodes
        would refuse them."""
        rows = self.run(
            "squeue", "-hrt", "PENDING", "-O", "JobArrayID:40,RestartCnt"
        ).splitlines()
        for job in [job for job, restarts in map(str.split, rows) if int(restarts)]:
            # a job's credentials of the seconds when it was stopped are revoked
            time.sleep(3)
            # it may have started
            self._client(("scontrol", "update", f"jobid={job}", "StartTime=now"), 60)

    def stop_controller(self) -> None:
        """Ends slurmctld as a restart does; jobs and nodes live on."""
        self.daemons["slurmctld"].terminate()
        self.daemons["slurmctld"].wait(30)

    def start_controller(self) -> None:
        """Starts slurmctld, at first or after `stop_controller`; it listens when this returns."""
        self._spawn("slurmctld", "slurmctld", "-D")
        self._wait(
            "slurmctld", "its port", lambda: _listening(self._ports["slurmctld"])
        )

    def stop(self) -> None:
        """Cancels all jobs and ends every process of this cluster; harmless when there is none."""
        if self._reaper is None:
            return
        self._cancel_jobs()
        for daemon in self.daemons.values():
            # nothing of it is used again, so there is nothing to close gently
            daemon.kill()
        end_processes(self.folder)
        for daemon in self.daemons.values():
            daemon.wait()
        self._reaper.communicate()  # it removes the shorter name
        self._reaper = None
        shutil.rmtree(self.folder / "db", ignore_errors=True)  # 100 MB

    def _prepare(self) -> dict[str, int]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for name in (
            "log",
            "run",
            "tmp",
            "state",
            "dev",
            *(f"spool/{n}" for n in self.node_names),
        ):
            (self.folder / name).mkdir(parents=True)
        if len(str(self.folder)) > LONGEST_BASE:
            self._base = Path(tempfile.mkdtemp(prefix="zsg-", dir="/tmp")) / "slurm"
            self._base.symlink_to(self.folder)
        # Should we be killed, its pipe to this process closes, and it ends the cluster
        # in our stead.
        reap = (
            sys.executable,
            "-I",
            __file__,
            str(self.folder),
            "--reap",
            str(self._base),
        )
        self._reaper = Popen(reap, stdin=PIPE, start_new_session=True)
        # slurmd counts distinct devices; these are all /dev/null
        for i in range(self._sizes["gpus"]):
            os.mknod(
                self.folder / f"dev/nvidia{i}", stat.S_IFCHR | 0o666, os.makedev(1, 3)
            )
        listeners = ["slurmdbd", "slurmctld", *self.node_names]
        ports = self._ports = dict(
            zip(listeners, _free_ports(len(listeners)), strict=True)
        )
        host = socket.gethostname()
        texts = conf_files(
            self._base,
            host.partition(".")[0],
            socket.gethostbyname(host),
            ports,
            **self._sizes,
        )
        for name, text in texts.items():
            self._write(name, text.encode())
        self._write("munge.key", os.urandom(128))
        return ports

    def _write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        # private before it holds anything; the daemons insist on it
        path.touch(mode=0o600)
        path.write_bytes(content)

    def _start_database(self) -> None:
        base, at = self._base, f"{self._base}/run"
        munge = (
            f"--key-file={base}/munge.key",
            f"--socket={at}/munge",
            f"--seed-file={at}/seed",
        )
        # --force: munged would have the whole machine reach its socket, we would not.
        self._spawn(
            "munged",
            "munged",
            "--foreground",
            "--force",
            f"--pid-file={at}/munged.pid",
            *munge,
        )
        # A server that starts removes every temporary table in its folder for these: in
        # /tmp also another cluster's.
        own = (
            "--no-defaults",
            f"--datadir={base}/db",
            "--user=root",
            f"--tmpdir={base}/tmp",
            "--innodb-log-file-size=8M",
        )
        self._spawn("install", "mariadb-install-db", *own, "--skip-test-db")
        if self.daemons["install"].wait(60):
            raise self._failure("install", "the database could not be created")
        listen = (
            "--skip-networking",
            f"--socket={at}/database",
            f"--pid-file={at}/mariadbd.pid",
        )
        self._spawn(
            "mariadbd", "mariadbd", *own, *listen, "--innodb-flush-log-at-trx-commit=0"
        )
        self._wait("munged", "its socket", Path(at, "munge").exists)
        self._wait("mariadbd", "its socket", Path(at, "database").exists)

    def _start_slurm(self, ports: dict[str, int]) -> None:
        self._spawn(
            "slurmdbd", "slurmdbd", "-D", MYSQL_UNIX_PORT=f"{self._base}/run/database"
        )
        self._wait("slurmdbd", "its port", lambda: _listening(ports["slurmdbd"]))
        self.run("sacctmgr", "-i", "add", "cluster", "zsg")
        self.start_controller()
        for name in self.node_names:
            self.start_node(name)
        for name in self.node_names:
            self._wait(
                name, "its node to be idle", lambda name=name: self._is_idle(name)
            )

    def _is_idle(self, name: str) -> bool:
        return (
            self._client(
                ("sinfo", "-h", "-p", "main", "-n", name, "-o", "%t"), 30
            ).stdout.strip()
            == "idle"
        )

    def _spawn(self, name: str, *argv: str, **variables: str) -> None:
        # A session of its own, for Ctrl-C in the terminal is meant for the tests.
        env = {**self.env, **variables}
        with self._log(name).open("ab") as log:
            self.daemons[name] = Popen(
                argv,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=self.folder,
                start_new_session=True,
            )

    def _client(self, argv: tuple[str, ...], timeout_s: float) -> CompletedProcess[str]:
        # Within an outer Slurm job, its SLURM_JOB_ID would send our srun to the wrong cluster.
        env = {
            k: v for k, v in os.environ.items() if not k.startswith("SLURM")
        } | self.env
        return run(
            argv,
            env=env,
            cwd=self.folder,
            timeout=timeout_s,
            stdin=DEVNULL,
            capture_output=True,
            text=True,
        )

    def _wait(
        self, name: str, what: str, ready: Callable[[], bool], limit_s: float = 30
    ) -> None:
        deadline = time.monotonic() + limit_s
        while not ready():
            if (status := self.daemons[name].poll()) is not None:
                raise self._failure(
                    name, f"waited for {what}, but it ended with status {status}"
                )
            if time.monotonic() > deadline:
                raise self._failure(
                    name, f"waited for {what}, in vain after {limit_s} s"
                )
            time.sleep(0.05)

    def _failure(self, name: str, what: str) -> ClusterError:
        log = self._log(name)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        return ClusterError(
            f"{name}: {what}. The other logs are in {log.parent}; {log.name} ends:\n{tail}"
        )

    def _log(self, name: str) -> Path:
        return self.folder / "log" / f"{name}.log"

    def _cancel_jobs(self) -> None:
        # Only so that jobs end as jobs do; what ignores it, or cannot be asked, is
        # killed afterwards.
        if (
            "slurmctld" not in self.daemons
            or self.daemons["slurmctld"].poll() is not None
        ):
            return
        with contextlib.suppress(TimeoutExpired):
            for partition in ("main", "urgent"):
                self._client(("scancel", "-p", partition), 3)
            deadline = time.monotonic() + 3
            while (
                self._client(("squeue", "-h"), 3).stdout and time.monotonic() < deadline
            ):
                time.sleep(0.2)


def _reap(folder: Path, base: Path) -> None:
    # returns when the owner has stopped the cluster, or has died
    sys.stdin.buffer.read()
    end_processes(folder)
    if base != folder:
        shutil.rmtree(base.parent)


def main() -> None:
    """Keeps a cluster up until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "folder", type=Path, help="a new or empty folder for the cluster"
    )
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("--gpus", type=int, default=0, help="pretend GPUs per node")
    parser.add_argument("--reap", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reap:
        _reap(args.folder, args.reap)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        with SlurmCluster(args.folder, args.nodes, args.cpus, args.gpus) as cluster:
            print(
                *(f'export {name}="{value}"' for name, value in cluster.env.items()),
                sep="\n",
            )
            print("ready", flush=True)
            signal.pause()


if __name__ == "__main__":
    main()
