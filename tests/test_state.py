"""Which saved state serves, and what does a signal mean for a run?"""

import contextlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import asdict

from jobs.contract.folder import Workspace, write_json
from jobs.contract.saved_state import SavedState
from jobs.runtime import signals as asking
from jobs.runtime.signals import CONTINUE, LEAVE, PAUSE, Signals, StepAction
from jobs.training.older_states import accept_older_names
from jobs.training.state import (
    Cells,
    Choice,
    Job,
    choose_state,
    find_states,
    newest_step,
    remove_states,
)
from launcher.workspace import linked_folders
from zsg_core.errors import UserError

WHAT = {"run_id": "r", "stage_id": "s", "recipe": "c", "schedule": "d"}
WAY = {"device": "cpu", "world": 2, "zero_stage": 1}
IDS = {step: f"ids{step}" for step in range(41)}
JOB = Job(
    what=WHAT,
    way=WAY,
    digests=IDS,
    cells=frozenset((step, "loss") for step in range(0, 41, 10)),
)
SIZES = {"1-train-0.jsonl": 100, "2-train-0.jsonl": 50}
MEASURED = frozenset((step, "loss") for step in range(0, 31, 10))


def saved(step: int, **changes: object) -> SavedState:
    """A state of the job."""
    made = SavedState(
        step=step,
        ids=f"ids{step}",
        what=WHAT,
        way=WAY,
        journal={"1-train-0.jsonl": 100},
        seconds=1.0,
        loss=0.5,
        attempt=1,
        saved=0,
        versions={},
    )
    return msgspec.structs.replace(made, **changes)


def chosen(*found: SavedState, measured: Cells = MEASURED) -> Choice:
    """What is gone on from."""
    return choose_state(found, JOB, SIZES, measured)


def test_the_newest_state_is_gone_on_from():
    """Of several that serve it is the one with most steps, whatever the order in which
    they are found."""
    assert chosen(saved(5), saved(25), saved(15)) == Choice(saved(25))


def test_without_a_state_a_run_begins_at_its_beginning():
    """That is no reason to say anything."""
    assert chosen() == Choice()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param(
            {"way": WAY | {"world": 4}},
            "is of another world (4, now 2)",
            id="other ranks",
        ),
        pytest.param(
            {"way": WAY | {"zero_stage": 3}},
            "is of another zero_stage (3, now 1)",
            id="other ZeRO stage",
        ),
        pytest.param(
            {"way": WAY | {"device": "cuda"}},
            "is of another device (cuda, now cpu)",
            id="other device",
        ),
        pytest.param(
            {"what": WHAT | {"run_id": "x"}},
            "is of another run_id (x, now r)",
            id="other run",
        ),
        pytest.param(
            {"what": WHAT | {"schedule": "x"}},
            "is of another schedule (x, now d)",
            id="other order",
        ),
        pytest.param(
            {"what": WHAT | {"recipe": "x", "stage_id": "y"}},
            "is of another stage_id (y, now s) and recipe (x, now c)",
            id="other recipe",
        ),
        pytest.param(
            {"journal": {"1-train-0.jsonl": 101}},
            "has lost rows of its journal 1-train-0.jsonl",
            id="cut journal",
        ),
        pytest.param(
            {"journal": {"3-train-0.jsonl": 1}},
            "has lost rows of its journal 3-train-0.jsonl",
            id="lost",
        ),
    ],
)
def test_a_state_that_is_not_this_jobs_is_passed_over(changes, reason):
    """The older one serves, and what the newer one lacks is said; without an older one
    the run starts over."""
    other = saved(25, **changes)

    assert chosen(other, saved(15)) == Choice(
        saved(15), f"the state of step 25 {reason}"
    )
    assert chosen(other) == Choice(None, f"the state of step 25 {reason}")


def test_a_state_beyond_a_new_checkpoint_is_passed_over():
    """What is to be measured at step 20 cannot be measured from step 25 on."""
    choice = chosen(saved(25), measured=frozenset({(0, "loss"), (10, "loss")}))

    assert choice == Choice(
        None, "the state of step 25 has no loss of step 20, which is a checkpoint now"
    )


def test_a_state_beyond_a_snapshot_that_was_never_written_is_passed_over():
    """The weights of step 22 cannot be had from step 25 on; those of step 30 can."""
    job = replace(JOB, lacking=frozenset({22, 30}))
    choice = choose_state([saved(25), saved(15)], job, SIZES, MEASURED)

    reason = "the state of step 25 is past step 22, of which a snapshot is wanted and was never written"
    assert choice == Choice(saved(15), reason)


