"""The program inside the sandbox: runs a candidate's code against its tests. Python gets
it as a text of its own, and knows nothing of zsg there.

Two processes. The examiner, the first of its namespace, holds the tests and gives the
verdict. The candidate, its child, is a process without rights in which the program
runs; the tests call its function through a socket that carries plain values only. So
nothing that the program prints, overrides or leaves behind can become a verdict: it
shares no memory with the tests, cannot read or end the examiner, and does not hold the
pipe that the verdict goes through.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, KeysView
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import CodeType
from typing import Any, NoReturn

MOST_BYTES = 16 << 20  # of one message
MOST_DIGITS = 250_000  # hexadecimal, of a whole number; HumanEval's have a few
# the same of a fraction's parts, of which Python computes what divides both
MOST_FRACTION = 25_000
BEGUN = "begun"  # a line of its own, from which on the exam's wall clock runs
# memory of the examiner, which must hold what the candidate answers
EXAMINER_BYTES = 1 << 30
_libc = ctypes.CDLL(None, use_errno=True)

# From linux/mount.h, linux/prctl.h, linux/seccomp.h and linux/filter.h.
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH, AT_RECURSIVE, AT_FDCWD = 2, 0x8000, -100
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 22, 24, 38
CAPABILITIES_V3 = 0x20080522
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
KILL, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
CLONE_NEW_ANY = 0x7E020000  # every kind of namespace
X32 = 0x40000000  # calls of another binary interface

# System calls that no program of a benchmark needs: what makes namespaces or mounts,
# memory that no limit counts, or a look into other processes. (audit architecture,
# numbers by name)
CALLS = {
    "x86_64": (
        0xC000003E,
        {
            "clone": 56,
            "clone3": 435,
            "socket": 41,
            "pivot_root": 155,
            "unshare": 272,
            "setns": 308,
            "mount": 165,
            "umount2": 166,
            "chroot": 161,
            "ptrace": 101,
            "shmget": 29,
            "msgget": 68,
            "semget": 64,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "bpf": 321,
            "perf_event_open": 298,
            "userfaultfd": 323,
            "memfd_create": 319,
            "memfd_secret": 447,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
            "io_uring_setup": 425,
            "open_tree": 428,
            "move_mount": 429,
            "fsopen": 430,
            "fsmount": 432,
            "mount_setattr": 442,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "clone": 220,
            "clone3": 435,
            "socket": 198,
            "pivot_root": 41,
            "unshare": 97,
            "setns": 268,
            "mount": 40,
            "umount2": 39,
            "chroot": 51,
            "ptrace": 117,
            "shmget": 194,
            "msgget": 186,
            "semget": 190,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "bpf": 280,
            "perf_event_open": 241,
            "userfaultfd": 282,
            "memfd_create": 279,
            "memfd_secret": 447,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
            "io_uring_setup": 425,
            "open_tree": 428,
            "move_mount": 429,
            "fsopen": 430,
            "fsmount": 432,
            "mount_setattr": 442,
        },
    ),
}


class Ended(Exception):
    """The candidate is gone, or does not keep to the form of an answer."""


class Late(BaseException):
    """The wall clock has run out."""


def main(spec: dict[str, Any]) -> NoReturn:
    """Puts up the walls that `spec` asks for, reads the exam from stdin and writes the
    verdict to stdout."""
    if spec["furnish"]:
        furnish_root(spec)
    else:
        limit_tmp(spec)
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        # Before the exam is read: a copy of this memory must not hold the tests.
        ours.close()
        run_candidate(theirs, spec)
    theirs.close()
    threading.Thread(target=end_with, args=(spec["leash"],), daemon=True).start()
    confine_process(
        spec["uids"] and spec["uids"][1], {resource.RLIMIT_AS: EXAMINER_BYTES}
    )
    # The candidate may be the same user: it must not read this memory, nor open the
    # pipe to the verdict's reader.
    _checked(_libc.prctl(PR_SET_DUMPABLE, 0), "dumpable")
    exam = json.load(sys.stdin)
    sys.stdout.write(f"{BEGUN}\n")
    sys.stdout.flush()
    why = examine_candidate(exam, ours, spec["wall_s"])
    sys.stdout.write(json.dumps({"passed": why is None, "why": why or "passed"}))
    sys.stdout.flush()
    os._exit(0)


def end_with(leash: int) -> None:
    """Ends this process, and so its namespace and all in it, as soon as nobody holds
    the other end of a pipe."""
    os.read(leash, 1)
    os._exit(1)


# ---- the examiner


def examine_candidate(
    exam: dict[str, str], channel: socket.socket, wall_s: float
) -> str | None:
    """Runs the tests on the candidate's function: None where they pass, else why not.

    The clock is a signal, which Python hears between two steps of its own; one step in
    C may take for ever. Whoever started the exam has a clock, too
    (jobs.evaluating.sandbox), and ends it soon after this one.
    """

    def late(*_: object) -> None:
        raise Late

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, wall_s)
    try:
        ask = make_asker(channel)
        ask({"program": exam["program"], "entry_point": exam["entry_point"]})
        function = wrap_candidate(ask)
        space: dict[str, Any] = {"__name__": "tests"}
        # what the tests use beside the function is not the program's
        exec(complete_prompt(exam["prompt"]), space)
        exec(exam["test"], space)
        space[exam["entry_point"]] = function
        space["check"](function)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return None
    except Late:
        return f"took longer than {wall_s:g} s"
    except Ended as ended:
        return str(ended)
    except BaseException as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        return describe_error(error)


def describe_error(error: BaseException) -> str:
    """An error's kind and text; of one that has no text, as one of a number with too
    many digits, the kind."""
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except Exception:
        return type(error).__name__


def complete_prompt(prompt: str) -> CodeType:
    """A prompt as a program; one that ends where a body must follow gets an empty one."""
    try:
        return compile(prompt, "prompt.py", "exec")
    except SyntaxError:
        return compile(f"{prompt}\n    pass\n", "prompt.py", "exec")


def make_asker(channel: socket.socket) -> Callable[[Any], Any]:
    """A function that sends a question to the candidate and returns its answer; Ended
    where there is none."""
    answers = channel.makefile("rb")

    def ask(question: Any) -> Any:
        try:
            channel.sendall(json.dumps(question).encode() + b"\n")
            line = answers.readline(MOST_BYTES)
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise Ended(
                "answered too much"
                if line
                else "the program ended before its tests did"
            )
        try:
            answer = json.loads(line)
            if "raised" in answer:
                raise Ended(str(answer["raised"])[:300])
            return unpack_value(answer["value"]), [
                unpack_value(one) for one in answer["arguments"]
            ]
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
            MemoryError,
        ) as error:
            raise Ended(
                f"no plain value was answered ({type(error).__name__})"
            ) from None

    return ask


def wrap_candidate(ask: Callable[[Any], Any]) -> Callable[..., Any]:
    """The candidate's function as the tests call it. What it does to lists, sets and
    dicts it is given is done here."""

    def function(*arguments: Any, **named: Any) -> Any:
        given = [*arguments, *named.values()]
        value, after = ask(
            {"arguments": [pack_value(one) for one in given], "named": list(named)}
        )
        for one, now in zip(given, after, strict=False):
            if (
                type(one) is type(now)
                and isinstance(one, (list, set, dict))
                and one != now
            ):
                one.clear()
                one.extend(now) if isinstance(one, list) else one.update(now)
        return value

    return function


# ---- the candidate


def run_candidate(channel: socket.socket, spec: dict[str, Any]) -> NoReturn:
    """Runs the program and answers calls of its function, until the examiner ends."""
    try:
        null = os.open("/dev/null", os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        kept = channel.fileno()
        os.closerange(3, kept)
        os.closerange(kept + 1, 1 << 20)
        os.setsid()
        os.chdir("/tmp")
        limits = {
            resource.RLIMIT_AS: spec["memory_bytes"],
            resource.RLIMIT_NPROC: spec["processes"],
            resource.RLIMIT_FSIZE: spec["disk_bytes"],
            resource.RLIMIT_CPU: spec["cpu_s"],
            resource.RLIMIT_NOFILE: 64,
            resource.RLIMIT_MSGQUEUE: 0,
        }
        confine_process(spec["uids"] and spec["uids"][0], limits)
        sys.path.append("/site")
        serve_calls(channel)
    except (
        BaseException
    ) as error:  # the walls did not go up: the first question is answered by that
        channel.sendall(
            json.dumps({"raised": f"{type(error).__name__}: {error}"}).encode() + b"\n"
        )
    finally:
        os._exit(1)


def serve_calls(channel: socket.socket) -> None:
    """One answer for each question: the value and the arguments as they are now, or
    what was raised."""
    space: dict[str, Any] = {"__name__": "program"}
    function: Callable[..., Any] | None = None
    for line in channel.makefile("rb"):
        try:
            question = json.loads(line)
            if function is None:
                exec(compile(question["program"], "program.py", "exec"), space)
                function = space[question["entry_point"]]
                answer: dict[str, Any] = {"value": None, "arguments": []}
            else:
                given = [unpack_value(one) for one in question["arguments"]]
                place = len(given) - len(question["named"])
                value = function(
                    *given[:place],
                    **dict(zip(question["named"], given[place:], strict=True)),
                )
                answer = {
                    "value": pack_value(value),
                    "arguments": [pack_value(one) for one in given],
                }
        except BaseException as error:
            answer = {"raised": f"{type(error).__name__}: {error}"[:300]}
        channel.sendall(json.dumps(answer).encode() + b"\n")


# ---- values


def pack_value(value: Any) -> Any:
    """A plain value as JSON that keeps types apart; TypeError for any other, as no
    object may cross over."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    for kind, name, pack in _PACKERS:
        if isinstance(value, kind):
            return [name, pack(value)]
    raise TypeError(f"a {type(value).__name__} is no plain value")


