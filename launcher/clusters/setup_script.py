"""Makes the part of a job's script that runs a profile's `setup` lines and stops the
job where one of them fails.

Each line is evaluated as it stands, one command after the other, in the shell whose
variables and folder the job then has. A command that fails ends the setup: a line, a
part of it before `;`, a part of a pipe, and also `exit`. The script then starts anew
without the lines and hands the job what failed (jobs.runtime.setup), so that its record
says so.
"""

import re
import shlex
import subprocess
from collections.abc import Sequence
from functools import cache

from jobs.runtime import log_marks, setup

_QUOTE = re.compile(r"unexpected EOF while looking for matching [`'](['\"`])'")
# a backslash at the end: bash -n passes it over
_GOES_ON = re.compile(r"(?<!\\)(?:\\\\)*\\$")
_INCOMPLETE = re.compile(
    r"unexpected end of file|unexpected EOF|here-document .*delimited by end-of-file"
)

_JOB = '"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"'
_NODE = '"${SLURMD_NODENAME:-?}"'
_START = f"""\
export {setup.LOG}=$(readlink /proc/$$/fd/1)
TZ=UTC0 printf '{log_marks.START}\\n' "${{SLURM_RESTART_COUNT:-0}}" {_JOB} {_NODE} -1"""

# A write into a pipe whose reader has what it wants ends with 141: `nvidia-smi | head -1`.
_BEFORE = f"""\
zsg_at=; exec {{zsg_out}}>&1 {{zsg_err}}>&2
zsg_stop() {{
  trap - EXIT ERR TERM
  exec 1>&"$zsg_out" 2>&"$zsg_err"
  printf '\\n{log_marks.SETUP_ENDED}\\n' "$zsg_at" "$1"
  export {setup.FAILED}="$zsg_at ended with $1: $zsg_text"
  exec "${{BASH:-/bin/bash}}" "$0"
}}
zsg_look() {{ if [[ $1 != 0 && $1 != 141 ]]; then zsg_stop "$1"; fi; }}
trap 'zsg_stop "exit $?"' EXIT
trap 'zsg_was=$?; [[ ${{#BASH_SOURCE[@]}} != 1 ]] || zsg_look "$zsg_was"' ERR
trap 'trap - EXIT TERM; kill -TERM $$' TERM
zsg_pipefail=$(shopt -po pipefail || true); set -o pipefail"""

_AFTER = f"""\
zsg_is_ours() {{ [[ $(trap -p "$1") == *zsg_* || $(trap -p "$1") == *'trap - EXIT'* ]]; }}
trap - ERR
for zsg_at in EXIT TERM; do if zsg_is_ours "$zsg_at"; then trap - "$zsg_at"; fi; done
eval "$zsg_pipefail"; exec {{zsg_out}}>&- {{zsg_err}}>&-
unset -f zsg_stop zsg_look zsg_is_ours; unset zsg_at zsg_text zsg_was zsg_pipefail zsg_out zsg_err
printf '\\n{log_marks.SETUP_DONE}\\n'"""


def make_setup_lines(setup_lines: Sequence[str]) -> list[str]:
    """What a job's script says of its start, and how it runs the setup lines. Pure."""
    commands = group_commands(setup_lines)
    script = [f'if [[ -z "${{{setup.FAILED}:-}}" ]]; then', *_START.splitlines()]
    if not commands:
        return [*script, "fi"]
    script += _BEFORE.splitlines()
    for number, command in enumerate(commands, 1):
        first, _, following = command.partition("\n")
        first_line = shlex.quote(first + (" …" if following else ""))
        script.append(f"zsg_at='{number} of {len(commands)}'; zsg_text={first_line}")
        script.append(f'printf \'{log_marks.SETUP}\\n\' "$zsg_at" "$zsg_text"')
        script.append(f"eval {shlex.quote(command)}; zsg_look $?")
    return [*script, *_AFTER.splitlines(), "fi"]


def group_commands(setup_lines: Sequence[str]) -> list[str]:
    """The lines, those together that are one command of the shell: `if …`, `then …`, `fi`."""
    commands: list[str] = []
    open_lines: list[str] = []
    for line in (line for item in setup_lines for line in item.split("\n")):
        if not open_lines and not line.strip():
            continue
        open_lines.append(line)
        if _trouble("\n".join(open_lines)) is None:
            commands.append("\n".join(open_lines))
            open_lines = []
    return [*commands, "\n".join(open_lines)] if open_lines else commands


def find_bad_line(setup_lines: Sequence[str]) -> tuple[int, str] | None:
    """The index of an item that the shell cannot read, and why; None if it reads all
    of them."""
    begun = 0
    open_items: list[str] = []
    for index, item in enumerate(setup_lines):
        if item.lstrip().startswith("#SBATCH"):
            why = (
                f"{item.strip()!r} is not read by sbatch, which has seen commands before; use"
                " slurm.sbatch"
            )
            return index, why
        begun = begun if open_items else index
        open_items.append(item)
        trouble = _trouble("\n".join(open_items))
        if trouble is None:
            open_items = []
        elif quote := _QUOTE.search(trouble):
            why = (
                f"the quote {quote[1]} of {setup_lines[begun]!r} is not closed; the lines after it"
                " would be swallowed"
            )
            return begun, why
        elif not _INCOMPLETE.search(trouble):
            return index, f"the shell cannot read {item!r}: {trouble}"
    if open_items:
        why = f"{setup_lines[begun]!r} begins a command that no later line ends"
        return begun, why
    return None


@cache
def _trouble(text: str) -> str | None:
    """What bash says of a text that it cannot read as whole commands; it runs none of them."""
    if _GOES_ON.search(text):
        return "unexpected end of file"
    process = subprocess.run(
        ["bash", "-O", "extglob", "-n"],
        input=f"{text}\n",
        capture_output=True,
        text=True,
        env={"LC_ALL": "C"},
    )
    complaints = process.stderr.strip().splitlines()
    if process.returncode == 0 and not process.stderr:
        return None
    return complaints[0] if complaints else f"bash -n ended with {process.returncode}"
