"""Writes weights in the background: every rank its share, into a folder that is there
whole or not at all.

    <parent>/.<name>.<nonce>/   a draft: what each rank has written, and
                                report-<rank>.json once that is on disk
    <parent>/<name>/            the same with index, config, tokenizer, meta.json and, last, COMMIT

Training waits while a rank copies its share of the weights; a thread hashes, writes and
syncs the copy. Rank 0's gives the folder its name when all ranks have reported. They
meet in the draft: a thread must not use collectives.
"""

import contextlib
import json
import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.distributed as dist

from jobs.contract import attempt as attempts
from jobs.contract import snapshots as records
from jobs.contract import stages
from jobs.contract.attempt import Attempt, Superseded
from jobs.contract.folder import (
    META,
    Damaged,
    commit_draft,
    is_whole,
    read_json,
    sync_to_disk,
    write_json,
)
from jobs.contract.job_file import TrainJob
from jobs.contract.prepared import ADVICE, read_base_meta
from jobs.contract.snapshots import Meta, SnapshotMeta, StageEndMeta, StartedFrom
from jobs.files import ordinary_files, ownership
from jobs.files.model_file_names import GENERATION
from jobs.model import content, lora, weights
from jobs.runtime.ranks import Ranks
from jobs.training import reader_notes
from jobs.training.host_buffers import make_buffers
from zsg_core.errors import ClusterError

IN_FLIGHT = 2  # copies per rank; a third waits for the disk
POLL_S = 0.02
CONFIG = "config.json"
# within which rank 0 sees what another rank has written to a shared disk
SEEN_S = 300.0

Copy = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Base:
    """The weights that a run started from. `eos`: the token that answers are trained to
    end with, where it is known."""

    path: Path
    digest: str
    eos: int | None = None

    @classmethod
    def of(cls, job: TrainJob) -> "Base":
        """A train job's: a folder of the user's, a base that zsg has made, or the end
        of the stage before."""
        path, digest = job.base_folder, job.recipe["base"].get("digest")
        if continued := stages.find_continued(job):
            base = records.read_end_meta(continued).base
            return cls(Path(base.path), base.digest)
        if job.before:
            digest = records.read_end_meta(path).weights or ""
        elif job.made.base:
            meta = read_base_meta(path)
            if meta is None or meta.digest is None:
                raise Damaged(f"{path / META}: has no digest of the base; {ADVICE}")
            digest = meta.digest
        return cls(path, digest)


@dataclass(frozen=True, kw_only=True)
class Written:
    """A folder that is there. `again`: the digest of weights that were not written, as
    it was there before."""

    folder: Path
    meta: Meta
    seconds: float  # since the copy was handed over
    again: str | None

    @property
    def digest(self) -> str:
        return self.meta.weights or ""

    @property
    def bytes(self) -> int:
        return self.meta.bytes


@dataclass(frozen=True)
class _Task:
    folder: Path
    draft: Path
    meta: Meta  # as far as it is known
    copy: Copy
    since: float


