"""Runs programs that a model wrote where they can do no harm, or refuses: HumanEval's
tests need it.

A sandbox is a set of Linux namespaces, made by bubblewrap or by util-linux's unshare:
no network, no files but Python's own and a small /tmp in memory, processes that see and
signal each other only, and go with their first. Within it sandbox_worker.py gives up
all rights, sets the limits and examines a program. Nothing outlives an exam, on disk or
in memory.
"""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from jobs.evaluating import sandbox_worker
from jobs.files.paths import find_home
from zsg_core.errors import ClusterError, UserError
from zsg_core.side_by_side import map_side_by_side

NO_VERDICT = "no verdict"  # how a verdict begins that nobody gave
# what a busy machine may need to start an exam, before its own wall clock runs
START_S = 30.0
GRACE_S = 2.0  # after which an examiner that has not heard its own clock is ended
POLL_S = 0.25
FIRST_UID = 2_000_000_000  # users that no machine has, for exams that root starts
ELSEWHERE = (
    "`zsg answers export` writes the answers to a file, for running them elsewhere, and `zsg score`"
    " reads the scores"
)


class NoSandbox(ClusterError):
    """This machine offers no isolation that holds; the message says what is missing in
    each that was tried."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may use. The wall clock is that of HumanEval, 3 s.

    `memory_mb` and the size of a file are per process, so that an exam may take
    `processes` times as much; `disk_mb` and `files` are all that /tmp holds. As many
    exams run at once as there are CPUs.
    """

    wall_s: float = 3.0
    memory_mb: int = 512
    disk_mb: int = 16
    files: int = 4096
    processes: int = 8

    def spec(self) -> dict[str, Any]:
        """As jobs.evaluating.sandbox_worker reads them."""
        return {
            "wall_s": self.wall_s,
            "cpu_s": math.ceil(self.wall_s) + 1,
            "memory_bytes": self.memory_mb << 20,
            "disk_bytes": self.disk_mb << 20,
            "files": self.files,
            "processes": self.processes,
        }


@dataclass(frozen=True, kw_only=True)
class Exam:
    """A program and its tests: `test` defines `check(candidate)`, and may use what
    `prompt` defines."""

    program: str
    entry_point: str
    prompt: str
    test: str


@dataclass(frozen=True)
class Verdict:
    """Whether a program passed its tests, and if not, why."""

    passed: bool
    why: str


@dataclass(frozen=True)
class Sandbox:
    """A way of isolation that has been proven on this machine."""

    name: str
    limits: Limits
    room: "Room"
    wrap: Callable[["Room", Limits], list[str]]
    uids: "count[int] | None" = field(
        default_factory=lambda: _users() if is_real_root() else None
    )

    def run(self, exam: Exam) -> Verdict:
        """The verdict on one program; it is ended, with all it started, when this returns."""
        made = None if self.uids is None else [next(self.uids), next(self.uids)]
        end, leash = os.pipe()
        spec = {
            **self.limits.spec(),
            **self.room.spec(),
            "uids": made,
            "furnish": self.wrap is build_unshare_command,
            "leash": end,
        }
        command = [
            *self.wrap(self.room, self.limits),
            *self.room.python,
            _worker_source(),
            json.dumps(spec),
        ]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
            pass_fds=[end],
        )
        os.close(end)
        try:
            has_begun, answer = _followed(
                process, json.dumps(vars(exam)).encode(), self.limits.wall_s + GRACE_S
            )
        finally:
            # the first process of the namespace ends by that, and all others with it
            os.close(leash)
            _end(process)
        if answer is None and has_begun:
            return Verdict(
                False,
                f"took longer than {self.limits.wall_s:g} s, and its examiner with it",
            )
        if answer is None:
            return Verdict(False, f"{NO_VERDICT} in time")
        said, complaint = answer
        try:
            told = json.loads(said.removeprefix(_BEGUN))
            return Verdict(told["passed"] is True, str(told["why"]))
        except (ValueError, TypeError, KeyError):
            return Verdict(
                False,
                f"no verdict (exit {process.returncode}):"
                f" {complaint.decode(errors='replace')[-300:]}",
            )

    def run_all(
        self, exams: Sequence[Exam], workers: int | None = None
    ) -> list[Verdict]:
        """The verdicts on several, as many at once as this process may use CPUs.

        NoSandbox if the machine has ceased to give verdicts: then a program that has
        none need not have failed.
        """
        threads = workers or len(os.sched_getaffinity(0))
        verdicts = map_side_by_side(self.run, exams, threads)
        if (
            any(one.why.startswith(NO_VERDICT) for one in verdicts)
            and not (proof := self.run(build_trial(self.limits.files))).passed
        ):
            raise NoSandbox(
                f"the sandbox of {self.name} no longer holds on this machine: {proof.why}"
            )
        return verdicts


