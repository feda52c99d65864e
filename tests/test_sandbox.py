"""Does a model's code get a fair exam, and can it do nothing else?"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from jobs.evaluating import code_scores, sandbox, sandbox_worker
from jobs.evaluating.sandbox import Exam, Limits, Sandbox, Verdict
from tests.lib.hostile_programs import PROGRAMS
from tests.lib.requirements import need
from zsg_core.data.readers.evaluation import read_problems
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import BadData, UserError
from zsg_core.metrics.scoring import Answered

ROOT = Path(__file__).resolve().parent.parent
# by which this session's exams are told from those of another on this machine
OURS = os.getpid() % 1000 / 1000
PATIENT = Limits(wall_s=60 + OURS)  # where a busy machine must not decide
HASTY = Limits(wall_s=1 + OURS)


@pytest.fixture(scope="module", params=list(sandbox.WAYS))
def way(request: pytest.FixtureRequest) -> str:
    """Each way of isolation that this machine has."""
    return request.param


@cache
def found(way: str, limits: Limits = PATIENT) -> Sandbox:
    """The sandbox of a way; a test skips without it, or fails where ZSG_REQUIRE_SANDBOX is set."""
    try:
        return sandbox.find_sandbox(
            allowed=True, limits=limits, ways={way: sandbox.WAYS[way]}
        )
    except sandbox.NoSandbox as error:
        need("sandbox", [str(error)])
        raise


def exam(
    program: str,
    test: str = "assert candidate(1) == 2 and candidate(4) == 5",
    name: str = "f",
) -> Exam:
    """A program that should define f(x) = x + 1."""
    return Exam(
        program=program,
        entry_point=name,
        prompt="def f(x):\n    pass\n",
        test=f"def check(candidate):\n    {test}\n",
    )


@pytest.fixture(scope="module")
def verdicts(
    way: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Verdict]]:
    """What became of the hostile programs, run side by side; the machine must be
    afterwards as it was before."""
    patient, target = found(way), tmp_path_factory.mktemp("outside")
    hasty = replace(patient, limits=HASTY)
    (target / "held").write_text("as it was")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as local,
    ):
        local.bind(str(target / "socket"))
        local.listen()
        words = {
            "TARGET": str(target),
            "PORT": str(server.getsockname()[1]),
            "HOME": str(Path.home()),
        }
        # by whether the wall clock must end it
        exams: dict[bool, dict[str, Exam]] = {True: {}, False: {}}
        for name, (program, why) in PROGRAMS.items():
            for word, meant in words.items():
                program = program.replace(word, meant)
            exams["took longer" in why][name] = exam(program)
        before = machine(target)

        found_out: dict[str, Verdict] = {}
        for is_late, listed in exams.items():
            said = (hasty if is_late else patient).run_all(
                [*listed.values()], workers=8 if is_late else 2
            )
            found_out |= zip(listed, said, strict=True)
        yield found_out

        assert machine(target) == before
        for listener in (server, local):
            listener.settimeout(0)
            with pytest.raises(BlockingIOError):  # nobody came
                listener.accept()


def machine(target: Path) -> dict[str, object]:
    """What of a machine a program may not change."""
    return {
        "files": {path.name: path.stat().st_mtime_ns for path in target.iterdir()},
        "temporary": sorted(
            path.name
            for path in Path("/tmp").iterdir()
            if "harm" in path.name or path.name.isdigit()
        ),
        "mounts": [
            line
            for line in Path("/proc/self/mounts").read_text().splitlines()
            if not _is_of_a_test(line)
        ],
        "host": socket.gethostname(),
        "exams": exams_under_way(),
    }


def _is_of_a_test(mount: str) -> bool:
    """Whether another test of the suite, which runs beside this one, has mounted it for itself."""
    return "/pytest-of-" in mount.split()[1]


def exams_under_way() -> list[str]:
    """Processes of sandboxes: their arguments hold the limits."""
    ours = [json.dumps({"wall_s": limits.wall_s})[1:-1] for limits in (PATIENT, HASTY)]
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return [line[:80] for line in lines if any(mark in line for mark in ours)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hostile_program_does_not_pass(
    verdicts: dict[str, Verdict], name: str
) -> None:
    """It is stopped by the wall that is meant to stop it."""
    assert not verdicts[name].passed
    assert re.search(PROGRAMS[name][1], verdicts[name].why), verdicts[name].why


def test_nothing_of_a_sandbox_outlives_who_started_it(way: str, tmp_path: Path) -> None:
    """A job that is killed in the midst of an exam leaves no process behind."""
    found(way)
    script = (
        "import sys; from jobs.evaluating import sandbox; from tests_of_it import exam\nlimits ="
        f" sandbox.Limits(wall_s={PATIENT.wall_s}); ways = {{sys.argv[1]:"
        " sandbox.WAYS[sys.argv[1]]}\none = sandbox.find_sandbox(allowed=True, limits=limits, ways=ways);"
        " print('found', flush=True); one.run(exam)\n"
    )
    (tmp_path / "tests_of_it.py").write_text(
        f"from jobs.evaluating.sandbox import Exam\nexam = {exam('while True: pass')!r}\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with subprocess.Popen(
        [sys.executable, "-c", script, way], env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "found\n"
        until = time.monotonic() + 30
        while not exams_under_way() and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.2)
        process.kill()

    while exams_under_way() and time.monotonic() < until:
        time.sleep(0.05)
    assert exams_under_way() == []


FAIR = [
    ("def f(x):\n    return x + 1", "assert candidate(1) == 2", None),
    (
        "def f(x):\n    return x",
        "assert candidate(1) == 2, 'too small'",
        "AssertionError: too small",
    ),
    (
        "def f(x):\n    return [x, (1.5, None), {'a': {2}}, b'b', True, 1j]",
        "assert candidate('s') == ['s', (1.5, None), {'a': {2}}, b'b', True, 1j]",
        None,
    ),
    (
        "def f(x):\n    return (y for y in range(x))",
        "assert tuple(candidate(3)) == (0, 1, 2)",
        None,
    ),
    (
        "def f(x):\n    return (y for y in range(x))",
        "assert candidate(3) == [0, 1, 2]",
        "AssertionError",
    ),
    ("def f(x):\n    return 7 ** 9999", "assert candidate(0) == 7 ** 9999", None),
    (
        "from fractions import Fraction\ndef f(x):\n    return Fraction(7 ** 9999, 10 ** 9999)",
        "assert candidate(0) * 10 ** 9999 == 7 ** 9999",
        None,
    ),
    ("def f(x):\n    return float('nan')", "assert candidate(0) != candidate(0)", None),
    (
        "import numpy as np\ndef f(x):\n    return np.sum(np.arange(x))",
        "assert candidate(4) == 6",
        None,
    ),
    (
        "def f(x):\n    x.append(1)",
        "held = [0]; candidate(held); assert held == [0, 1]",
        None,
    ),
    ("def f(x, *, by):\n    return x + by", "assert candidate(1, by=2) == 3", None),
    ("def f(x):\n    return {}[x]", "assert candidate(1) == 2", "KeyError: 1"),
    ("def f(x):\n    return input()", "assert candidate(1) == 2", "EOFError"),
    ("def f(x):\n    return __name__", "assert candidate(1) != '__main__'", None),
    (
        "def f(x):\n    return open('/tmp/x', 'w').write('abc')",
        "assert candidate(1) == 3",
        None,
    ),
]


@pytest.mark.parametrize(("program", "test", "why"), FAIR)
def test_an_exam_is_fair(way: str, program: str, test: str, why: str | None) -> None:
    """Values keep their types, and what a call does to its arguments is seen by the
    test, as in one process."""
    verdict = found(way).run(exam(program, test))

    assert verdict == Verdict(why is None, verdict.why)
    assert verdict.why.startswith(why or "passed")


def test_an_exam_in_one_long_step_ends_soon_after_its_time(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examiner's own clock waits for code in C; whoever started it does not, and
    need not prove the walls anew."""
    monkeypatch.setattr(sandbox, "GRACE_S", 0.5)
    hasty = replace(found(way), limits=HASTY)
    since = time.monotonic()
    [verdict] = hasty.run_all(
        [exam("def f(x):\n    return range(10 ** 15)", "assert sum(candidate(1)) == 2")]
    )
    took = time.monotonic() - since

    assert not verdict.passed and verdict.why.startswith(
        f"took longer than {HASTY.wall_s:g} s, and its examiner"
    )
    assert took < HASTY.wall_s + 10, "not the 30 s that a machine may need to begin"


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (["int", "0x" + "f" * 250_000], "a number of 250002 digits"),
        (
            ["list", [["range", ["0x0", "0x" + "1" * 250_000, "0x1"]]]],
            "a number of 250002 digits",
        ),
        (["fraction", ["0x" + "f" * 25_000, "0x1"]], "a number of 25002 digits"),
    ],
)
def test_a_number_that_would_take_long_is_no_plain_value(
    packed: list, said: str
) -> None:
    """Before it is computed with: what divides both parts of a fraction takes the
    square of their digits."""
    with pytest.raises(ValueError, match=said):
        sandbox_worker.unpack_value(packed)


