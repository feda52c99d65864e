"""Knows every file of a workspace and of a job's folder: names, schemas, atomic writes.

workspace/
  ledger.jsonl           the launcher's record of submissions
  runs/<run id>/         one train job: job.json attempt.json exit.json journal/ delivery/
                         rendezvous.json state/ heartbeat.json test_set.json, weights/
                         and users/ where other runs start from it,
                         past_attempts.jsonl where there was more than one attempt
    snapshots/<step>/    the weights after a step, a Hugging Face folder:
                         model-0000r-of-0000W.safetensors of each rank, their index,
                         config and tokenizer (LoRA: adapter_model.safetensors and
                         adapter_config.json, to be put on the base they name),
                         meta.json, COMMIT
    queue/               <step>.<suite>.lease while somebody evaluates that snapshot: it
                         is not removed
    answers/             what the model answered at each checkpoint: see jobs.contract.answers
    <suite>-<digest>.json  which items a benchmark has whose scores are in the journal,
                           as test_set.json does
    representations/     hidden states at each checkpoint: see jobs.evaluating.hidden_state_store;
                         norms of examples' gradients: see jobs.evaluating.gradients
  prepare/<key>/         one prepare job:  job.json attempt.json exit.json journal/ heartbeat.json
  evaluate/<key>/        one evaluate job: the same; what it finds goes to the runs that it serves
  checks/<id>/           one check of the nodes: the same, ranks/, report.json and
                         report.txt: see jobs.contract.node_check
  records/<id>/          one data set, normalised: *.arrow tasks.json meta.json COMMIT,
                         and what `datasets` reads
  replies/<id>/          what a model replied to a maker of data, for every set that is
                         made of the same requests; nobody is asked twice: see
                         jobs.preparing.reply_log
  corpora/<id>/          places in records: train.npy test.npy meta.json COMMIT;
                         shots.npy with few_shot; notes.json where there is to tell
  embeddings/<id>/       vectors.npy meta.json COMMIT: the vectors of one list of texts
  scores/<id>/           scores.jsonl meta.json COMMIT: a score by a model of each training
                         example; .<id>.draft/ while they are made, see jobs.scoring.score_job
  arrangements/<id>/     ids places.npy meta.json COMMIT, target where it looks at a target set
  first_losses/<id>/     losses.npy COMMIT: what a base scores on a test set before it is trained
  tokens/<id>/           an arrangement as a model's token ids: ids.npy spans.npy
                         ends.npy meta.json COMMIT
  bases/<id>/            a tiny model and its tokenizer in Hugging Face form, meta.json, COMMIT
  model-proofs/          how examples of a kind of model may meet in a batch: see
                         jobs.contract.model_proof
  chat-trials/<id>/      a model's chat template wrote all examples of a corpus:
                         meta.json COMMIT
  code/<digest>/         the packages that jobs import, as they were when submitted,
                         COMMIT; <commit>.patch
  submissions/<id>/      what submitit writes, and the logs
  downloads/<o>+<n>/     data sets of the Hugging Face hub: <commit>/<split>/ with their
                         files, meta.json, COMMIT
  grids/<name>/          the grid file as last submitted, and which runs it wants
  ratings.jsonl          what judges said of answers, by the digest of the answer;
                         nobody is asked twice
  notices.jsonl          what there was to tell the user, and what was told: see
                         jobs.contract.notices
  ended.json journals.json .clock
                         what `zsg status` remembers; derived, may be removed
"""

import contextlib
import json
import logging
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import msgspec

from jobs.files import file_errors, locks, ownership
from zsg_core.errors import ClusterError

logger = logging.getLogger(__name__)

SCHEMA = 1
# bytes of a file that is read whole; a grid of 10,000 runs has a tenth
MOST_JSON = 512 << 20
COMMIT = "COMMIT"
META = "meta.json"  # what a made thing tells of itself
# of a corpus: what whoever reads its results must know, in words; absent where there is nothing
NOTES = "notes.json"
CHAT_TRIALS = "chat-trials"
SCORES = "scores"