def find_sandbox(
    *,
    allowed: bool,
    limits: Limits | None = None,
    ways: "Mapping[str, Way] | None" = None,
) -> Sandbox:
    """The first way of isolation that a program cannot break out of, tried for real on
    this machine.

    `allowed` is the grid's `allow_code_execution`; UserError without it. NoSandbox,
    with what is missing, where none holds.
    """
    if not allowed:
        raise UserError(
            "HumanEval runs code that a model wrote, which is off unless the grid says"
            f" `allow_code_execution: true`. Or {ELSEWHERE}"
        )
    missing = []
    for name, (program, wrap) in (ways or WAYS).items():
        if shutil.which(program) is None:
            missing.append(f"{name}: the program {program} is not installed")
            continue
        sandbox = Sandbox(name, limits or Limits(), Room.here(), wrap)
        proof = sandbox.run(build_trial(sandbox.limits.files))
        if proof.passed:
            return sandbox
        missing.append(f"{name}: {proof.why}")
    raise NoSandbox(
        f"this machine offers no isolation to run a model's code in ({'; '.join(missing)}). Either"
        " user namespaces must be allowed (sysctl user.max_user_namespaces) or bubblewrap"
        f" installed. Or {ELSEWHERE}"
    )


# ---- what a program may see


ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


@dataclass(frozen=True)
class Room:
    """The files in a sandbox: (source, target) of what is bound into it, (points at,
    link), and how Python starts."""

    binds: list[tuple[str, str]]
    links: list[tuple[str, str]]
    python: list[str]

    @classmethod
    def here(cls) -> "Room":
        """This Python, its standard library, numpy where it is installed (HumanEval
        asks for it), and no more."""
        program = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        base = os.path.realpath(sys.base_prefix)
        binds, links = [], []
        for name in (
            "/usr/bin",
            "/usr/lib",
            "/usr/lib64",
            "/bin",
            "/lib",
            "/lib64",
            f"{base}/bin",
            f"{base}/lib",
        ):
            path = Path(name)
            if path.is_symlink():
                links.append((str(path.readlink()), name))
            elif path.is_dir() and name not in {source for source, _ in binds}:
                binds.append((name, name))
        if not any(program.startswith(f"{source}/") for source, _ in binds):
            binds.append((program, program))
        if Path("/etc/ld.so.cache").is_file():
            binds.append(("/etc/ld.so.cache", "/etc/ld.so.cache"))
        binds += [(str(path), f"/site/{path.name}") for path in _numpy()]
        return cls(binds, links, [program, "-I", "-S", "-c"])

    def spec(self) -> dict[str, Any]:
        """As jobs.evaluating.sandbox_worker reads it."""
        return {"binds": self.binds, "links": self.links, "devices": DEVICES}


def _numpy() -> list[Path]:
    found = find_spec("numpy")
    package = Path(found.origin).parent if found and found.origin else None
    return (
        []
        if package is None
        else [
            path for path in (package, package.parent / "numpy.libs") if path.is_dir()
        ]
    )


def _worker_source() -> str:
    return Path(__file__).with_name("sandbox_worker.py").read_text(encoding="utf-8")


# ---- ways of isolation