def test_other_ids_are_refused_with_both_digests():
    """The run does not silently fall back to an older state, for something is wrong."""
    choice = chosen(saved(25, ids="wrong"), saved(15))

    assert choice.saved is None
    assert (
        choice.refusal
        == "the digest of the ids consumed is wrong, by the schedule ids25"
    )


def test_only_a_number_names_a_state(tmp_path: Path):
    """Drafts, what is being removed, and what is of another schema are not states."""
    for name in ("5", "12", f".20.{'a' * 32}", ".12.gone"):
        write_json(tmp_path / "state" / name / "state.json", asdict(saved(5)))
    write_json(tmp_path / "state/30/state.json", {"schema": 99})
    (tmp_path / "state/31").mkdir()

    assert find_states(tmp_path) == [saved(5), saved(5)]
    assert newest_step(tmp_path) == 31
    remove_states(tmp_path)
    assert newest_step(tmp_path) is None
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("asked", "due", "fits", "expected"),
    [
        (CONTINUE, False, False, StepAction(save=False, stop=False)),
        (CONTINUE, False, True, StepAction(save=False, stop=False)),
        (CONTINUE, True, False, StepAction(save=True, stop=False)),
        (LEAVE, False, False, StepAction(save=False, stop=True)),
        (LEAVE, True, False, StepAction(save=False, stop=True)),
        (LEAVE, False, True, StepAction(save=True, stop=True)),
        (PAUSE, False, False, StepAction(save=True, stop=True)),
        (PAUSE, True, True, StepAction(save=True, stop=True)),
    ],
)
def test_what_is_done_after_a_step(asked, due, fits, expected):
    """A pause always saves, a SIGTERM only if there is time, the clock only if nobody
    asks to stop."""
    assert asking.choose_step_action(asked, due, fits) == expected


@pytest.mark.parametrize(
    ("last_save_s", "waited_s", "fits"),
    [
        (None, 0, False),
        (0.1, 0, True),
        (20, 0, True),
        (20.1, 0, False),
        (5, 15, True),
        (5, 15.1, False),
    ],
)
def test_a_save_fits_if_the_last_one_would(last_save_s, waited_s, fits):
    """Ten seconds of a KillWait of 30 are kept; what has passed since the signal counts."""
    assert asking.save_fits(last_save_s, waited_s, 30) == fits


@pytest.mark.parametrize(
    ("asked", "save_s", "waited_s", "left"),
    [
        (PAUSE, 5, 5, None),
        (CONTINUE, 5, 5, None),
        (LEAVE, 5, 5, 10),
        (LEAVE, 0, 0, 20),
        (LEAVE, 15, 15, 0),
    ],
)
def test_what_is_being_written_may_take_so_long(asked, save_s, waited_s, left):
    """Only before SIGKILL there is a limit: of a KillWait of 30, what has passed and
    what a save takes are gone."""
    assert asking.compute_seconds_left(asked, save_s, waited_s, 30) == left


@pytest.mark.parametrize(
    ("step", "every", "since_s", "every_min", "due"),
    [
        (8, 4, 0, None, True),
        (9, 4, 0, None, False),
        (9, None, 1e9, None, False),
        (9, None, 1799, 30, False),
        (9, None, 1800, 30, True),
        (9, 4, 1800, 30, True),
        (8, 4, 0, 30, True),
    ],
)
def test_when_a_state_is_due(step, every, since_s, every_min, due):
    """By steps, by time, by whichever comes first, or never."""
    assert asking.is_due(step, every, since_s, every_min) == due


class Clock:
    """A clock that stands still."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """What the handlers take for the time."""
    return Clock()


@pytest.fixture
def signals(clock):
    """The handlers of a job, put back afterwards."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    made = Signals(clock)
    yield made
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "asks", "outcome"),
    [
        (signal.SIGUSR1, PAUSE, "continue"),
        (signal.SIGUSR2, PAUSE, "continue"),
        (signal.SIGTERM, LEAVE, "cancelled"),
        (signal.SIGINT, LEAVE, "cancelled"),
    ],
)
def test_a_watched_signal_waits_to_be_asked_for(signals, clock, number, asks, outcome):
    """Once the loop watches, a signal interrupts nothing; what it asks and how the job
    then ends follow from it."""
    signals.watch()
    assert (signals.asks, signals.name, signals.waited_s) == (CONTINUE, None, 0)
    os.kill(os.getpid(), number)

    assert (signals.asks, signals.name, asking.choose_outcome(signals.asks)) == (
        asks,
        signal.Signals(number).name,
        outcome,
    )
    clock.now += 7
    assert signals.waited_s == 7


