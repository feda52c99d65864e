"""Are the files of a run folder written byte for byte as before they were typed
records? The golden bytes are those of the code before."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from jobs.contract import (
    answers,
    attempt,
    delivery_cursor,
    item_losses,
    leases,
    prepared,
    rendezvous,
    saved_state,
    snapshots,
)
from jobs.contract.attempt import Attempt
from jobs.contract.folder import Damaged
from jobs.contract.journal import Journal, read_file
from jobs.contract.journal_rows import (
    DigestRow,
    EventRow,
    ItemsRow,
    MetricRow,
    NoteRow,
    RewindRow,
    Row,
    decode_row,
)
from zsg_core.metrics.scoring import Answered

GOLDEN = Path(__file__).parent / "golden/journal_rows.jsonl"
LINES = GOLDEN.read_bytes().splitlines(keepends=True)
NOW = 1795951996778


def write_row(journal: Journal, row: Row) -> None:
    """Writes a row as the job does that makes rows of its class."""
    where = {"step": row.step, "examples": row.examples}
    match row:
        case MetricRow():
            journal.add_metrics(row.data, **where)
        case EventRow():
            journal.add_event(row.data, **where)
        case NoteRow():
            journal.add_note(row.data.event)
        case DigestRow():
            journal.add_digests(row.data, **where)
        case ItemsRow():
            journal.add_item_values(row.data, **where)
        case RewindRow():
            journal.add_rewind(row.data.sizes, **where)


def frame_of(line: bytes) -> dict[str, object]:
    """What a row tells whose content is of no account here."""
    row = json.loads(line)
    return {key: row[key] for key in ("seq", "ts", "attempt", "stage")}


def test_rows_are_written_as_before(tmp_path: Path) -> None:
    """One row of each kind and event, in one file; the order of the keys, too."""
    path = tmp_path / "journal/1-train-0.jsonl"
    writer = Attempt(1, "s", None, 0, "n", "h", 0)
    journal = Journal(tmp_path, writer, "train", "1", fence=lambda: None)
    for line in LINES:
        write_row(journal, decode_row(GOLDEN, line))
    journal.close()

    for written, line in zip(path.read_bytes().splitlines(True), LINES, strict=True):
        ours, golden = (json.dumps(frame_of(text)).encode() for text in (written, line))
        assert written.replace(ours[1:-1], golden[1:-1]) == line


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda row: row.pop("step"), id="no step"),
        pytest.param(lambda row: row.update(data=[]), id="data of another form"),
        pytest.param(lambda row: row.update(ts="noon"), id="a time that is a word"),
    ],
)
def test_what_is_no_row_is_told_with_the_path(change, tmp_path: Path) -> None:
    """Whatever the kind of row."""
    for line in LINES:
        row = json.loads(line)
        change(row)
        path = tmp_path / "1-train-0.jsonl"
        path.write_text(json.dumps(row) + "\n")
        with pytest.raises(Damaged, match=r"1-train-0\.jsonl: holds a row that is no"):
            list(read_file(path))


def test_a_later_zsgs_rows_and_keys_are_passed_over(tmp_path: Path) -> None:
    """An unknown kind of row, an unknown event and an unknown key end nothing."""
    path = tmp_path / "1-train-0.jsonl"
    row = json.loads(LINES[0]) | {"seq": 0}
    news = [
        row | {"kind": "gradient", "data": [1]},
        row | {"kind": "event", "data": {"event": "merged", "into": "x"}},
        row | {"kind": "metric", "data": {"loss": 1}, "node": "n"},
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in news))

    assert len(list(read_file(path))) == 3


SNAPSHOT = """{
 "step": 3,
 "attempt": 1,
 "probe_loss": "nan",
 "schema": 1,
 "weights": "c875bff2",
 "dtype": "float32",
 "bytes": 556288,
 "base": {
  "path": "w/bases/7a1c01c31d87",
  "digest": "f9f5520d"
 }
}
"""
STAGE_END = """{
 "step": 18,
 "steps": 18,
 "first": 0,
 "examples": 144,
 "loss": 1.5,
 "digest": "d0",
 "weights": "c875bff2",
 "skipped": 0,
 "snapshots": [],
 "schema": 1,
 "dtype": "bfloat16",
 "bytes": 556288,
 "base": {
  "path": "w/bases/7a1c01c31d87",
  "digest": "f9f5520d"
 }
}
"""


def test_the_meta_of_weights_is_written_as_before(tmp_path: Path) -> None:
    """Of a snapshot, and of the end of a stage."""
    base = snapshots.StartedFrom("w/bases/7a1c01c31d87", "f9f5520d")
    taken = snapshots.SnapshotMeta(step=3, attempt=1, probe_loss=float("nan"))
    filled = {"weights": "c875bff2", "bytes": 556288, "base": base}
    snapshots.write_meta(
        tmp_path, msgspec.structs.replace(taken, dtype="float32", **filled)
    )
    assert (tmp_path / "meta.json").read_text() == SNAPSHOT
    assert snapshots.read_meta(tmp_path).probe_loss == "nan"

    end = snapshots.StageEndMeta(
        step=18, steps=18, examples=144, loss=1.5, digest="d0", weights="before"
    )
    snapshots.write_meta(
        tmp_path, msgspec.structs.replace(end, dtype="bfloat16", **filled)
    )
    assert (tmp_path / "meta.json").read_text() == STAGE_END
    assert snapshots.read_end_meta(tmp_path).steps == 18


CURSOR = """{
 "sent": {
  "a": 3,
  "a/1-evaluate-0.jsonl": 2
 },
 "params": true,
 "state": {
  "state": "done",
  "attempt": "1",
  "ended": "1795964386330"
 },
 "seen": [
  [
   "1-train-0.jsonl",
   431
  ],
  1795964386310479284,
  "yes",
  "/w\\udce9"
 ],
 "results": null,
 "uri": "mlflow.db of the workspace",
 "run": "e92781e7364e486392ed0ff57aa761ff",
 "began": "1795964386322",
 "doubtful": false,
 "refilled": null,
 "old": null,
 "refilling": "loss of step 3: 1.5, was 1.25"
}
"""


def test_a_cursor_that_names_its_results_by_a_text_is_read(tmp_path: Path) -> None:
    """As some older zsg did; all that is asked is whether they are others by now."""
    path = delivery_cursor.locate_cursor(tmp_path, "grid")
    path.parent.mkdir(parents=True)
    path.write_text('{"sent": {"a": 3}, "params": true, "results": "0 0", "uri": "u"}')

    cursor = delivery_cursor.read_cursor(tmp_path, "grid")
    assert cursor.results == "0 0" and cursor.is_of("u")


def test_a_delivery_cursor_is_written_as_before(tmp_path: Path) -> None:
    """Also that of a workspace whose name is no UTF-8, and one being refilled."""
    path = delivery_cursor.locate_cursor(tmp_path, "grid")
    path.parent.mkdir()
    path.write_text(CURSOR)
    cursor = delivery_cursor.read_cursor(tmp_path, "grid")
    assert cursor.count_sent("a") == 3 and cursor.seen and cursor.seen[-1] == "/w\udce9"
    delivery_cursor.write_cursor(tmp_path, "grid", cursor)
    assert path.read_text() == CURSOR


@pytest.mark.parametrize(
    "text",
    ['{"uri": "u", "run": "r", "sent": 5, "state": null}', '{"uri": "u", "sent": {}}'],
)
def test_an_older_zsgs_cursor_is_of_no_store(text: str, tmp_path: Path) -> None:
    """It counted the points of all stages together: all is sent once more."""
    path = delivery_cursor.locate_cursor(tmp_path, "grid")
    path.parent.mkdir()
    path.write_text(text)

    assert not delivery_cursor.read_cursor(tmp_path, "grid").is_of("u")


STATE = """{
 "step": 25,
 "ids": "ids25",
 "what": {
  "run_id": "r",
  "stage_id": "s",
  "recipe": "c",
  "schedule": "d"
 },
 "way": {
  "device": "cpu",
  "world": 2,
  "zero_stage": 1
 },
 "journal": {
  "1-train-0.jsonl": 100
 },
 "seconds": 1.5,
 "loss": "nan",
 "attempt": 1,
 "saved": 1795951996778,
 "versions": {
  "torch": "2.13.0"
 },
 "schema": 1
}
"""
RENDEZVOUS = """{
 "slurm_job_id": "17",
 "restart_count": 1,
 "address": "10.0.0.7",
 "port": 29500
}
"""


def test_what_a_saved_state_is_of_is_written_as_before(tmp_path: Path) -> None:
    """Also where the last loss was no number."""
    path = tmp_path / "state.json"
    path.write_text(STATE)
    state = saved_state.read_saved_state(tmp_path)
    assert state and (state.step, state.loss) == (25, "nan")
    assert math.isnan(state.last_loss or 0.0)
    path.unlink()
    saved_state.write_saved_state(
        tmp_path, msgspec.structs.replace(state, loss=float("nan"))
    )
    assert path.read_text() == STATE

    path.write_text(STATE.replace('"step": 25', '"step": "last"'))
    with pytest.raises(Damaged, match=f"{path}: .*step`; remove the folder"):
        saved_state.read_saved_state(tmp_path)


def test_a_rendezvous_is_written_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of one start of the job."""
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    rendezvous.write_rendezvous(tmp_path, "10.0.0.7", 29500)
    path = tmp_path / "rendezvous.json"
    assert path.read_text() == RENDEZVOUS
    meeting = rendezvous.read_rendezvous(tmp_path)
    assert meeting and meeting.is_of_this_start
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert not meeting.is_of_this_start

    path.write_text('{"address": "10.0.0.7"}')
    with pytest.raises(Damaged, match=f"{path}: is not what zsg writes there"):
        rendezvous.read_rendezvous(tmp_path)