def _pack_items(values: Any) -> list[Any]:
    return [pack_value(value) for value in values]


# kind of value, its name, what is sent of it; the first that fits counts
_PACKERS: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
    (int, "int", hex),  # no limit on digits
    (float, "float", lambda value: value.hex()),
    (complex, "complex", lambda value: [value.real.hex(), value.imag.hex()]),
    ((bytes, bytearray), "bytes", lambda value: value.hex()),
    (
        range,
        "range",
        lambda value: [hex(value.start), hex(value.stop), hex(value.step)],
    ),
    (
        Fraction,
        "fraction",
        lambda value: [hex(value.numerator), hex(value.denominator)],
    ),
    (
        dict,
        "dict",
        lambda value: [[pack_value(k), pack_value(v)] for k, v in value.items()],
    ),
    (list, "list", _pack_items),
    (tuple, "tuple", _pack_items),
    ((set, KeysView), "set", _pack_items),
    (frozenset, "frozenset", _pack_items),
    (Iterator, "iterator", _pack_items),
)


def unpack_value(value: Any) -> Any:
    """The value that was packed. ValueError, TypeError or KeyError for anything else."""
    if value is None or isinstance(value, (bool, str)):
        return value
    kind, held = value
    return _MADE[kind](held)


def _int(text: str, most: int = MOST_DIGITS) -> int:
    if len(text) > most:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text, 16)