def test_an_error_without_a_text_is_told_by_its_kind() -> None:
    """As that of a key of more digits than Python writes."""
    assert sandbox_worker.describe_error(KeyError(10**5000)) == "KeyError"
    assert sandbox_worker.describe_error(KeyError(1)) == "KeyError: 1"


@pytest.mark.data
def test_published_sample_completions_score_as_published(
    way: str, real_data: Path
) -> None:
    """Three of six pass, so pass@1 is 0.5: one calls a shell, one sleeps for 10 s, one
    asks for input."""
    folder = real_data / "humaneval"
    (problem,) = read_problems(folder / "example_problem.jsonl", Intake())
    samples = [
        json.loads(line)["completion"]
        for line in (folder / "example_samples.jsonl").read_text().splitlines()
    ]
    answers = [
        Answered(id=problem.task_id, task="humaneval", prompt="p", answer=sample)
        for sample in samples
    ]
    room = found(way, Limits())

    assert [
        one.passed
        for one in room.run_all(
            [code_scores.build_exam(problem, one) for one in samples[2:]]
        )
    ] == [
        False,
        True,
        True,
        True,
    ]
    assert code_scores.score_answers(room, [problem], answers) == {
        "humaneval/pass_at_1": {"test/0": 50}
    }
    with pytest.raises(BadData, match="'else' is no problem"):
        code_scores.score_answers(
            room,
            [problem],
            [Answered(id="else", task="humaneval", prompt="p", answer="")],
        )