TOKENS = """{
 "schema": 1,
 "examples": 3,
 "tokens": 17
}
"""


def test_the_meta_of_prepared_things_is_written_as_before(tmp_path: Path) -> None:
    """And read as far as others need it, whatever else stands there."""
    path = tmp_path / "meta.json"
    prepared.write_prepared_meta(tmp_path, prepared.TokensMeta(examples=3, tokens=17))
    assert path.read_text() == TOKENS
    prepared.write_prepared_meta(tmp_path, prepared.BaseLossesMeta(items=4))
    assert path.read_text() == '{\n "items": 4\n}\n'

    sources = {"corpus": "c", "corpus_meta": {"train_digest": "t", "count": 3}}
    path.write_text(json.dumps({"schema": 1, "ids_digest": "i", "sources": sources}))
    meta = prepared.read_arrangement_meta(tmp_path)
    assert meta and (meta.ids_digest, meta.corpus.train_digest) == ("i", "t")
    path.write_text('{"digest": 5}')
    with pytest.raises(Damaged, match=f"{path}: .*digest`; remove the folder, and"):
        prepared.read_base_meta(tmp_path)


LEASE = """{
 "nonce": "0123456789abcdef0123456789abcdef",
 "holder": "evaluate/a",
 "host": "node7",
 "journal": "1-evaluate-0.jsonl",
 "keys": [
  "rouge1",
  "rougeL"
 ],
 "since": 1795951996778
}
"""
TEST_SET = """{
 "ids": [
  "a:0",
  "b:é"
 ],
 "tasks": [
  "a",
  "b"
 ],
 "tokens": [
  7,
  8
 ],
 "parts": {
  "loss_quick_1": [
   1
  ]
 }
}
"""
SUITE = """{
 "ids": [
  "g:0"
 ],
 "tasks": [
  "g"
 ],
 "tokens": [
  0
 ],
 "parts": {}
}
"""