def test_an_unwatched_signal_interrupts(signals):
    """While nobody looks at the flag, a signal ends what is under way."""
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGUSR2)


@pytest.mark.parametrize(
    ("number", "after_s", "interrupts"),
    [
        pytest.param(signal.SIGTERM, 0, False, id="slurmstepd and srun each send one"),
        pytest.param(signal.SIGTERM, 6, True, id="somebody asks again"),
        pytest.param(signal.SIGINT, 0, True, id="Ctrl-C twice"),
    ],
)
def test_who_asks_twice_does_not_want_to_wait(
    signals, clock, number, after_s, interrupts
):
    """A second request to end interrupts even a save; the two SIGTERMs of one
    preemption are one request."""
    signals.watch()
    os.kill(os.getpid(), signal.SIGTERM)
    clock.now += after_s
    with pytest.raises(KeyboardInterrupt) if interrupts else contextlib.nullcontext():
        os.kill(os.getpid(), number)
        time.sleep(0)  # a handler runs between two bytecodes


def test_the_time_limit_itself_does_not_cut_the_save_that_its_warning_began(signals):
    """The SIGTERM after a USR2 leaves a save its KillWait, and the job is still to be continued."""
    signals.watch()
    os.kill(os.getpid(), signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGTERM)

    assert signals.asks == PAUSE


def test_what_zsg_did_not_make_stays_with_the_states(tmp_path: Path):
    """Hidden files, a folder whose name is no step, and a state with a file of another
    in it are left and told."""
    folder = tmp_path / "runs/r/state"
    for name in ("2", "4", "007"):
        write_json(folder / name / "state.json", {"schema": 99})
    (folder / "4/notes.txt").write_text("mine")
    (folder / ".env.20240131").write_text("mine")

    assert remove_states(tmp_path / "runs/r") == [
        f"{folder / '4'} holds notes.txt, which zsg did not write; move it elsewhere"
    ]
    assert sorted(path.name for path in folder.iterdir()) == [
        ".env.20240131",
        "007",
        "4",
    ]


@pytest.mark.parametrize("linked", ["state", "runs/r", "runs"])
def test_states_behind_a_link_stay(tmp_path: Path, linked: str):
    """Whatever folder on the way is a link, nothing behind it goes; the link itself stays, too."""
    outside = {"state": "mine", "runs/r": "mine/state", "runs": "mine/r/state"}[linked]
    write_json(tmp_path / outside / "4" / "state.json", {"schema": 99})
    place = tmp_path / "work" / ("runs/r/state" if linked == "state" else linked)
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "mine")

    remove_states(tmp_path / "work/runs/r")
    assert (tmp_path / outside / "4/state.json").exists() and place.is_symlink()


@pytest.mark.parametrize(
    "linked", ["runs", "runs/r", "runs/r/state", "runs/r/snapshots"]
)
def test_plan_refuses_a_run_folder_that_is_a_link(tmp_path: Path, linked: str):
    """Jobs would remove nothing there; a workspace that is a link itself is one of the
    user's choice."""
    (tmp_path / "elsewhere/r/state").mkdir(parents=True)
    (tmp_path / "link").symlink_to("work")
    path = tmp_path / "work" / linked
    path.parent.mkdir(parents=True)
    linked_folders.refuse_links(Workspace(tmp_path / "link"), ["r", "new"])
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UserError, match=f"{path} is a link"):
        linked_folders.refuse_links(Workspace(tmp_path / "work"), ["new", "r"])


@pytest.mark.parametrize("saved_as", ["llama.", "model."])
def test_a_state_of_an_older_zsg_loads_by_the_names_of_today(saved_as: str):
    """Trained tensors, and what DeepSpeed keeps of the others, are found whatever the
    model was called."""
    loaded = {}

    class Engine:
        def load_module_state_dict(self, checkpoint, strict):
            loaded.update(checkpoint)

    engine = Engine()
    accept_older_names(engine)
    engine.load_module_state_dict(
        checkpoint={
            "module": {
                f"{saved_as}model.norm.weight": 1,
                f"{saved_as}lm_head.weight": 2,
            },
            "frozen_param_fragments": {f"{saved_as}lm_head.weight": 2},
            "lr_scheduler": None,
        },
        strict=True,
    )

    assert loaded == {
        "module": {"model.model.norm.weight": 1, "model.lm_head.weight": 2},
        "frozen_param_fragments": {"model.lm_head.weight": 2},
        "lr_scheduler": None,
    }
