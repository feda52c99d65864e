"""Does a check that goes wrong stay alone, and do ranks never wait for one that is not
coming?"""

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs.contract import node_check
from jobs.contract.node_check import (
    Finding,
    FindingState,
    NodeCheckRequest,
    RankRecord,
    Section,
)
from jobs.node_check import meeting, registry, run, shared_folder
from jobs.node_check.agreement import Meeting, are_in_step
from jobs.node_check.context import CheckContext
from jobs.node_check.findings import report_ok
from jobs.node_check.registry import CHECKS, NodeCheck
from jobs.runtime.ranks import Ranks

REQUEST = NodeCheckRequest(nodes=2, ranks_per_node=1, cpus_per_rank=1, patience_s=0.3)


class Store:
    """A store in memory, in place of torch's."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._changed = threading.Condition()

    def set(self, key: str, value: str) -> None:
        """Tells a value to all."""
        with self._changed:
            self._values[key] = value.encode()
            self._changed.notify_all()

    def get(self, key: str) -> bytes:
        """A value that is there."""
        return self._values[key]

    def wait(self, keys: list[str], timeout: Any) -> None:
        """Returns once all are there; RuntimeError, as torch's, after the time limit."""
        with self._changed:
            seconds = timeout.total_seconds()
            if not self._changed.wait_for(lambda: keys[0] in self._values, seconds):
                raise RuntimeError("timeout")


def make_check(function: Callable[[CheckContext], Any], **changes: Any) -> NodeCheck:
    """An entry of the registry."""
    name = changes.pop("name", "tried")
    return NodeCheck(name, Section.SETUP, "It works.", function, **changes)


def make_context(folder: Path, rank: int = 0, store: Any = None) -> CheckContext:
    """One of two ranks; with a store they have met."""
    context = CheckContext(
        request=REQUEST,
        folder=folder,
        ranks=Ranks(rank, 2, 0),
        node=f"n{rank}",
        deadline=time.monotonic() + 600,
    )
    if store:
        context.meeting = Meeting(context.ranks, store, REQUEST.patience_s)
        context.meeting.tell_node(context.node)
        context.is_connected = True
    return context


def run_on_both(
    folder: Path, checks: list[list[NodeCheck]]
) -> tuple[list[list[Finding]], list[CheckContext]]:
    """What two ranks find, each with checks of its own, side by side."""
    store = Store()
    contexts = [make_context(folder, rank, store) for rank in (0, 1)]
    found: list[list[Finding]] = [[], []]

    def work(rank: int) -> None:
        for check in checks[rank]:
            found[rank] += run.run_check(check, contexts[rank])

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found, contexts


def succeed(context: CheckContext) -> list[Finding]:
    """A check that finds nothing wrong."""
    return [report_ok("fine")]


def fail_on_rank_1(context: CheckContext) -> list[Finding]:
    """A check that ends with an error on one rank."""
    if context.ranks.rank == 1:
        raise ValueError("broken\nand more of it")
    return [report_ok("fine")]


def fail(context: CheckContext) -> list[Finding]:
    """A check that ends with the same error on all ranks."""
    raise ValueError("broken")


def test_a_check_that_raises_is_a_problem_and_the_next_one_runs(tmp_path: Path) -> None:
    """The error is told by its kind and first line; what ended before is on the disk."""
    infinite = Finding(state=FindingState.OK, text="fine", figures={"x": math.inf})
    checks = [
        make_check(fail, name="first"),
        make_check(lambda context: [infinite], name="second"),
    ]
    request = msgspec.structs.replace(REQUEST, nodes=1)
    written = run.run_checks(tmp_path, request, Ranks(0, 1, 0), 1, checks)

    first, second = written.findings
    assert (first.state, first.text) == (FindingState.PROBLEM, "ValueError: broken")
    assert (second.check, second.figures) == ("second", {})
    assert node_check.read_rank_records(tmp_path) == ([written], [])


def test_nothing_is_begun_after_the_deadline(tmp_path: Path) -> None:
    """It is told as skipped."""
    request = msgspec.structs.replace(REQUEST, nodes=1, budget_s=0.0)
    written = run.run_checks(
        tmp_path, request, Ranks(0, 1, 0), 1, [make_check(succeed)]
    )

    [finding] = written.findings
    assert finding.state == FindingState.SKIPPED
    assert "no time was left" in finding.text


def test_a_rank_that_does_not_come_is_named_and_nobody_waits_for_it_again(
    tmp_path: Path,
) -> None:
    """The one that came tells its node; what comes after is skipped for the same reason."""
    together = make_check(succeed, is_collective=True)
    again = make_check(succeed, name="again", is_collective=True)
    found, _ = run_on_both(tmp_path, [[together, again], []])

    absence = "rank 1 (n1) did not come to tried within 0.3 s"
    assert [finding.text for finding in found[0]] == [absence, absence]
    assert [finding.state for finding in found[0]] == ["problem", "skipped"]


def test_ranks_do_not_wait_for_ever_for_rank_0(tmp_path: Path) -> None:
    """It decides; without it nothing is begun."""
    found, _ = run_on_both(tmp_path, [[], [make_check(succeed, is_collective=True)]])

    [finding] = found[1]
    assert finding.text == "rank 0 (n0) did not come to tried within 0.3 s"