@dataclass(frozen=True)
class Workspace:
    """The paths under one workspace folder."""

    root: Path

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    @property
    def ratings(self) -> Path:
        return self.root / "ratings.jsonl"

    @property
    def submit_lock(self) -> Path:
        return self.root / "submit.lock"

    @property
    def digest_cache(self) -> Path:
        return self.root / "digests.json"

    @property
    def ends(self) -> Path:
        return self.root / "ended.json"

    @property
    def journal_checks(self) -> Path:
        return self.root / "journals.json"

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    @property
    def mlflow_db(self) -> Path:
        return self.root / "mlflow.db"

    def run(self, run_id: str) -> Path:
        return self.root / "runs" / run_id

    def prepare(self, key: str) -> Path:
        return self.root / "prepare" / key

    def records(self, records_id: str) -> Path:
        return self.root / "records" / records_id

    def replies(self, asking_id: str) -> Path:
        return self.root / "replies" / asking_id

    def corpus(self, corpus_id: str) -> Path:
        return self.root / "corpora" / corpus_id

    def embedding(self, embedding_id: str) -> Path:
        return self.root / "embeddings" / embedding_id

    def scores(self, scores_id: str) -> Path:
        return self.root / SCORES / scores_id

    def arrangement(self, arrangement_id: str) -> Path:
        return self.root / "arrangements" / arrangement_id

    def tokens(self, tokens_id: str) -> Path:
        return self.root / "tokens" / tokens_id

    def base(self, base_id: str) -> Path:
        return self.root / "bases" / base_id

    def first_losses(self, losses_id: str) -> Path:
        return self.root / "first_losses" / losses_id

    @property
    def model_proofs(self) -> Path:
        return self.root / "model-proofs"

    def chat_trial(self, trial_id: str) -> Path:
        return self.root / CHAT_TRIALS / trial_id

    def code(self, digest: str) -> Path:
        return self.root / "code" / digest

    def submission(self, submission_id: str) -> Path:
        return self.root / "submissions" / submission_id

    def grid(self, name: str) -> Path:
        return self.root / "grids" / name

    def create(self) -> None:
        """Makes the folder, open to its owner only."""
        if not self.root.is_dir():
            ownership.make_private_folder(self.root)