def _fraction(parts: list[str]) -> Fraction:
    numerator, denominator = parts
    return Fraction(_int(numerator, MOST_FRACTION), _int(denominator, MOST_FRACTION))


def _all(values: list[Any]) -> Iterator[Any]:
    return (unpack_value(one) for one in values)


_MADE: dict[str, Callable[[Any], Any]] = {
    "int": _int,
    "float": float.fromhex,
    "complex": lambda parts: complex(*map(float.fromhex, parts)),
    "bytes": bytes.fromhex,
    "range": lambda parts: range(*map(_int, parts)),
    "fraction": _fraction,
    "dict": lambda pairs: {
        unpack_value(key): unpack_value(held) for key, held in pairs
    },
    "list": lambda values: list(_all(values)),
    "tuple": lambda values: tuple(_all(values)),
    "set": lambda values: set(_all(values)),
    "frozenset": lambda values: frozenset(_all(values)),
    "iterator": lambda values: iter(list(_all(values))),
}


# ---- the walls


def confine_process(uid: int | None, limits: dict[int, int]) -> None:
    """Gives up all rights of this process and of its children, for good. OSError where
    that does not work."""
    for limit, most in {
        **limits,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }.items():
        resource.setrlimit(limit, (most, most))
    for capability in range(64):
        # may be denied: what is not permitted cannot be raised
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header, none = struct.pack("Ii", CAPABILITIES_V3, 0), bytes(24)
    _checked(_libc.capset(header, none), "capset")
    _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    forbid_calls()


