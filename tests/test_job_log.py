"""Does a job's log have times and levels, and is what a job says still found by whoever
reads its log, its heartbeat or its journal?"""

import importlib.util
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs import entry
from jobs.contract import attempt as attempts
from jobs.contract.heartbeat import Heartbeat, Pulse, read_heartbeat
from jobs.contract.journal import Journal, read_journal
from jobs.runtime import job_log, log_marks, tracebacks
from jobs.runtime.ranks import Ranks
from launcher.status import logs, why
from tests.lib.forked_jobs import wait_until

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (\w+) (.*)")
logger = logging.getLogger("jobs.preparing.any")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a job."""
    made = tmp_path / "work/prepare/key"
    made.mkdir(parents=True)
    return made


def test_every_message_has_its_time_and_level(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of all packages, from INFO on; what libraries log is left to them."""
    job_log.install_job_log()
    logger.debug("left out")
    logger.info("embedded 8 of 8 texts")
    logging.getLogger("zsg_core.data.any").warning("3 of 9 tasks are of no set")
    logging.getLogger("library").error("of a library")

    lines = capsys.readouterr().err.splitlines()
    assert [LINE.fullmatch(line).groups() for line in lines] == [  # type: ignore[union-attr]
        ("INFO", "embedded 8 of 8 texts"),
        ("WARNING", "3 of 9 tasks are of no set"),
    ]


def test_a_log_that_is_installed_twice_writes_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As where a job is replayed in the process of another."""
    job_log.install_job_log()
    job_log.install_job_log()
    logger.info("once")

    assert capsys.readouterr().err.count("once") == 1


def test_texts_of_others_are_showable_and_keys_hidden(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a library puts into an error."""
    monkeypatch.setenv("LAB_API_KEY", "tok-0123456789abcdef")
    job_log.install_job_log()
    logger.info("\x1b[8mhidden tok-0123456789abcdef")

    assert r"\x1b[8mhidden …" in capsys.readouterr().err


def test_a_log_that_cannot_grow_is_no_reason_to_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk may be full while a job computes."""

    def write(_text: str) -> None:
        raise OSError("No space left on device")

    job_log.install_job_log()
    monkeypatch.setattr(job_log.sys.stderr, "write", write)
    logger.info("lost")


def test_marks_and_tracebacks_are_found_behind_times_and_levels(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    """An attempt's mark is a line of its own, and equal errors have equal hashes with
    and without a prefix, as in logs of an older zsg."""
    job_log.install_job_log()
    mark = log_marks.format_attempt_mark(
        attempts.begin_attempt(folder, "s"), 0, 1, "node1"
    )
    job_log.write_line(mark)
    message = "CUDA out of memory. Tried to allocate 2 GiB"
    try:
        raise RuntimeError(message)
    except RuntimeError as caught:
        error = caught
        logger.exception("this attempt ends with an error")
    log = folder / "log.txt"
    log.write_text(capsys.readouterr().err)

    assert [one.attempt for one in logs.read_marks(log)] == [1]
    proof = why.in_log(log.read_bytes())
    assert proof and proof.cause == "out of memory"
    assert proof.text == f"RuntimeError: {message}"
    lines = log.read_text().splitlines()
    assert tracebacks.hash_last_traceback(lines) == tracebacks.hash_error(error)
    older = lines[lines.index("Traceback (most recent call last):") :]
    assert tracebacks.hash_last_traceback(older) == tracebacks.hash_error(error)


def test_what_a_job_without_steps_says_is_kept(folder: Path) -> None:
    """The heartbeat tells the last message, the journal has all; tracebacks stand in
    the log alone, and what is said before or after is not of this job."""
    job_log.install_job_log()
    pulse = Pulse()
    journal = Journal(folder, attempts.begin_attempt(folder, "s"), "prepare", "")
    logger.info("before")
    with job_log.record_progress("preparing", journal, pulse):
        assert (pulse.doing, pulse.note) == ("starting", None)
        logger.info("records 1f: 3 examples of jsonl")
        logging.getLogger("zsg_core.data.any").warning("2 rows were passed over")
        logger.error("a traceback")
    logger.info("after")
    journal.close()

    assert (pulse.doing, pulse.note) == ("preparing", "2 rows were passed over")
    events = [row.data.event for row in read_journal(folder)]
    assert events == ["records 1f: 3 examples of jsonl", "2 rows were passed over"]


def test_an_error_of_the_journal_ends_the_job(folder: Path) -> None:
    """A superseded job must not go on as if nothing were."""

    class Broken:
        def rewind(self, **_: int) -> None:
            pass

        def add_note(self, text: str) -> None:
            raise attempts.Superseded("another attempt")

    job_log.install_job_log()
    with (
        pytest.raises(attempts.Superseded),
        job_log.record_progress("preparing", Broken(), Pulse()),  # type: ignore[arg-type]
    ):
        logger.info("written by whom?")


def test_a_process_that_repeats_itself_says_a_thing_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """But an error each time: how long a server was away is seen from its times."""
    job_log.install_job_log().addFilter(job_log.RepeatFilter())
    for _ in range(2):
        logger.info("its experiment is called archive")
        logger.error("no answer")

    levels = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert levels == ["INFO", "ERROR", "ERROR"]


def test_an_error_that_nobody_caught_is_logged_with_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the process beside a job."""
    job_log.install_job_log()
    error = ValueError("unforeseen")
    job_log.log_uncaught(ValueError, error, None)

    first, last = capsys.readouterr().err.splitlines()
    assert LINE.fullmatch(first) and " CRITICAL " in first
    assert last == "ValueError: unforeseen"


@pytest.mark.parametrize("module", ["jobs.entry", "jobs.tracking.mlflow_sync"])
def test_programs_log_by_their_names(module: str) -> None:
    """Run by `python -m` a module is called __main__, whose messages nobody would write."""
    source = Path(importlib.util.find_spec(module).origin or "")  # type: ignore[union-attr]
    assert f'logging.getLogger("{module}")' in source.read_text(encoding="utf-8")


@pytest.mark.parametrize("rank", [0, 1])
def test_an_end_tells_what_was_noted_of_the_examples(tmp_path: Path, rank: int) -> None:
    """However the run ended, and whichever rank tells it: rank 0 has counted, the other
    ranks have it from its heartbeat."""
    notes = ["7 questions were cut"]
    attempt = attempts.begin_attempt(tmp_path, "s")
    counted, own = Pulse(), Pulse()
    counted.notes = notes
    heartbeat = Heartbeat(tmp_path, attempt, counted)
    wait_until(lambda: read_heartbeat(tmp_path, attempt.nonce) is not None)
    heartbeat.stop()
    own.other_versions = "torch 2.1 here, 2.2 at the submit"
    start = entry.Start(
        tmp_path,
        attempt,
        Ranks(rank, 2, rank),
        SimpleNamespace(),
        own if rank else counted,
        entry.Past(None, None),
    )
    facts = entry.add_what_was_noted(start, {"cause": "out of memory", "notes": []})

    assert facts["cause"] == "out of memory" and facts["notes"] == notes
    assert facts.get("other_versions") == (own.other_versions if rank else None)