def get_object(value: object) -> dict[str, Any]:
    """A parsed JSON value, if it is an object; else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def is_committed(folder: Path) -> bool:
    """Whether a made thing was whole once: its marker is written last. OSError where
    nobody can tell."""
    try:
        return stat.S_ISREG((folder / COMMIT).stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_whole(folder: Path) -> bool:
    """Whether a made thing is there and no file of it is missing or cut."""
    return is_committed(folder) and find_damage(folder) is None


def find_damage(folder: Path) -> str | None:
    """Which file of a made thing is missing, or has another size than was written: a
    scratch file system removes files that are old, a disk that fails cuts some. None
    where all are there, and for what an older zsg has made: it listed no files.

    Reads no file but the marker.
    """
    try:
        sizes = _read_sizes(folder / COMMIT)
    except (FileNotFoundError, NotADirectoryError):
        return f"{COMMIT} is missing"
    except Damaged as error:
        return str(error)
    for name, size in sizes.items():
        try:
            now = (folder / name).stat().st_size
        except FileNotFoundError:
            return f"{name} is missing"
        if now != size:
            return f"{name} has {now:,} bytes, {size:,} were written"
    return None


def _read_sizes(marker: Path) -> dict[str, int]:
    """The files that a marker lists, with their bytes; none where an older zsg made it.
    FileNotFoundError where it is removed, also between the two looks."""
    if marker.stat().st_size == 0:
        return {}
    content = read_json(marker)
    if content is None:
        raise FileNotFoundError(marker)
    return get_object(get_object(content).get("files"))


def sync_one_by_one(paths: Iterable[Path]) -> None:
    """Brings files and folders to the disk."""
    for path in paths:
        sync_to_disk(path)


Sync = Callable[[Iterable[Path]], None]


@contextlib.contextmanager
def publish_folder(folder: Path, sync: Sync = sync_one_by_one) -> Generator[Path]:
    """Yields a temporary folder that becomes `folder` in one rename, its commit marker
    written last. `sync`: how its files are brought to the disk before.

    Two jobs may make the same thing at once: it is the same, so the first to finish wins.
    """
    ownership.make_folder(folder.parent)
    draft = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    ownership.make_folder(draft)
    try:
        yield draft
        commit_draft(draft, folder, sync)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def commit_draft(draft: Path, folder: Path, sync: Sync = sync_one_by_one) -> None:
    """Renames a draft, marked and on disk, to its final name; where that is whole
    already, it stays as it is. The marker lists the files with their sizes."""
    paths = sorted(draft.rglob("*"))
    for path in paths:
        ownership.share_file(path)
    sync(paths)
    sizes = {
        str(path.relative_to(draft)): path.stat().st_size
        for path in paths
        if path.is_file()
    }
    marker = draft / COMMIT
    marker.write_text(to_json({"schema": SCHEMA, "files": sizes}), encoding="utf-8")
    for path in (marker, draft):
        sync_to_disk(path)
    _set_remnant_aside(folder)
    try:
        draft.rename(folder)
    except OSError:
        if not is_whole(folder):
            raise
    sync_to_disk(folder.parent)


def _set_remnant_aside(folder: Path) -> None:
    """Gives what is left of a made thing that has lost files a name of a dead draft,
    under which zsg gc removes it."""
    if not os.path.lexists(folder) or is_whole(folder):
        return
    damage = find_damage(folder)
    logger.warning(f"{folder}: {damage}; it is made again")
    try:
        aside = set_aside(folder)
    except PermissionError as error:
        raise Damaged(
            f"{folder}: {damage}; it is to be made again, but cannot be replaced:"
            f" {file_errors.describe_error(error)}. Whose it is may remove it: rm -r, then retry"
        ) from error
    if is_whole(aside):  # another process has made it again meanwhile
        with contextlib.suppress(OSError):  # and a third one, too
            aside.rename(folder)


def set_aside(folder: Path) -> Path:
    """Gives a made thing that cannot be used the name of a dead draft, which is
    returned; nothing where another process was quicker."""
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
    return aside


@contextlib.contextmanager
def lock_folder(folder: Path) -> Generator[None]:
    """Holds other processes off from making `folder` until this one is done or dead."""
    ownership.make_folder(folder.parent)
    with locks.hold_record_lock(folder.parent / f".{folder.name}.lock"):
        yield


def write_json(path: Path, value: Any) -> None:
    """Writes JSON that is either the old or the new text, whatever dies."""
    write_text(path, to_json(value, indent=1) + "\n")


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that can be written as UTF-8, readable in any script.

    Names of files that are no UTF-8, which Python reads as halves of characters, are
    written as escapes; reading gives back what they were.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, allow_nan=False)
    if indent is None:
        return text
    # To the byte what `json.dumps(…, indent=indent)` writes, which takes ten times as
    # long: its encoder is then the one in Python.
    return msgspec.json.format(text, indent=indent)


def write_text(path: Path, text: str) -> None:
    """Writes to a temporary name, syncs, renames."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes to a temporary name, syncs, renames."""
    ownership.make_folder(path.parent)
    draft = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    try:
        with name_file_in_errors(path), draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def name_file_in_errors(path: Path) -> Generator[None]:
    """Gives an OSError the file's name: a write to a full disk does not say to what."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


class Damaged(ClusterError, ValueError):
    """A file of a workspace is not what zsg wrote there."""


class Unreadable(Damaged):
    """A file of a workspace cannot be read by this user, or at this moment: what it
    holds may be sound."""


def make_unreadable(path: Path, error: OSError) -> Unreadable:
    """The error for a file that the system refuses to read; where a right lacks, it says
    whose the file is."""
    error.filename = str(path)  # a read does not say of what
    return Unreadable(file_errors.describe_error(error))


def list_paths(folder: Path, pattern: str) -> list[Path]:
    """The paths in a folder whose names fit a pattern, in order; none where there is no
    folder.

    OSError for one that may not be read, which Path.glob takes for an empty one.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208  as names, which are matched
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in sorted(names) if fnmatchcase(name, pattern)]


def read_json(path: Path) -> Any | None:
    """The JSON of a file, or None if there is none. Damaged for what is none, or of
    more than MOST_JSON bytes; Unreadable for what the system refuses."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_JSON + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise make_unreadable(path, error) from error
    if len(text) > MOST_JSON:
        raise Damaged(
            f"{path}: has more than {MOST_JSON:,} bytes; zsg wrote less there"
        )
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Damaged(
            f"{path}: is no JSON any more ({str(error)[:200]}); zsg wrote it whole, so look at the"
            " disk"
        ) from None


def sync_to_disk(path: Path) -> None:
    """Brings a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