# Among them those whose tests use more than the function: 10, 32, 33, 38, 50, 53.
SOME = ("0", "10", "20", "32", "33", "38", "50", "53", "75", "129", "163")


@pytest.mark.data
def test_reference_solutions_pass_and_nothing_said_does_not(
    way: str, real_data: Path
) -> None:
    """Some of HumanEval's, and the prompts alone, which return None."""
    chosen = [
        one
        for one in read_problems(real_data / "humaneval", Intake())
        if one.task_id.split("/")[1] in SOME
    ]
    right = [
        code_scores.build_exam(problem, problem.canonical_solution)
        for problem in chosen
    ]
    verdicts = found(way).run_all(
        right + [code_scores.build_exam(problem, "") for problem in chosen]
    )

    assert [one.why for one in verdicts[: len(chosen)]] == ["passed"] * len(SOME)
    assert not any(one.passed for one in verdicts[len(chosen) :])


@pytest.mark.soak(part="users")
@pytest.mark.data
def test_all_reference_solutions_pass(way: str, real_data: Path) -> None:
    """The 164 of HumanEval, and none of the empty answers."""
    listed = list(read_problems(real_data / "humaneval", Intake()))
    room = found(way)

    verdicts = room.run_all(
        [
            code_scores.build_exam(problem, problem.canonical_solution)
            for problem in listed
        ]
    )

    assert [one.why for one in verdicts] == ["passed"] * 164
    assert not any(
        one.passed
        for one in room.run_all(
            [code_scores.build_exam(problem, "") for problem in listed]
        )
    )


def test_an_unprivileged_user_has_a_sandbox_too(
    way: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As whoever runs jobs on a cluster: in a user's namespaces, with the system's Python."""
    python = "/usr/bin/python3"
    if (
        os.geteuid() != 0
        or not Path(python).is_file()
        or shutil.which("setpriv") is None
    ):
        need(
            "user",
            [
                "root's rights to become another user, setpriv, and a Python that all may run"
            ],
        )
    found(way)
    folder = Path("/tmp") / f"zsg-sandbox-{os.getpid()}"  # where another user may read
    try:
        for package in ("jobs", "zsg_core"):
            shutil.copytree(
                ROOT / package,
                folder / package,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        script = (
            "import sys\nfrom jobs.evaluating import sandbox\none = sandbox.find_sandbox(allowed=True,"
            " ways={sys.argv[1]: sandbox.WAYS[sys.argv[1]]})\nprint(one.name,"
            " sandbox.is_real_root(), one.run(sandbox.Exam(program='def f(x): return x',"
            " entry_point='f', prompt='', test='def check(f): assert f(1) == 1')).why)\n"
        )
        command = [
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            python,
            "-B",
            "-c",
            script,
            way,
        ]
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder), "HOME": str(folder)}
        done = subprocess.run(
            command, env=env, cwd=folder, capture_output=True, text=True
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    assert (done.stdout, done.stderr) == (f"{way} False passed\n", "")


def test_a_machine_that_gives_no_verdicts_any_more_is_told_and_no_zero() -> None:
    """A program without a verdict has failed only where the sandbox still holds."""
    gone = Sandbox("gone", PATIENT, sandbox.Room.here(), lambda room, limits: ["false"])

    assert not gone.run(exam("f = abs")).passed
    with pytest.raises(sandbox.NoSandbox, match="the sandbox of gone no longer holds"):
        gone.run_all([exam("f = abs")])


def test_without_permission_nothing_is_run() -> None:
    """The error says what would allow it, and what to do instead."""
    with pytest.raises(
        UserError, match=r"allow_code_execution: true.*zsg answers export"
    ):
        sandbox.find_sandbox(allowed=False)


def test_a_machine_without_isolation_is_refused_with_what_is_missing() -> None:
    """Each way with its own reason: not installed, not permitted, not tight; and the way out."""
    ways = {
        "first": ("no-such-program", sandbox.build_bubblewrap_command),
        "second": ("false", lambda room, limits: ["false"]),
        # no walls but the limits of the process
        "third": ("env", lambda room, limits: ["env"]),
    }
    with pytest.raises(sandbox.NoSandbox) as refused:
        # without a namespace to end with it
        sandbox.find_sandbox(allowed=True, limits=Limits(wall_s=59), ways=ways)

    said = str(refused.value)
    assert "first: the program no-such-program is not installed" in said
    assert "second: no verdict (exit 1)" in said
    assert (
        "third: AssertionError: a program could ['read the home or the work folder', 'see other"
        " processes'" in said
    )
    assert "zsg answers export" in said