def forbid_calls() -> None:
    """Denies the CALLS, and sockets but those of this machine's own files, to this
    process and its children."""
    architecture, numbers = CALLS[platform.machine()]
    rows = [
        (LOAD, 0, 0, 4),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),
    ]
    rows += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL)]
    # Without clone3, whose flags no filter can see, the C library makes threads by clone.
    rows += [(EQUAL, 0, 1, numbers["clone3"]), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    for name in sorted(numbers.keys() - {"clone", "clone3", "socket"}):
        rows += [(EQUAL, 0, 1, numbers[name]), (RETURN, 0, 0, ERRNO | errno.EPERM)]
    first = (LOAD, 0, 0, 16)  # the low half of the first argument
    rows += [
        (EQUAL, 0, 3, numbers["clone"]),
        first,
        (ANY_BIT, 0, 1, CLONE_NEW_ANY),
        (RETURN, 0, 0, ERRNO | errno.EPERM),
    ]
    rows += [
        (LOAD, 0, 0, 0),
        (EQUAL, 0, 3, numbers["socket"]),
        first,
        (EQUAL, 1, 0, socket.AF_UNIX),
    ]
    rows += [(RETURN, 0, 0, ERRNO | errno.EACCES), (RETURN, 0, 0, ALLOW)]
    program = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *row) for row in rows)
    )
    header = struct.pack("HP", len(rows), ctypes.addressof(program))
    _checked(_libc.prctl(PR_SET_SECCOMP, 2, header, 0, 0), "seccomp")


def furnish_root(spec: dict[str, Any]) -> None:
    """Makes a new root of what `spec` lists, in a mount namespace of one's own, and
    forgets the old one.

    As bubblewrap does: the new root, in memory, stands on /tmp while what it needs is
    bound into it.
    """
    # a job's own keeps others out, and the program is another user in here
    os.umask(0o022)
    mount_filesystem("none", "/", flags=MS_REC | MS_PRIVATE)
    mount_filesystem("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    Path("/tmp/old").mkdir()
    _checked(
        _libc.syscall(CALLS[platform.machine()][1]["pivot_root"], b"/tmp", b"/tmp/old"),
        "pivot_root",
    )
    os.chdir("/")
    for source, target in spec["binds"]:
        make_place(target, is_folder=Path(f"/old{source}").is_dir())
        mount_filesystem(f"/old{source}", target, flags=MS_BIND | MS_REC)
        make_read_only(target)
    for device in spec["devices"]:
        make_place(device, is_folder=False)
        mount_filesystem(f"/old{device}", device, flags=MS_BIND)
    for points_at, link in spec["links"]:
        Path(link).symlink_to(points_at)
    Path("/tmp").mkdir()
    mount_filesystem(
        "tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"{_of_tmp(spec)},mode=1777"
    )
    _checked(_libc.umount2(b"/old", MNT_DETACH), "umount of the old root")
    Path("/old").rmdir()
    mount_filesystem(
        "none", "/", flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV
    )


def limit_tmp(spec: dict[str, Any]) -> None:
    """Limits the files in a /tmp that bubblewrap mounted: it knows a limit of bytes
    alone, and empty files have none.

    Where that is not permitted, nothing is said: the trial of the sandbox finds it.
    """
    with suppress(OSError):
        mount_filesystem(
            "tmpfs", "/tmp", "tmpfs", MS_REMOUNT | MS_NOSUID | MS_NODEV, _of_tmp(spec)
        )


def _of_tmp(spec: dict[str, Any]) -> str:
    return f"size={spec['disk_bytes']},nr_inodes={spec['files']}"


def make_place(path: str, is_folder: bool) -> None:
    """A folder or an empty file to mount on."""
    place = Path(path)
    (place if is_folder else place.parent).mkdir(parents=True, exist_ok=True)
    if not is_folder:
        place.touch()


def make_read_only(target: str) -> None:
    """Forbids to write to a mount and, from Linux 5.12 on, to those within it, which
    others own by then anyway."""
    attributes = struct.pack("QQQQ", MS_RDONLY | MS_NOSUID, 0, 0, 0)
    number = CALLS[platform.machine()][1]["mount_setattr"]
    if _libc.syscall(
        number, AT_FDCWD, target.encode(), AT_RECURSIVE, attributes, len(attributes)
    ):
        # what a namespace inherits it cannot take away: nodev, noexec, …
        kept = os.statvfs(target).f_flag & 0x40F
        mount_filesystem("none", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def mount_filesystem(
    source: str,
    target: str,
    kind: str | None = None,
    flags: int = 0,
    data: str | None = None,
) -> None:
    """mount(2). OSError with what was to be mounted where."""
    words = [
        None if text is None else text.encode() for text in (source, target, kind, data)
    ]
    _checked(
        _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]),
        f"mount on {target}",
    )


def _checked(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main(json.loads(sys.argv[1]))