class WeightFolders:
    """Writes the weights of an engine. `copy`, `write` and `finish` are called by all
    ranks together."""

    def __init__(
        self,
        engine: Any,
        run: Path,
        attempt: Attempt,
        ranks: Ranks,
        base: Base,
        then: Callable[[Written], None] = lambda written: None,
    ) -> None:
        """`then` is called on rank 0's thread for each folder that is there."""
        self._engine, self._run, self._attempt, self._ranks, self._then = (
            engine,
            run,
            attempt,
            ranks,
            then,
        )
        self._base = base
        adapters = weights.adapter_parts(engine)
        self._parts = adapters or weights.list_tensors(engine)
        # PEFT reads one file; adapters are small.
        owners = weights.assign_readers(self._parts, 1 if adapters else ranks.world)
        self._mine = [
            tensor for tensor in self._parts if owners[tensor.name] == ranks.rank
        ]
        self._shard = (
            lora.WEIGHTS_FILE
            if adapters
            else f"model-{ranks.rank + 1:05}-of-{ranks.world:05}.safetensors"
        )
        self._is_adapter = bool(adapters)
        # by which transformers loads the folder
        self._class = type(engine.module.model).__name__
        self._side = torch.cuda.Stream() if torch.cuda.is_available() else None
        self._free: queue.Queue[Copy] = queue.Queue()
        self._made = 0
        self._held: Copy | None = None
        self._waited_s = 0.0
        self._tasks: queue.Queue[_Task | None] = queue.Queue()
        self._unpublished: list[_Task] = []
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def is_used(self) -> bool:
        """Whether anything was copied or room made for it; on all ranks alike."""
        return self._made > 0

    def reserve(self) -> None:
        """Makes the room for copies now: pinned memory takes seconds to get."""
        while self._made < IN_FLIGHT:
            self._free.put(self._new_copy())

    def copy(self) -> None:
        """Copies the weights as they are; until `write` is called, they must not change."""
        started = time.perf_counter()
        self.raise_error()
        self._held = self._room()
        for described, tensor in weights.gather_tensors(self._engine, self._parts):
            if described.name in self._held:
                self._copy_one(self._held[described.name], tensor)
        self._waited_s = time.perf_counter() - started

    def write(self, folder: Path, meta: Meta) -> float:
        """Has the copy written to `folder`, with `meta` and what is known of the weights
        then; returns for how long training has stood still.

        That is what `copy` and `write` took on the slowest rank, in seconds.
        """
        started = time.perf_counter()
        assert self._held is not None, "copy comes before write"
        if self._side:
            self._side.synchronize()
        self.raise_error()
        draft = folder.with_name(f".{folder.name}.{self._attempt.nonce}")
        task = _Task(folder, draft, meta, self._held, time.monotonic())
        self._held = None
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, name="weights", daemon=True
            )
            self._thread.start()
        self._tasks.put(task)
        stood_s = torch.tensor(
            self._waited_s + time.perf_counter() - started, device=self._engine.device
        )
        dist.all_reduce(stood_s, op=dist.ReduceOp.MAX)
        return stood_s.item()

    def finish(self, within_s: float | None = None) -> bool:
        """Returns when all is written, or False if some rank has not written its share
        `within_s` seconds.

        Raises ClusterError on all ranks if one of them could not write.
        """
        is_written = self._wait(lambda: self._free.qsize() == self._made, within_s)
        if not self._all(is_written):
            return False
        seen = self._wait(
            lambda: not self._ranks.is_main or not self._unpublished, SEEN_S
        )
        if not seen and not self._error:
            self._error = ClusterError(
                f"{self._unpublished[0].draft}: what the other ranks wrote cannot be seen"
            )
        self._all(seen)
        if self._thread:
            self._tasks.put(None)
            self._thread.join()
            self._thread = None
        return True

    def raise_error(self) -> None:
        """Raises what this rank's thread has met: ClusterError with path and reason, or
        Superseded."""
        if self._error:
            raise self._error

    def _all(self, is_so: bool) -> bool:
        """Whether it is so on all ranks; raises on all what has gone wrong on one."""
        answers: list[Any] = [None] * self._ranks.world
        dist.all_gather_object(answers, (is_so, self._error and str(self._error)))
        self.raise_error()
        for rank, (_, problem) in enumerate(answers):
            if problem:
                raise ClusterError(f"rank {rank}: {problem}")
        return all(so for so, _ in answers)

    def _wait(self, question: Callable[[], bool], within_s: float | None) -> bool:
        """Waits until `question` says yes or the writer has failed; False after
        `within_s` seconds without either (None: for ever). A failure counts as an
        answer, and the caller raises it on all ranks together."""
        until = None if within_s is None else time.monotonic() + within_s
        while not self._error and not question():
            if until is not None and time.monotonic() > until:
                return False
            time.sleep(POLL_S)
        return True

    def _room(self) -> Copy:
        with contextlib.suppress(queue.Empty):
            return self._free.get_nowait()
        if self._made < IN_FLIGHT:
            return self._new_copy()
        self._wait(lambda: not self._free.empty(), None)
        self.raise_error()
        return self._free.get_nowait()

    def _new_copy(self) -> Copy:
        self._made += 1
        return make_buffers(self._mine, is_pinned=self._side is not None)

    def _copy_one(self, buffer: torch.Tensor, tensor: torch.Tensor) -> None:
        if self._side is None:
            buffer.copy_(tensor)
            return
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            buffer.copy_(tensor, non_blocking=True)
        # ZeRO-3 gives a gathered tensor back before the copy has been made
        tensor.record_stream(self._side)

    # What follows runs on the thread.

    def _work(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:  # handed to the trainer, which stops on it
            self._error = error

    def _turn(self) -> bool:
        try:
            task = self._tasks.get(timeout=POLL_S if self._unpublished else None)
        except queue.Empty:
            pass
        else:
            if task is None:
                return False
            if self._ranks.is_main:
                self._unpublished.append(task)
            with self._explaining(task):
                self._write_share(task)
            self._free.put(task.copy)
        while self._unpublished and (reports := self._reports(self._unpublished[0])):
            task = self._unpublished[0]
            with self._explaining(task):
                written = self._publish(task, reports)
                self._then(written)
            self._unpublished.pop(0)
        return True

    @contextlib.contextmanager
    def _explaining(self, task: _Task) -> Any:
        from safetensors import SafetensorError

        try:
            yield
        except Superseded:
            shutil.rmtree(task.draft, ignore_errors=True)
            raise
        except (OSError, SafetensorError) as error:
            # a full disk must take the record of this end
            shutil.rmtree(task.draft, ignore_errors=True)
            # a newer attempt removes the drafts of older ones
            attempts.check_attempt(self._run, self._attempt)
            raise ClusterError(
                f"the weights of step {task.meta.step} could not be written to {task.folder}"
                f" ({error}); those written before are intact"
            ) from error

    def _write_share(self, task: _Task) -> None:
        from safetensors.torch import save_file

        attempts.check_attempt(self._run, self._attempt)
        ownership.make_folder(task.draft)
        published = self._publish_copy(task.copy)
        report: dict[str, Any] = {
            "tensors": {
                name: weights.tensor_digest(tensor)
                for name, tensor in published.items()
            }
        }
        report |= {
            "bytes": sum(described.bytes for described in self._mine),
            "file": None,
        }
        if self._mine and not is_whole(task.folder):
            save_file(published, task.draft / self._shard, metadata={"format": "pt"})
            sync_to_disk(task.draft / self._shard)
            report["file"] = self._shard
        write_json(task.draft / f"report-{self._ranks.rank}.json", report)

    def _publish_copy(self, copy: Copy) -> Copy:
        """The tensors of a copy as the folder has them."""
        if self._is_adapter:
            return copy
        published: Copy = {}
        for name, tensor in copy.items():
            views = weights.publish_tensor(self._engine, name, tensor)
            published |= {key: view.contiguous() for key, view in views.items()}
        return published

    def _reports(self, task: _Task) -> list[dict[str, Any]]:
        """Those of all ranks; none as long as one is missing."""
        paths = [
            task.draft / f"report-{rank}.json" for rank in range(self._ranks.world)
        ]
        return (
            [json.loads(path.read_text()) for path in paths]
            if all(path.exists() for path in paths)
            else []
        )

    def _publish(self, task: _Task, reports: list[dict[str, Any]]) -> Written:
        """Makes a draft the folder of a checkpoint when all ranks have written their
        files, and tells what lies there. One that another attempt has made first
        stays."""
        digest = weights.combine_digests(
            {
                name: tensor_digest
                for report in reports
                for name, tensor_digest in report["tensors"].items()
            }
        )
        size = sum(report["bytes"] for report in reports)
        attempts.check_attempt(self._run, self._attempt)
        if all(report["file"] or not report["tensors"] for report in reports):
            for rank in range(self._ranks.world):
                (task.draft / f"report-{rank}.json").unlink()
            is_start = isinstance(task.meta, StageEndMeta)
            self._complete(task.draft, reports, size, is_start=is_start)
            meta = msgspec.structs.replace(
                task.meta,
                weights=digest,
                dtype=self._dtype,
                bytes=size,
                base=StartedFrom(str(self._base.path), self._base.digest),
            )
            records.write_meta(task.draft, meta)
            commit_draft(task.draft, task.folder)
        # A draft that is left was not needed: the first to be committed counts.
        is_new = not task.draft.exists()
        shutil.rmtree(task.draft, ignore_errors=True)
        is_snapshot = isinstance(task.meta, SnapshotMeta)
        read_meta = records.read_meta if is_snapshot else records.read_end_meta
        return Written(
            folder=task.folder,
            meta=read_meta(task.folder),
            seconds=time.monotonic() - task.since,
            again=None if is_new else digest,
        )

    def _complete(
        self, draft: Path, reports: list[dict[str, Any]], size: int, *, is_start: bool
    ) -> None:
        """Adds what makes weights a folder that Hugging Face loads. `is_start`: that
        other runs start from, and so ask it what the model is."""
        of_model = [CONFIG, GENERATION] if is_start else []
        for path in content.copied_files(
            self._base.path, *(of_model if self._is_adapter else [GENERATION])
        ):
            copied = draft / path.relative_to(self._base.path)
            ownership.make_folder(copied.parent)
            ordinary_files.copy_file(self._base.path, path, copied)
        base, eos = self._base.path, self._base.eos
        if self._is_adapter:
            settings = weights.adapter_settings(self._engine, base)
            write_json(draft / lora.SETTINGS_FILE, settings)
            table = lora.find_adapted_table(self._engine.module.model)
            reader_notes.write_readme(draft, base, table, eos)
            return
        reader_notes.name_end_in_file(draft / GENERATION, eos)
        config = reader_notes.name_end(read_json(base / CONFIG) or {}, eos)
        config.pop("torch_dtype", None)
        write_json(
            draft / CONFIG,
            config | {"dtype": self._dtype, "architectures": [self._class]},
        )
        shard_of = {
            name: report["file"] for report in reports for name in report["tensors"]
        }
        index = {
            "metadata": {"total_size": size},
            "weight_map": dict(sorted(shard_of.items())),
        }
        write_json(draft / "model.safetensors.index.json", index)

    @property
    def _dtype(self) -> str:
        return str(self._parts[0].parameter.dtype).removeprefix("torch.")
