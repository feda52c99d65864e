"""Does what others may write stay theirs: never run, never loaded, never in the way? A
second real user tries."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs import entry
from jobs.contract import ledger_rows
from jobs.contract.folder import Workspace, lock_folder, publish_folder, write_json
from jobs.contract.saved_state import SavedState
from jobs.files import ownership
from jobs.runtime import caches
from jobs.training import state
from launcher.doctor import doctor
from launcher.submission import sbatch
from launcher.workspace import code_snapshot, workspaces
from launcher.workspace.ledger import Ledger, Submission
from launcher.workspace.submit_lock import submit_lock
from tests.lib.builders import write_niv2
from tests.lib.command_line import Zsg
from tests.lib.job_records import write_job_file
from tests.lib.other_user import OtherUser
from tests.lib.small_runs import small_grid
from zsg_core.errors import UserError

GRID = "name: g\ndefaults:\n  data: {path: data}\n  train: {batch: 4}\n"


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Sets the umask of this process, until the test ends."""
    before = os.umask(0o022)
    os.umask(before)
    yield os.umask
    os.umask(before)


@pytest.fixture
def place(open_to_all: Path) -> Workspace:
    """A workspace that others can enter, as a folder that was made by hand."""
    root = open_to_all / "work"
    root.mkdir(mode=0o755)
    return Workspace(root)


