"""Is a saved state that is not whole passed over, told, and does the run end as if it had
never been interrupted?"""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from jobs.contract.saved_state import (
    SavedState,
    find_broken_content,
    find_fault,
    read_saved_state,
    write_saved_state,
)
from jobs.training.state import find_whole_states, newest_step, newest_whole_step
from tests.lib.forked_jobs import wait_until
from tests.lib.train_bench import Bench, starts, told

STATE = SavedState(
    step=8,
    ids="i",
    what={},
    way={"device": "cpu", "world": 2, "zero_stage": 2},
    journal={},
    seconds=1.0,
    loss=0.5,
    attempt=1,
    saved=0,
    versions={},
)
MODEL, *OPTIMIZERS = (
    "ranks/mp_rank_00_model_states.pt",
    "ranks/zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "ranks/zero_pp_rank_1_mp_rank_00_optim_states.pt",
)


def write_state(run: Path, step: int, has_list: bool = True) -> Path:
    """A state of two ranks whose files hold nothing that could be loaded."""
    folder = run / "state" / str(step)
    (folder / "ranks").mkdir(parents=True)
    for name in (MODEL, *OPTIMIZERS):
        (folder / name).write_bytes(b"abc")
    files = dict.fromkeys((MODEL, *OPTIMIZERS), 3) if has_list else None
    write_saved_state(folder, replace(STATE, step=step, files=files))
    return folder


@pytest.mark.parametrize("name", [MODEL, OPTIMIZERS[1]])
@pytest.mark.parametrize("has_list", [True, False])
def test_a_state_whose_file_is_missing_is_not_whole(
    tmp_path: Path, name: str, has_list: bool
) -> None:
    """Also one of an older zsg, which lists no files."""
    write_state(tmp_path, 4, has_list)
    folder = write_state(tmp_path, 8, has_list)
    assert newest_whole_step(tmp_path) == 8
    (folder / name).unlink()
    states, [fault] = find_whole_states(tmp_path)

    assert [state.step for state in states] == [4]
    assert fault.startswith("the state of step 8 is not whole: ")
    kind = name.rpartition("_00_")[2]
    assert (name if has_list else f"files *_{kind}") in fault
    assert (newest_step(tmp_path), newest_whole_step(tmp_path)) == (8, 4)


def test_a_state_whose_file_is_cut_is_not_whole(tmp_path: Path) -> None:
    """Both sizes are told."""
    folder = write_state(tmp_path, 8)
    (folder / MODEL).write_bytes(b"ab")
    state = read_saved_state(folder)

    assert state and find_fault(folder, state) == (
        f"{MODEL} has 2 bytes, 3 were written"
    )


@pytest.mark.parametrize("content", [None, b"{", b'{"step": 8'])
def test_a_state_whose_record_is_gone_or_cut_is_not_whole(
    tmp_path: Path, content: bytes | None
) -> None:
    """It keeps no older one from being found."""
    write_state(tmp_path, 4)
    record = write_state(tmp_path, 8) / "state.json"
    record.unlink()
    if content:
        record.write_bytes(content)
    states, [fault] = find_whole_states(tmp_path)

    assert [state.step for state in states] == [4]
    assert "the state of step 8 is not whole: " in fault and "state.json" in fault


@pytest.mark.engine
def test_what_torch_wrote_is_held_against_its_check_sums(tmp_path: Path) -> None:
    """Zeros within a file, a file that ends too early and one that is none are named."""
    import torch

    path = tmp_path / "ranks/x.pt"
    path.parent.mkdir()
    torch.save({"weights": torch.arange(1000.0)}, path)
    content = path.read_bytes()
    assert find_broken_content(path) is None
    half = len(content) // 2
    for broken in (
        content[:half] + b"\0" * 64 + content[half + 64 :],
        content[:half],
        b"",
        b"\0" * len(content),
    ):
        path.write_bytes(broken)
        assert (find_broken_content(path) or "").startswith("ranks/x.pt ")


Break = Callable[[Path], object]


def zero_the_middle(path: Path) -> None:
    """Puts zeros where a file has its tensors; its size stays."""
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + b"\0" * 4096 + content[half + 4096 :])


BREAKS: dict[str, Break] = {
    "zero_pp_rank_0_mp_rank_00_optim_states.pt is missing": lambda state: next(
        state.glob("ranks/*optim*")
    ).unlink(),
    "mp_rank_00_model_states.pt is not what was written": lambda state: zero_the_middle(
        next(state.glob("ranks/*model*"))
    ),
    "state.json is missing": lambda state: (state / "state.json").unlink(),
}


def test_a_run_whose_state_is_not_whole_starts_over(bench: Bench) -> None:
    """Whatever is missing of it, also twice; the weights, numbers and digests are those
    of a run that nobody disturbed."""
    folder = bench.make(keep_state=True)
    assert bench.jobs.run(folder)["outcome"] == "done"
    for fault, break_state in BREAKS.items():
        break_state(folder / "state/16")
        (folder / "exit.json").unlink()
        record = bench.jobs.run(folder)
        assert record["outcome"] == "done", record
        begun = starts(folder)[-1]
        assert (begun["from"], newest_whole_step(folder)) == (0, 16)
        assert "the state of step 16 is not whole: " in begun["passed_over"]
        assert fault in begun["passed_over"]
        assert (
            f"{begun['passed_over']}; this attempt starts over"
            in (folder / "rank0.txt").read_text()
        )
    assert told(folder) == bench.undisturbed(1, 1, "fp32")


def test_the_next_older_state_that_is_whole_is_resumed_from(bench: Bench) -> None:
    """By two ranks, each of which looks at a share of the files."""
    folder = bench.make(keep_state=True, epochs=2)
    ranks = bench.jobs.start(folder, world=2)
    wait_until(lambda: (newest_step(folder) or 0) >= 8 or ranks[0].ended())
    for rank in ranks:
        rank.send(signal.SIGSTOP)
    step = newest_whole_step(folder)
    assert step
    shutil.copytree(folder / "state" / str(step), folder / "older")
    for rank in ranks:
        rank.send(signal.SIGCONT)
    assert all(rank.ended(within_s=60) for rank in ranks)
    (folder / "older").rename(folder / "state" / str(step))
    newest = newest_step(folder)
    zero_the_middle(next(folder.glob(f"state/{newest}/ranks/*rank_1_*optim*")))
    (folder / "exit.json").unlink()

    assert bench.jobs.run(folder, world=2)["outcome"] == "done"
    begun = starts(folder)[-1]
    assert begun["from"] == step
    assert f"the state of step {newest} is not whole: " in begun["passed_over"]
    assert told(folder) == bench.undisturbed(2, 1, "fp32", 2)