def test_a_lease_is_written_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who holds it, for others to read."""
    nonce = SimpleNamespace(hex="0123456789abcdef" * 2)
    monkeypatch.setattr(leases.uuid, "uuid4", lambda: nonce)
    monkeypatch.setattr(attempt, "now_ms", lambda: NOW)
    monkeypatch.setattr(attempt, "get_node_name", lambda: "node7")
    path = leases.path_of(tmp_path, 5, "test_set")
    leases.claim_lease(path, "evaluate/a", "1-evaluate-0.jsonl", ["rouge1", "rougeL"])

    assert path == tmp_path / "queue/5.test_set.lease"
    assert path.read_text() == LEASE


def test_lists_of_items_are_written_as_before(tmp_path: Path) -> None:
    """Of a test set, and of a benchmark."""
    item_losses.describe_items(
        tmp_path, ["a:0", "b:é"], ["a", "b"], [7, 8], {"loss_quick_1": [1]}
    )
    item_losses.describe_suite(tmp_path, "gsm8k-1a2b3c4d", ["g:0"], ["g"])

    assert (tmp_path / "test_set.json").read_text() == TEST_SET
    assert (tmp_path / "gsm8k-1a2b3c4d.json").read_text() == SUITE


ANSWERS = (
    '{"schema": 1, "weights": null, "probe_loss": NaN, "engine": "transformers",'
    ' "device": "cpu", "versions": {"torch": "2.13.0+cpu"}, "swap_s": 0.5,'
    ' "generate_s": 0.25, "tokens": 48, "asked": {"items": 6}, "slurm_job_id": "12_3",'
    ' "nodes": "n1", "by": "evaluate/50c00788", "step": 0, "suite": "test_set",'
    ' "how": {"decoding": "nucleus", "top_p": 0.9, "items": null},'
    ' "items": [["a:0", "a", "What?\\n", ["x"], "é"]]}\n'
)


def test_answers_are_written_as_before(tmp_path: Path) -> None:
    """A line has how they came about, and them; what is no number is read, too."""
    about = answers.Asked(
        0, "test_set", {"decoding": "nucleus", "top_p": 0.9, "items": None}
    )
    generation = answers.Generation(
        weights=None,
        probe_loss=float("nan"),
        engine="transformers",
        device="cpu",
        versions={"torch": "2.13.0+cpu"},
        swap_s=0.5,
        generate_s=0.25,
        tokens=48,
        asked={"items": 6},
        slurm_job_id="12_3",
        nodes="n1",
        by="evaluate/50c00788",
    )
    item = Answered(id="a:0", task="a", prompt="What?\n", references=("x",), answer="é")
    place = answers.keep_answers(tmp_path, "w.jsonl", about, generation, [item])

    assert (tmp_path / place.file).read_text(encoding="utf-8") == ANSWERS
    assert answers.read_answers(tmp_path, place) == [item]
