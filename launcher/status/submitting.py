"""Says of runs that a `zsg submit` at work is about to hand over that they are being
submitted: nothing was cut short.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from jobs.contract.states import State
from launcher.workspace.job_state import CUT_SHORT, JobState
from launcher.workspace.submit_lock import SubmitUnderWay


def add_submit_under_way(
    states: Mapping[str, JobState],
    grid: str,
    runs: Iterable[str],
    submit: SubmitUnderWay | None,
) -> Mapping[str, JobState]:
    """The states of job folders, by a submit that may be of this grid; `runs`: the
    folders of the runs that the grid lists.

    `submit` is looked for after the grid's record was read and before the ledger is: so
    whoever ends meanwhile has written down what it has submitted.
    """
    if submit is None or not submit.may_submit(grid):
        return states
    cause = f"being submitted: {submit.words} is at work"
    unknown = [item for item, state in states.items() if state.cause == CUT_SHORT]
    absent = [item for item in runs if states[item].state == State.ABSENT]
    return {
        **states,
        **{
            item: replace(states[item], state=State.WAITING, cause=cause)
            for item in (*unknown, *absent)
        },
    }
