"""Says why a job ended before zsg itself began on its node, by what its script printed
and by Slurm's exit code.

Until then nothing of zsg runs that could leave a record: the node may lack the workspace,
Python, the container; srun may refuse the step.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.contract import causes
from jobs.contract.causes import Cause
from jobs.runtime import log_marks, tracebacks

NO_LOG = "0:53"  # Slurm's exit code where a job's output cannot be opened
BEFORE = "before it began"  # in the evidence of a job of which no more is known
_EXITS = {
    "126": "a program that the job's script starts may not be executed on the node",
    "127": "a program that the job's script starts is not on the node",
}
# What proves that something is missing on the node, or refused: the first of these that any
# line matches counts. bash, Python and Slurm 22.05 say so.
_PROOFS = tuple(
    map(
        re.compile,
        (
            (
                r": line \d+: .*(?:command not found|No such file or directory|Permission denied"
                r"|cannot execute|Exec format error)"
                r"|: No module named |Error while finding module specification for "
                r"|^Fatal Python error|error while loading shared libraries"
                r"|: version `\S+' not found|^FATAL\s*:|^zsg: "
            ),
            (
                r"^srun: error: (?!.*: tasks? .*: )"
                r"|^slurmstepd\S*: error: (?!\*\*\*|couldn't chdir)"
            ),
            r": (?:command not found|No such file or directory|Permission denied|not found)$",
            r"^slurmstepd\S*: error: couldn't chdir",
        ),
    )
)
# Of a start that says no more: these lines are never the reason.
_NOISE = re.compile(r"^(?:=== zsg |submitit (?:INFO|WARNING) |srun: (?!error|fatal))")
_EXITED = re.compile(r"^srun: error: .*: tasks? .*: Exited with exit code ")
_SIGNALLED = range(129, 129 + 64)  # 128 and the signal's number, as a shell says it


@dataclass(frozen=True)
class LaunchFailure:
    """Why a job ended before it began, and the line or the words that say so."""

    cause: Cause
    evidence: str


def explain_launch(
    printed: str | None, exit_code: str | None, folder: Path
) -> LaunchFailure | None:
    """Why a job ended that has begun no attempt; None where nothing proves it. Pure.

    `printed`: by its script since Slurm started it, None without a log; `exit_code`: that
    of accounting, None where that does not know it; `folder`: where its log was to be.
    """
    lines = _skip_setup((printed or "").split("\n"))
    proof = _find_proof(lines)
    if proof is not None:
        return proof
    if exit_code == NO_LOG:
        question = f"is {folder} there, and writable, on the nodes?"
        evidence = f"Slurm could not open the job's log: {question} (exit {NO_LOG})"
        return LaunchFailure(Cause.LAUNCH_FAILED, evidence)
    if exit_code is None or was_signalled(exit_code):
        return None
    return _by_exit_code(lines, exit_code)


def _skip_setup(lines: Sequence[str]) -> Sequence[str]:
    """The lines without what setup lines have printed that the job came past."""
    if log_marks.SETUP_DONE not in lines:
        return lines
    return lines[lines.index(log_marks.SETUP_DONE) + 1 :]


def was_signalled(exit_code: str) -> bool:
    """Whether a signal ended the job's script, or what it ran: `0:9`, `137:0`."""
    status, _, signal = exit_code.partition(":")
    if signal not in ("", "0"):
        return True
    return status.isdigit() and int(status) in _SIGNALLED


def _find_proof(lines: Sequence[str]) -> LaunchFailure | None:
    """The line that proves why: one that names a cause, one that says what is missing, or
    the error of a traceback."""
    named = [
        LaunchFailure(cause, line.strip())
        for line in lines
        if (cause := causes.of_line(line)) and _is_reason(cause)
    ]
    if named:
        return min(named, key=lambda failure: causes.rank_cause(failure.cause))
    refusal = next(_find_refusals(lines), None)
    if refusal is None:
        errors = tracebacks.find_error_lines(lines)
        refusal = errors[-1][1] if errors else None
    return LaunchFailure(Cause.LAUNCH_FAILED, refusal.strip()) if refusal else None


def _is_reason(cause: Cause) -> bool:
    return cause not in causes.CONSEQUENCES and cause != Cause.SETUP


def _find_refusals(lines: Sequence[str]) -> Iterator[str]:
    """The lines that say what is missing or refused, the most telling first."""
    for pattern in _PROOFS:
        yield from filter(pattern.search, lines)


def _by_exit_code(lines: Sequence[str], exit_code: str) -> LaunchFailure | None:
    """By the last line that the script printed, or what its exit code means by itself."""
    words = [line.strip() for line in lines if line.strip() and not _NOISE.match(line)]
    # That a task exited says no more than its exit code.
    reasons = [line for line in words if not _EXITED.match(line)] or words
    if reasons:
        return LaunchFailure(Cause.LAUNCH_FAILED, reasons[-1])
    meaning = _EXITS.get(exit_code.partition(":")[0])
    if meaning is None:
        return None
    return LaunchFailure(Cause.LAUNCH_FAILED, f"{meaning} (exit {exit_code})")