def test_what_one_rank_cannot_begin_all_skip(tmp_path: Path) -> None:
    """And say whose reason it is."""
    on_gpu = make_check(succeed, is_collective=True, needs_gpu=True)
    anywhere = make_check(succeed, is_collective=True)
    found, contexts = run_on_both(tmp_path, [[anywhere], [on_gpu]])

    for findings in found:
        [finding] = findings
        assert finding.state == FindingState.SKIPPED
        assert finding.text == "rank 1 (n1): the profile asks for no GPUs"
    assert all(context.is_connected for context in contexts)


def test_an_error_on_one_rank_ends_what_ranks_do_together(tmp_path: Path) -> None:
    """The others may be waiting in it still. What each does by itself goes on."""
    checks = [
        make_check(fail_on_rank_1, name="uneven", is_collective=True),
        make_check(succeed, name="together", is_collective=True),
        make_check(succeed, name="alone"),
    ]
    found, _ = run_on_both(tmp_path, [checks, checks])

    assert [finding.state for finding in found[0]] == ["ok", "skipped", "ok"]
    assert [finding.state for finding in found[1]] == ["problem", "skipped", "ok"]
    reason = "uneven ended with an error on some ranks: rank 1 (n1): ValueError: broken"
    assert {findings[1].text for findings in found} == {reason}


def test_the_same_error_on_all_ranks_leaves_them_in_step(tmp_path: Path) -> None:
    """Nobody waits in it, so they go on together."""
    checks = [
        make_check(fail, name="even", is_collective=True),
        make_check(succeed, name="together", is_collective=True),
    ]
    found, _ = run_on_both(tmp_path, [checks, checks])

    assert [[f.state for f in findings] for findings in found] == [
        ["problem", "ok"]
    ] * 2


@pytest.mark.parametrize(
    ("answers", "is_so"),
    [(["", ""], True), (["e", "e"], True), (["", "e"], False), (["", None], False)],
)
def test_ranks_are_in_step_where_all_came_to_one_end(
    answers: list[str | None], is_so: bool
) -> None:
    """Be it an error."""
    assert are_in_step(answers) == is_so


def test_a_failed_meeting_names_who_is_not_there(tmp_path: Path) -> None:
    """By the records of the ranks: one is at another check, one has told nothing."""
    for rank, work in ((0, meeting.NAME), (1, "engines")):
        record = RankRecord(attempt=1, rank=rank, node=f"n{rank}", at_work=work)
        node_check.write_rank_record(tmp_path, record)
    context = make_context(tmp_path)
    context.ranks = Ranks(0, 3, 0)

    assert meeting.list_absent(context) == [
        "rank 1 (n1), which is at engines",
        "rank 2, which has told nothing",
    ]


def test_the_list_of_checks_loads_no_engine() -> None:
    """The launcher reads it, too; an engine that is broken is one check's problem."""
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    program = "import sys, jobs.node_check.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
    broken = registry.import_later("no_such_module", "check")
    with pytest.raises(ModuleNotFoundError):
        broken(make_context(Path("/nowhere")))


@pytest.mark.engine
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_each_entry_names_a_function_that_is_there(
    check: NodeCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the very name that the entry has."""
    called: list[CheckContext] = []
    context = make_context(Path("/nowhere"))
    cells = dict(
        zip(
            check.function.__code__.co_freevars,  # type: ignore[attr-defined]
            check.function.__closure__,  # type: ignore[attr-defined]
            strict=True,
        )
    )
    module = f"jobs.node_check.{cells['module'].cell_contents}"
    __import__(module)
    name = cells["function"].cell_contents
    assert hasattr(sys.modules[module], name)
    monkeypatch.setattr(sys.modules[module], name, lambda given: called.append(given))
    check.function(context)
    assert called == [context]


def test_what_a_check_trains_is_of_its_own_start_of_the_job(tmp_path: Path) -> None:
    """Put back into the queue in the middle, a check does not read what its earlier
    start has journalled; in the end both are removed."""
    first = make_context(tmp_path)
    later = replace(first, attempt=3)
    for context in (first, later):
        context.bench.mkdir(parents=True)
        (context.bench / "journal").touch()

    assert first.bench != later.bench
    run._remove_bench(later)
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_is_slow_to_look_finds_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 replaces a file only when all have read it: one that looks later would
    wait for the first text for ever, and call a sound folder wrong."""
    monkeypatch.setattr(shared_folder, "LONGEST_S", 2.0)
    read_file = shared_folder._read_file
    ranks = threading.local()

    def read_late(path: Path) -> bytes | None:
        if getattr(ranks, "is_slow", False):
            time.sleep(0.3)
        return read_file(path)

    def look(context: CheckContext) -> list[Finding]:
        ranks.is_slow = context.ranks.rank == 1
        return shared_folder.check_visibility(context)

    monkeypatch.setattr(shared_folder, "_read_file", read_late)
    patient = msgspec.structs.replace(REQUEST, patience_s=20.0)
    monkeypatch.setattr(sys.modules[__name__], "REQUEST", patient)
    check = make_check(look)
    found, _ = run_on_both(tmp_path, [[check], [check]])
    assert [finding.state for findings in found for finding in findings] == ["ok", "ok"]