@pytest.fixture(autouse=True)
def code(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Code to be kept that is quickly compiled: what is looked at does not depend on
    how much there is."""
    files = {
        "jobs/__init__.py": b"",
        "jobs/entry.py": b"ours = 1\n",
        "zsg_core/deep/data.json": b"{}",
    }
    facts = {"zsg": "0", "python": "3", "digest": code_snapshot.compute_digest(files)}
    monkeypatch.setattr(code_snapshot, "_now", lambda plugins: (facts, files, None))
    return files


def open_paths(root: Path) -> list[str]:
    """What in a folder others may write, and folders that they may even read."""
    found = [
        (path, path.stat().st_mode) for path in root.rglob("*") if not path.is_symlink()
    ]
    return [
        str(path) for path, mode in found if mode & (0o077 if path.is_dir() else 0o022)
    ]


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_every_folder_is_private_at_every_level(tmp_path, umask, mask):
    """Whatever the umask, folders that are made on the way are for their owner alone, too."""
    umask(mask)
    ownership.make_folder(tmp_path / "a/b/c")

    assert [
        (tmp_path / name).stat().st_mode & 0o7777 for name in ("a", "a/b", "a/b/c")
    ] == [0o700] * 3


@pytest.mark.parametrize("mask", [0o000, 0o002])
def test_what_a_submit_writes_others_may_not(tmp_path, umask, mask):
    """Records, locks, the ledger, kept code and what is published: nothing of a
    workspace is open under any umask."""
    umask(mask)
    ownership.forbid_writes_by_others()
    workspace = Workspace(tmp_path / "work")
    workspaces.create_workspace(workspace)
    code_snapshot.take_snapshot(workspace)
    write_json(workspace.run("r") / "journal/x.json", {})
    with (
        publish_folder(workspace.arrangement("a")) as draft,
        lock_folder(workspace.corpus("c")),
        submit_lock(workspace),
    ):
        (draft / "ids").write_text("1\n")
        Ledger(workspace).intend(
            scheduler="local", kind="train", grid="g", items=["runs/r"]
        )

    assert open_paths(workspace.root) == []
    assert workspace.root.stat().st_mode & 0o7777 == 0o700


def test_who_else_may_write_is_told(stranger: OtherUser, place: Workspace) -> None:
    """By name: another owner, everybody, a group; the user's own group, with nobody
    else in it, is nobody else."""
    root = place.root
    told = {
        "theirs": f"belongs to {stranger.name}, not to you",
        "all": "may be written by everybody",
    }
    told |= {"group": f"may be written by group {stranger.name}"}
    for name in (*told, "own", "link"):
        (root / name).mkdir()
    stranger.owns(root / "theirs")
    (root / "all").chmod(0o757)
    os.chown(root / "group", -1, stranger.gid)
    (root / "group").chmod(0o775)
    (root / "own").chmod(0o775)
    (root / "link").rmdir()
    (root / "link").symlink_to(root / "theirs")

    found = {
        name: fault.what
        for name in os.listdir(root)  # noqa: PTH208
        if (fault := ownership.find_fault(root / name))
    }
    assert found == told | {"link": told["theirs"]}


def test_a_workspace_that_others_may_write_is_refused(
    stranger: OtherUser, place: Workspace
) -> None:
    """With the command that ends it; nothing in it was touched."""
    place.root.chmod(0o777)
    assert stranger.can('mkdir -p "$1/code/planted"', place.root)

    with pytest.raises(
        UserError,
        match=r"may be written by everybody, and what they put there .*: chmod go-w /tmp",
    ):
        workspaces.create_workspace(place)
    assert (place.root.stat().st_mode & 0o777, os.listdir(place.root)) == (  # noqa: PTH208
        0o777,
        ["code"],
    )


def test_what_was_planted_while_it_was_open_is_refused(
    stranger: OtherUser, place: Workspace
) -> None:
    """Closing the workspace does not make another's folder in it the user's: it is
    named, and how to be rid of it."""
    place.root.chmod(0o777)
    assert stranger.can('mkdir -p "$1/code/planted"', place.root)
    place.root.chmod(0o755)

    with pytest.raises(
        UserError,
        match=f"code belongs to {stranger.name}, not to you.*rm -r {place.root}/code",
    ):
        workspaces.create_workspace(place)


@pytest.mark.parametrize("above", [0o777, 0o1777])
def test_a_workspace_that_anybody_can_replace_is_refused(
    open_to_all: Path, above: int
) -> None:
    """Where everybody may write above it; in a sticky folder such as /tmp nobody can."""
    open_to_all.chmod(above)
    refused = workspaces.find_refusal(Workspace(open_to_all / "work"))

    assert (refused is not None) == (above == 0o777)
    assert refused is None or f"{open_to_all} may be written by everybody" in str(
        refused
    )


def test_a_workspace_in_an_open_folder_of_anothers_is_refused(
    stranger: OtherUser, open_to_all: Path
) -> None:
    """Whoever made it; one that only a colleague may write is told of by doctor, before
    the workspace is made."""
    open_to_all.chmod(0o777)
    stranger.owns(open_to_all)
    refused = workspaces.find_refusal(Workspace(open_to_all / "work"))

    assert (
        f"{open_to_all} belongs to {stranger.name} and may be written by everybody"
        in str(refused)
    )
    assert doctor.check_workspace_owner(open_to_all / "work").verdict == "problem"
    open_to_all.chmod(0o755)
    assert workspaces.find_refusal(Workspace(open_to_all / "work")) is None
    told = doctor.check_workspace_owner(open_to_all / "work")
    assert (told.verdict, told.found.split(":")[0]) == (
        "warning",
        f"{open_to_all} belongs to {stranger.name}",
    )


def test_folders_of_an_older_zsg_are_closed_and_told(
    place: Workspace, logged: list[str]
) -> None:
    """Made under umask 002 and left open to a group: they go on working, and it is said
    what was closed."""
    (place.root / "runs").mkdir()
    os.chown(place.root / "runs", -1, 65534)
    (place.root / "runs").chmod(0o775)
    (place.root / "prepare").mkdir(mode=0o755)
    workspaces.create_workspace(place)

    assert (place.root / "runs").stat().st_mode & 0o777 == 0o755
    [told] = logged
    assert told.startswith(
        f"note: runs of workspace {place.root} could be written by group "
    )
    workspaces.create_workspace(place)
    assert len(logged) == 1, "nothing is said of what is closed"


def taken(place: Workspace) -> Path:
    """Kept code, which this process has not found well before."""
    code_snapshot._FOUND_WELL.clear()
    return Path(code_snapshot.take_snapshot(place)["folder"])


def plant_folder(stranger: OtherUser, folder: Path) -> None:
    """Another user makes the folder whose name everybody can compute."""
    folder.rename(folder.with_name("aside"))
    folder.parent.chmod(0o777)
    assert stranger.can(
        'mkdir -p "$1/jobs"; echo evil > "$1/jobs/entry.py"; touch "$1/COMMIT"', folder
    )
    folder.parent.chmod(0o700)


def plant_line(stranger: OtherUser, folder: Path) -> None:
    """Another user writes to a file that was left open."""
    path = folder / "jobs/entry.py"
    for one in (folder, path.parent):
        one.chmod(0o755)
    folder.parent.chmod(0o755)
    path.chmod(0o666)
    assert stranger.can('echo evil >> "$1"', path)
    path.chmod(0o644)


def plant_module(stranger: OtherUser, folder: Path) -> None:
    """Another user puts a module beside the packages, where Python looks for all others, too."""
    folder.chmod(0o777)
    folder.parent.chmod(0o755)
    assert stranger.can('echo evil > "$1/yaml.py"', folder)
    (folder / "yaml.py").chmod(0o644)
    os.chown(folder / "yaml.py", 0, 0)
    folder.chmod(0o700)


PLANTS = [plant_folder, plant_line, plant_module]


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_code_is_made_anew(
    stranger: OtherUser, place: Workspace, logged: list[str], plant
) -> None:
    """Kept code is read before it is used; what was planted lies aside, and that is said."""
    folder = taken(place)
    plant(stranger, folder)
    assert taken(place) == folder

    assert (folder / "jobs/entry.py").read_bytes() == b"ours = 1\n"
    assert not (folder / "yaml.py").exists()
    assert ownership.find_fault_within(folder) is None
    said = " ".join(logged)
    assert (
        "is not used as it is: " in said
        and "the code of this zsg is put in its place" in said
    )


def test_sound_code_is_taken_as_it_is(place: Workspace, logged: list[str]) -> None:
    """Looking changes nothing, and nothing is said."""
    folder = taken(place)
    before = folder.stat().st_ino

    assert (taken(place).stat().st_ino, logged) == (before, [])


def guarded(folder: Path, submission: Path) -> Callable[[], tuple[int, str]]:
    """What the beginning of a job's script does: its exit status and what it prints."""
    lines = code_snapshot.guard_lines({"folder": str(folder)}, submission)
    script = "\n".join([*lines, "echo started"])

    def run() -> tuple[int, str]:
        done = subprocess.run(
            ["/bin/bash", "-c", script], capture_output=True, text=True
        )
        assert done.stderr == ""
        return done.returncode, done.stdout.strip()

    return run


@pytest.mark.parametrize("plant", PLANTS)
def test_a_jobs_script_starts_no_planted_code(
    stranger: OtherUser, place: Workspace, plant
) -> None:
    """What is planted after the submit is seen by the script, which ends before it
    starts any Python."""
    folder = taken(place)
    ownership.make_folder(place.submission("s"))
    run = guarded(folder, place.submission("s"))
    assert run() == (0, "started")

    plant(stranger, folder)
    status, said = run()
    assert status == 1 and said.startswith("zsg: ") and str(folder) in said, said


def test_a_jobs_script_loads_no_swapped_pickle(
    stranger: OtherUser, place: Workspace
) -> None:
    """Another user puts a folder of pickles in the place of the job's own."""
    run = guarded(taken(place), place.submission("s"))
    ownership.make_folder(place.submission("s"))
    place.submission("s").parent.chmod(0o777)
    assert stranger.can(
        'mv "$1" "$1.aside" && mkdir "$1" && echo evil > "$1/7_submitted.pkl"',
        place.submission("s"),
    )

    assert run() == (
        1,
        (
            f"zsg: others may write {place.root}/submissions, and nothing from there is run; see"
            " zsg doctor"
        ),
    )
    place.submission("s").parent.chmod(0o700)
    assert run()[0] == 1 and f"{place.root}/submissions/s," in run()[1]


def test_another_python_may_compile_beside(place: Workspace) -> None:
    """In a container Python has another version, and writes what it compiles into the
    folder of kept code."""
    folder = taken(place)
    ownership.make_folder(place.submission("s"))
    run = guarded(folder, place.submission("s"))
    (folder / "jobs/__pycache__/entry.cpython-399.pyc").write_bytes(b"x")

    assert run() == (0, "started")


def test_a_job_of_another_user_is_not_run(
    stranger: OtherUser, place: Workspace
) -> None:
    """Also by hand: its record would say what is loaded."""
    write_job_file(place.run("r"))
    entry.refuse_strange(place.run("r"))
    stranger.owns(place.run("r"))

    with pytest.raises(
        SystemExit,
        match=f"runs/r belongs to {stranger.name}, not to you: what others may write is",
    ):
        entry.refuse_strange(place.run("r"))


def test_a_state_that_others_may_have_written_is_not_loaded(
    stranger: OtherUser, place: Workspace
) -> None:
    """A saved state is a pickle: another user's is passed over, with whose it is; the
    user's own is kept."""
    run = place.run("r")
    saved = [
        SavedState(
            step=step,
            ids="",
            what={},
            way={},
            journal={},
            seconds=0,
            loss=None,
            attempt=1,
            saved=0,
            versions={},
        )
        for step in (2, 4, 6)
    ]
    for one in saved:
        write_json(run / f"state/{one.step}/state.json", {})
    stranger.owns(run / "state/4")
    (run / "state/6/weights.pt").write_bytes(b"")
    (run / "state/6/weights.pt").chmod(0o666)
    own, strange = state.of_the_user(run, saved)

    assert own == saved[:1]
    assert strange == [
        f"the state of step 4 is not loaded: {run}/state/4 belongs to {stranger.name}, not to you",
        f"the state of step 6 is not loaded: {run}/state/6/weights.pt may be written by everybody",
    ]


def test_no_other_user_can_hold_a_submit_up(
    stranger: OtherUser, place: Workspace
) -> None:
    """Who may read a lock's file could lock it for ever: also one of an older zsg, open
    to read, is closed."""
    place.submit_lock.touch(mode=0o644)
    assert stranger.can('flock -n "$1" true', place.submit_lock)
    with submit_lock(place):
        pass

    assert not stranger.can('flock -n "$1" true', place.submit_lock)


def test_a_process_of_another_user_is_no_sbatch_of_ours(
    stranger: OtherUser, open_to_all: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submission's id is seen in squeue by all; who calls a process after it holds no
    submit up."""
    script = open_to_all / "sbatch"
    script.write_text("sleep 30\n")
    theirs = subprocess.Popen(
        ["/bin/sh", script, "/submissions/s/x.sh"],
        user=stranger.uid,
        group=stranger.gid,
    )
    submission = Submission("s", "slurm", "train", "g", [], 0, os.uname().nodename)
    monkeypatch.setattr(sbatch.slurm, "find_job_ids", lambda name, **options: [name])
    monkeypatch.setattr(
        sbatch.time,
        "sleep",
        lambda seconds: pytest.fail("it waits for another's process"),
    )
    try:
        assert sbatch.find_jobs(submission, "zsg-g-train-s") == ["zsg-g-train-s"]
    finally:
        theirs.kill()
        theirs.wait()


def test_a_cache_that_another_has_made_is_not_used(
    stranger: OtherUser, open_to_all: Path, logged: list[str]
) -> None:
    """Its name in a node's /tmp is known to all: the job compiles into a folder of its
    own, and says so."""
    open_to_all.chmod(0o1777)
    assert stranger.can(
        'mkdir -p "$1/zsg-0/triton" && chmod 777 "$1/zsg-0"', open_to_all
    )
    theirs, ours = open_to_all / "zsg-0/triton", open_to_all / "mine/inductor"
    environ = {"TRITON_CACHE_DIR": str(theirs), caches.INDUCTOR: str(ours)}
    caches.make_caches_private(environ)
    made = Path(environ["TRITON_CACHE_DIR"])

    assert (
        made != theirs
        and made.stat().st_uid == os.getuid()
        and made.stat().st_mode & 0o777 == 0o700
    )
    assert (
        environ[caches.INDUCTOR] == str(ours) and ours.stat().st_mode & 0o777 == 0o700
    )
    assert logged == [
        f"TRITON_CACHE_DIR: {theirs} is not yours alone; this job compiles into {made}"
    ]
    made.rmdir()


def test_a_cache_in_a_folder_that_another_put_in_the_way_is_not_used(
    stranger: OtherUser, open_to_all: Path
) -> None:
    """One of the user's own in it could be put aside by who made that folder in a node's /tmp."""
    open_to_all.chmod(0o1777)
    assert stranger.can('mkdir "$1/zsg-0"', open_to_all)
    theirs = open_to_all / "zsg-0/triton"
    theirs.mkdir(mode=0o700)
    made = ownership.find_private_cache(theirs)

    assert made != theirs and made.stat().st_mode & 0o777 == 0o700
    made.rmdir()
    assert stranger.can('chmod 777 "$1/zsg-0"', open_to_all)
    made = ownership.find_private_cache(theirs)
    assert made != theirs
    made.rmdir()


def test_doctor_calls_what_others_may_write_a_problem(
    stranger: OtherUser, place: Workspace
) -> None:
    """With the one command that mends it; a workspace of another is a problem, too."""
    (place.root / "code").mkdir(mode=0o755)
    good = doctor.check_workspace_owner(place.root)
    (place.root / "code").chmod(0o777)
    inner = doctor.check_workspace_owner(place.root)
    place.root.chmod(0o777)
    outer = doctor.check_workspace_owner(place.root)
    stranger.owns(place.root)
    theirs = doctor.check_workspace_owner(place.root)

    assert (good.verdict, inner.verdict, outer.verdict, theirs.verdict) == (
        "ok",
        *["problem"] * 3,
    )
    assert inner.advice == f"chmod go-w {place.root}/code"
    assert outer.advice == f"chmod go-w {place.root} {place.root}/code"
    assert theirs.found == f"{place.root} belongs to {stranger.name}, not to you"


def test_plan_makes_nothing(zsg: Zsg, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No workspace, no cache, no file: not here, not in the home and not where
    temporary files go."""
    write_niv2(zsg.folder / "data")
    zsg.write("grid.yaml", GRID)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    zsg.env |= {
        "HOME": str(elsewhere),
        "TMPDIR": str(elsewhere),
        "XDG_CACHE_HOME": str(elsewhere),
    }
    before = sorted(zsg.folder.rglob("*"))
    printed = zsg("plan", "grid.yaml")

    assert printed.startswith("g: 1 to submit")
    assert sorted(zsg.folder.rglob("*")) == before
    assert list(elsewhere.rglob("*")) == []


def test_a_colleagues_workspace_is_read_and_not_written(
    stranger: OtherUser, place: Workspace, logged: list[str], umask
) -> None:
    """Who only looks is told whose it is; what would write there, or run what lies
    there, is refused."""
    stranger.owns(place.root)
    told = f"{place.root} belongs to {stranger.name}, not to you"

    assert workspaces.find_to_read(place.root) == place
    assert logged == [f"note: workspace {told}: it is read, and nothing in it is run"]
    with pytest.raises(
        UserError, match=f"workspace {place.root}: belongs to {stranger.name}"
    ):
        workspaces.find_own(place.root)


def test_a_module_in_the_current_folder_is_not_run(tmp_path: Path) -> None:
    """`export PYTHONPATH=$PYTHONPATH:/mine` leaves an empty part, the current folder,
    which may be another's."""
    (tmp_path / "typer.py").write_text("open('ran', 'w')")
    zsg = Path(sys.executable).with_name("zsg")
    done = subprocess.run(
        [zsg, "--version"],
        cwd=tmp_path,
        env={"PYTHONPATH": ":"},
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout[:4]) == (0, "zsg "), done.stderr
    assert not (tmp_path / "ran").exists()


def member(stranger: OtherUser, place: Workspace) -> Callable[..., bool]:
    """The second user, in the group of a workspace: whether it can do a line of sh."""
    gid = place.root.stat().st_gid
    return lambda line, *words: (
        not stranger.run("/bin/sh", "-c", line, "sh", *words, groups=(gid,)).returncode
    )


def test_a_groups_workspace_is_for_the_group_but_what_is_run(
    stranger: OtherUser, open_to_all: Path
) -> None:
    """Its members write runs and records; kept code and pickles stay the user's, and
    nobody can put others there."""
    place = Workspace(open_to_all / "shared")
    workspaces.create_workspace(place, share=True)
    folder = taken(place)
    ownership.make_private_folder(place.submission("s"))
    write_job_file(place.run("r"))
    can = member(stranger, place)

    modes = {
        name: (place.root / name).stat().st_mode & 0o7777
        for name in ("", "runs", "model-proofs", "runs/r", "submissions/s")
    }
    assert modes == {
        "": 0o3770,
        "runs": 0o3770,
        "model-proofs": 0o3770,
        "runs/r": 0o2770,
        "submissions/s": 0o2700,
    }
    assert can('touch "$1/runs/r/x" && mkdir "$1/runs/q"', place.root)
    assert not can('mv "$1" "$1.aside"', folder)
    assert not can('mv "$1" "$1.aside"', place.submission("s"))
    assert not can('mv "$1/code" "$1/aside"', place.root)
    assert not stranger.can('ls "$1"', place.root), (
        "who is not in the group sees nothing"
    )
    assert guarded(folder, place.submission("s"))() == (0, "started")
    assert (
        workspaces.find_refusal(place),
        doctor.check_workspace_owner(place.root).verdict,
    ) == (None, "ok")


def test_what_is_published_for_a_group_can_be_read_by_it(
    stranger: OtherUser, open_to_all: Path
) -> None:
    """Also files that an engine has made for its user alone, as safetensors does; in a
    workspace of one's own they stay so."""
    shared, own = Workspace(open_to_all / "shared"), Workspace(open_to_all / "own")
    workspaces.create_workspace(shared, share=True)
    workspaces.create_workspace(own)
    modes: list[int] = []
    for place in (shared, own):
        with publish_folder(place.base("b")) as draft:
            (draft / "model.safetensors").touch(mode=0o600)
        path = place.base("b") / "model.safetensors"
        modes.append(path.stat().st_mode & 0o777)

    assert modes == [0o660, 0o600]
    assert member(stranger, shared)('cat "$1"', shared.base("b") / "model.safetensors")


def test_in_a_groups_workspace_planted_code_is_not_run(
    stranger: OtherUser, open_to_all: Path
) -> None:
    """A member may make the folder of code before the user does: the user's own is made
    beside it, and is no garbage."""
    place = Workspace(open_to_all / "shared")
    workspaces.create_workspace(place, share=True)
    folder = place.code(taken(place).name)
    folder.rename(open_to_all / "aside")
    assert member(stranger, place)('mkdir -p "$1/jobs" && touch "$1/COMMIT"', folder)

    kept = taken(place)
    assert (kept.name, kept.stat().st_uid, kept.stat().st_mode & 0o777) == (
        f"{folder.name}-{os.getuid()}",
        os.getuid(),
        0o700,
    )
    assert taken(place) == kept and folder.stat().st_uid == stranger.uid
    assert code_snapshot.name_folder({"digest": "d", "folder": str(kept)}) == kept.name


def test_in_a_groups_workspace_each_settles_their_own(
    stranger: OtherUser, open_to_all: Path
) -> None:
    """A submission of a colleague that is under way is neither adopted nor given up,
    and its jobs are asked by user."""
    place = Workspace(open_to_all / "shared")
    workspaces.create_workspace(place, share=True)
    ledger = Ledger(place)
    mine = ledger.intend(scheduler="slurm", kind="train", grid="g", items=["runs/a"])
    theirs = ledger.intend(scheduler="slurm", kind="train", grid="g", items=["runs/b"])
    text = place.ledger.read_text().replace(
        f'"user": {os.getuid()}', f'"user": {stranger.uid}'
    )
    place.ledger.write_text(
        "\n".join([place.ledger.read_text().splitlines()[0], *text.splitlines()[1:]])
        + "\n"
    )
    ledger = Ledger(place)
    ledger.submitted(theirs, ["7"])

    assert [one.id for one in ledger.unfinished()] == [mine.id]
    assert [job.user for job in ledger.jobs_of("runs/b")] == [stranger.uid]


@pytest.mark.soak(part="users")
@pytest.mark.parametrize("mask", [0o000, 0o002])
def test_a_whole_submit_leaves_nothing_open(zsg: Zsg, tasks: Path, umask, mask) -> None:
    """Jobs, engines and the delivery to MLflow make what they make for the user alone."""
    umask(mask)
    zsg("submit", small_grid(zsg, tasks, "[random]", steps=2), "--yes")

    assert open_paths(zsg.work) == []


def test_another_members_file_is_opened_where_making_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sticky folder Linux refuses O_CREAT for another's file (fs.protected_regular),
    also where the file may be written: locks, the ledger and ratings are opened first."""
    root = tmp_path / "group"
    root.mkdir()
    ownership.open_to_group(root)
    lock, ledger = root / "corpora/.a.lock", root / "ledger.jsonl"
    lock.touch()
    ledger_rows.append_row(ledger, ledger_rows.Released(submission="a"))
    opened = os.open

    def open_as_another(path: Path, flags: int, mode: int = 0o777, **at: int) -> int:
        is_protected = flags & os.O_CREAT and not flags & os.O_EXCL
        if is_protected and os.path.lexists(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, mode, **at)

    monkeypatch.setattr(os, "open", open_as_another)
    os.close(ownership.open_lock(lock))
    os.close(ownership.open_lock(root / "corpora/.b.lock"))
    ledger_rows.append_row(ledger, ledger_rows.Released(submission="b"))
    monkeypatch.undo()
    assert len(ledger.read_bytes().splitlines()) == 2
    assert (root / "corpora/.b.lock").stat().st_mode & 0o777 == 0o660
    (root / "nowhere").symlink_to(root / "absent")
    with pytest.raises(OSError):
        ownership.open_lock(root / "nowhere")