def is_real_root() -> bool:
    """Whether this is the machine's root, whom no limit on processes holds: he hands
    each exam to another user."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == [
        "0",
        "0",
        "4294967295",
    ]


def _users() -> "count[int]":
    """Users for exams: others than those of any zsg beside this one, as a user's
    processes are counted together."""
    return count(FIRST_UID + os.getpid() % 100_000 * 1_000)


def build_bubblewrap_command(room: Room, limits: Limits) -> list[str]:
    """A command in a room that bubblewrap furnishes."""
    is_root = is_real_root()
    return [
        "bwrap",
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--unshare-cgroup-try",
        "--die-with-parent",
        "--as-pid-1",
        "--cap-drop",
        "ALL",
        *_list_rights(is_root),
        *(_list_folder_options(room) if is_root else []),
        *_list_mounts(room),
        "--size",
        str(limits.disk_mb << 20),
        *(["--perms", "1777"] if is_root else []),
        "--tmpfs",
        "/tmp",
        "--remount-ro",
        "/",
        "--",
    ]


def _list_rights(is_root: bool) -> list[str]:
    """The rights with which the worker starts: to limit the files in /tmp it mounts that
    again, and as root it changes users. It gives up all of them before a program is there
    to run."""
    if not is_root:
        return ["--unshare-user", "--cap-add", "CAP_SYS_ADMIN"]
    names = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID")
    return [word for name in names for word in ("--cap-add", name)]


def _list_folder_options(room: Room) -> list[str]:
    """Makes the folders above all mounts readable: root hands over to users that do not
    own them."""
    folders = {
        str(folder): None
        for _, target in room.binds
        for folder in [*Path(target).parents][::-1]
    }
    return [word for folder in folders for word in ("--perms", "0755", "--dir", folder)]


def _list_mounts(room: Room) -> list[str]:
    """The arguments of bubblewrap for what the room shows: folders without the right to
    write, links, and the few devices that programs expect. Their order is that of the
    command line, where a later mount covers an earlier one."""
    mounts = [("--ro-bind", source, target) for source, target in room.binds]
    mounts += [("--symlink", points_at, link) for points_at, link in room.links]
    mounts += [("--dev-bind", device, device) for device in DEVICES]
    return [word for words in mounts for word in words]


def build_unshare_command(room: Room, limits: Limits) -> list[str]:
    """A command in namespaces of its own, which furnishes its room itself."""
    user = [] if is_real_root() else ["--user", "--map-root-user"]
    return [
        "unshare",
        *user,
        "--mount",
        "--ipc",
        "--net",
        "--uts",
        "--pid",
        "--fork",
        "--kill-child=KILL",
        "--",
    ]


# the program it needs, the words before the command
Way = tuple[str, Callable[[Room, Limits], list[str]]]
WAYS: dict[str, Way] = {
    "bubblewrap": ("bwrap", build_bubblewrap_command),
    "namespaces": ("unshare", build_unshare_command),
}


_BEGUN = f"{sandbox_worker.BEGUN}\n".encode()


def _followed(
    process: subprocess.Popen[bytes], exam: bytes, most_s: float
) -> tuple[bool, tuple[bytes, bytes] | None]:
    """Whether an examiner has begun, and what it said and complained; None where it did
    not end in time.

    It may take START_S to begin, and `most_s` from then on: its own clock waits for
    whatever runs in C.
    """
    given: bytes | None = exam
    has_begun, until = False, time.monotonic() + START_S
    while True:
        try:
            answer = process.communicate(
                given, min(POLL_S, max(0.0, until - time.monotonic()))
            )
            return answer[0].startswith(_BEGUN), answer
        except subprocess.TimeoutExpired as late:
            given = None  # is being written still
            if not has_begun and (late.output or b"").startswith(_BEGUN):
                has_begun, until = True, time.monotonic() + most_s
            if time.monotonic() >= until:
                return has_begun, None


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.communicate()


# ---- the proof


def build_trial(most_files: int = Limits.files) -> Exam:
    """A program that tries to break out, and a test that fails with what it could do."""
    home = find_home() or Path("/")
    seen = [
        str(path)
        for folder in {home, Path.cwd(), Path(__file__).parent}
        for path in _names(folder)
    ]
    return Exam(
        program=BREAK_OUT.replace("SEEN", repr(seen)).replace(
            "MOST_FILES", str(most_files)
        ),
        entry_point="could",
        prompt="def could():\n    pass\n",
        test=(
            "def check(candidate):\n    found = candidate()\n    assert not found, f'a program"
            " could {found}'\n"
        ),
    )


def _names(folder: Path) -> list[Path]:
    """What is in a folder, but for what leads to the Python that a program needs."""
    try:
        return [
            path
            for path in folder.iterdir()
            if not Path(sys.base_prefix).is_relative_to(path)
        ][:100]
    except OSError:
        return []


BREAK_OUT = """
import ctypes, os, resource, socket

def could():
    done = []

    def tries(what, do):
        try:
            if do():
                done.append(what)
        except (OSError, MemoryError):
            pass

    def write(folder):
        os.close(os.open(folder + "/written", os.O_CREAT | os.O_WRONLY))
        return True

    def more_processes():
        most, ids = resource.getrlimit(resource.RLIMIT_NPROC)[0], []
        read, hold = os.pipe()
        try:
            while len(ids) <= most:
                one = os.fork()
                if not one:
                    os.close(hold)
                    os.read(read, 1)
                    os._exit(0)
                ids.append(one)
        except OSError:
            pass
        os.close(hold)
        for one in ids:
            os.waitpid(one, 0)
        return len(ids) > most

    def memory():
        return bytearray(resource.getrlimit(resource.RLIMIT_AS)[0])

    def disk():
        held = os.statvfs("/tmp")
        return held.f_blocks * held.f_frsize > resource.getrlimit(resource.RLIMIT_FSIZE)[0]

    def files():
        return not 0 < os.statvfs("/tmp").f_files <= MOST_FILES  # 0: without a limit

    tries("open a network socket", lambda: socket.socket(socket.AF_INET))
    tries(
        "see network interfaces",
        lambda: [name for _, name in socket.if_nameindex() if name != "lo"],
    )
    tries(
        "read the home or the work folder",
        lambda: [path for path in SEEN if os.path.lexists(path)],
    )
    for folder in ["/", "/etc", "/dev", "/site", os.path.dirname(os.__file__), "/usr", "/usr/lib"]:
        tries("write to " + folder, lambda: write(folder))
    tries("see other processes", lambda: os.path.exists("/proc/1"))
    tries("end its examiner", lambda: os.kill(1, 9) and False)
    tries("make a user namespace", lambda: ctypes.CDLL(None).unshare(0x10000000) == 0)
    tries("be root", lambda: os.setuid(0) is None and os.geteuid() == 0 and write("/etc"))
    tries("start more processes than its limit", more_processes)
    tries("use more memory than its limit", memory)
    tries("use more disk than its limit", disk)
    tries("make more files than its limit", files)
    return done
"""
