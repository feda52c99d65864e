"""The evaluate job: takes metrics of the checkpoints of several runs, as their snapshots come, with one loaded model.

Its `serves` lists the runs, and of each the metrics that are wanted and how each is taken. Of a step that lacks some,
it takes the lease (leases), puts the snapshot's weights into the model and proves that they are there (held_weights),
answers the items (generate), keeps the answers (answers), scores them, looks inside the model (representations), and
journals what it found in the run's folder. The row of metrics comes last, so a step is scored as a whole or not at all;
killed at any moment, it leaves a lease that another takes over. It ends when all its runs have ended and nothing is
left, or after some idle minutes; where it drains, it waits for what others hold and does not idle.
"""

import contextlib
import importlib.metadata
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jobs import attempt as attempts
from jobs import journal as journals
from jobs.attempt import Attempt
from jobs.evaluating import answers, evaluations, leases
from jobs.evaluating.generate import Generator
from jobs.evaluating.held_weights import HeldWeights, alone, refuse_other
from jobs.evaluating.leases import Keeper, Lost
from jobs.evaluating.representations import Inside
from jobs.folder import Workspace, is_committed, read_json
from jobs.journal import Journal
from jobs.preparing.base_model import Vocabulary, load_vocabulary
from jobs.ranks import Ranks
from jobs.training import item_losses
from jobs.training.held_out import HeldOutLoss, summary
from jobs.training.train_sets import test_set
from zsg_core import schedule, splits
from zsg_core.errors import ClusterError, ZsgError
from zsg_core.recipe import tested
from zsg_core.scores import metrics
from zsg_core.scores.scoring import Answered, Scores
from zsg_core.settings.representations import Ways

POLL_S = 2.0
SEED = 0  # of which items are answered where not all are: the same in all runs of the data
VERSIONS = ("torch", "transformers")

Say = Callable[[str], None]


@dataclass
class Done:
    """What the exit record tells: how many steps were scored, in how many of them weights were put into the model."""

    scored: int = 0
    swaps: int = 0
    loads: int = 0
    lost: int = 0  # leases that another took over


def run(job: dict[str, Any], item: str, attempt: Attempt, say: Say) -> Done:
    """Evaluates until nothing is left. Raises ClusterError at its end if a step could not be evaluated."""
    return Evaluator(job, item, attempt, say).run()


@dataclass(eq=False)
class Served:
    """A run that is served: what is wanted of it, and its test set as this model reads it."""

    folder: Path
    keys: list[str]
    how: dict[str, Any]  # how answers are made
    inside: Ways = field(default_factory=dict)  # the keys that are taken inside the model, and how each is
    journal: Journal | None = None
    troubles: dict[int, str] = field(default_factory=dict)  # steps that could not be evaluated, and why
    _read: tuple[list[tuple[Path, int]], evaluations.Taken] = field(default=([], {}))

    @cached_property
    def job(self) -> dict[str, Any]:
        """The run's own job.json."""
        found = read_json(self.folder / "job.json")
        assert found is not None, "a run that is served was submitted"
        return found

    @cached_property
    def vocabulary(self) -> Vocabulary:
        steps = evaluations.there(self.folder, is_first_stage=False)
        return load_vocabulary(self.folder / "snapshots" / str(steps[-1]) if steps else Path(self.job["paths"]["base"]))

    @cached_property
    def test(self) -> Any:
        """(tokens, examples) of the run's test set."""
        return test_set(self.job, self.vocabulary)

    @cached_property
    def places(self) -> list[int]:
        """Which items of the test set are answered."""
        tokens, _ = self.test
        count = self.how["items"]
        return list(range(len(tokens))) if count is None else splits.stratified(tokens.tasks, count, SEED)

    @cached_property
    def prompts(self) -> list[list[int]]:
        """What stands before the last answer of each of them, as the loss reads it."""
        tokens, _ = self.test
        return [tokens.encoded[place].prompt for place in self.places]

    def open_steps(self) -> Iterator[int]:
        """The steps that lack a metric and have weights, those included that others are at."""
        if not (self.folder / "job.json").exists():
            return
        found, is_first = self.taken(), not self.job["before"]
        for step in evaluations.there(self.folder, is_first):
            is_open = step not in self.troubles and evaluations.lacking(self.keys, step, found)
            if is_open and (step or self._has_begun):
                yield step

    def taken(self) -> evaluations.Taken:
        """What evaluators have journalled, read again where a file of theirs has grown."""
        now = [(path, path.stat().st_size) for path in journals.guest_files(self.folder)]
        if now != self._read[0]:
            self._read = now, evaluations.taken(self.folder)
        return self._read[1]

    @property
    def _has_begun(self) -> bool:
        """Whether the loss of the base has been journalled: before, nothing proves what is held."""
        told = self.told(0)
        return told is not None and told[0] is not None

    def told(self, step: int) -> tuple[float | None, int] | None:
        """The trainer's loss at a step, and the examples up to there; None where it has journalled nothing of it."""
        found: tuple[float | None, int] | None = None
        for row in journals.by_writer(self.folder)[""]:
            if row["kind"] == "metric" and row["step"] == step:
                loss = row["data"].get("loss", found and found[0])
                found = (None if loss is None else float(loss), row["examples"])
        return found


class Evaluator:
    """One start of an evaluate job."""

    def __init__(self, job: dict[str, Any], item: str, attempt: Attempt, say: Say) -> None:
        workspace = Workspace(Path(job["paths"]["workspace"]))
        self._job, self._item, self._attempt, self._say = job, item, attempt, say
        self._served = [
            Served(workspace.run(one["run"]), one["keys"], one["how"], one.get("inside", {})) for one in job["serves"]
        ]
        self._device = alone()
        self._held = HeldWeights(self._device)
        self._keeper = Keeper(job["lease_s"] / 6)
        self._probed: tuple[Served, int, HeldOutLoss] | None = None  # with how many loads: of which model
        self._done = Done()

    def run(self) -> Done:
        idle_since = time.monotonic()
        try:
            while True:
                if self._work_once():
                    idle_since = time.monotonic()
                    continue
                left = [one for one in self._served if next(one.open_steps(), None) is not None]
                if not left and all(evaluations.is_over(one.folder) or self._job["drains"] for one in self._served):
                    break
                if not self._job["drains"] and time.monotonic() - idle_since > 60 * self._job["resources"]["idle_min"]:
                    break
                time.sleep(POLL_S)
        finally:
            self._stop()
        self._done.swaps, self._done.loads = self._held.swaps, self._held.loads
        troubles = [f"{one.folder.name}, step {s}: {why}" for one in self._served for s, why in one.troubles.items()]
        if troubles:
            raise ClusterError(f"{len(troubles)} steps could not be evaluated; the first, of run {troubles[0]}")
        return self._done

    def _stop(self) -> None:
        self._keeper.stop()
        if self._keeper.held:
            self._keeper.held.release()
        for one in self._served:
            if one.journal:
                one.journal.close()
            found = evaluations.taken(one.folder)
            leases.sweep(one.folder, lambda step, keys, found=found: not evaluations.lacking(keys, step, found))

    def _work_once(self) -> bool:
        """Evaluates one step of some run; False if there is none to be had."""
        for one in self._served:
            for step in one.open_steps():
                if self._try(one, step):
                    return True
        return False

    def _try(self, one: Served, step: int) -> bool:
        """Whether the step could be had, and was dealt with."""
        path = leases.path_of(one.folder, step, evaluations.TEST_SET)
        journal = self._journal_of(one)
        lease = leases.claim(path, self._item, journal.name, one.keys, self._job["lease_s"])
        if lease is None:
            return False
        self._keeper.held = lease
        try:
            for before in lease.before:
                self._take_over(one, journal, step, before)
            lease.forget()
            if not self._is_there(one, step) or not evaluations.lacking(one.keys, step, evaluations.taken(one.folder)):
                return False
            self._evaluate(one, journal, step)
        except Lost as lost:
            self._say(str(lost))
            self._done.lost += 1
            self._leave_file(one)
        except Exception as error:
            if not isinstance(error, ZsgError):
                traceback.print_exc()
            one.troubles[step] = f"{type(error).__name__}: {error}"
            self._say(f"{one.folder.name} step {step}: {one.troubles[step]}")
        finally:
            self._keeper.held = None
            lease.release()
        evaluations.tidy(one.folder, one.keys)
        return True

    def _leave_file(self, one: Served) -> None:
        """What another took over may be written no more: the next step has a new file."""
        journal, one.journal = one.journal, None
        if journal:
            with contextlib.suppress(Lost):
                journal.close()

    def _is_there(self, one: Served, step: int) -> bool:
        return step == 0 or is_committed(one.folder / "snapshots" / str(step))

    def _journal_of(self, one: Served) -> Journal:
        """This evaluator's file in the run's journal, fenced by the lease that is held."""
        if one.journal is None:
            taken = [int(path.stem.split("-")[2]) for path in journals.guest_files(one.folder)]
            stage, number = one.job["stage_id"], max(taken, default=-1) + 1
            while one.journal is None:
                try:
                    one.journal = Journal(one.folder, self._attempt, journals.GUEST, stage, number, fence=self._fence)
                except FileExistsError:  # another evaluator was quicker
                    number += 1
        return one.journal

    def _fence(self) -> None:
        if self._keeper.held:
            self._keeper.held.check()

    def _take_over(self, one: Served, journal: Journal, step: int, before: Mapping[str, Any]) -> None:
        """Journals that nothing counts any more that the former holder of a lease may yet write."""
        path = one.folder / "journal" / str(before["journal"])
        size = path.stat().st_size if path.exists() else 0
        journal.row("rewind", step=step, examples=0, data={"sizes": {path.name: size}})
        journal.commit()
        self._say(f"{one.folder.name} step {step}: taken over from {before['holder']}, which gives no sign of life")

    def _evaluate(self, one: Served, journal: Journal, step: int) -> None:
        lacking = evaluations.lacking(one.keys, step, evaluations.taken(one.folder))
        loss, examples = one.told(step) or (None, 0)
        hold = cache(lambda: self._hold(one, step, loss))  # answers that were kept need no weights
        of_answers, inside = ([key for key in lacking if (key in one.inside) is within] for within in (False, True))
        data: dict[str, float] = {}
        flags: list[str] = []
        if of_answers:
            scores = self._score(one, journal, step, examples, of_answers, hold)
            data |= scores.values | {f"{key}_stderr": value for key, value in scores.error.items()}
            flags += scores.flags
        if inside:
            data |= self._look_inside(one, journal, step, examples, {key: one.inside[key] for key in inside}, hold())
        data |= {key: math.nan for key in lacking if key not in data}  # asked for, and nothing to be had
        journal.row("metric", step=step, examples=examples, data=data)
        journal.commit()
        self._done.scored += 1
        shown = ", ".join(f"{key} {data[key]:.4g}" for key in lacking)
        self._say(f"{one.folder.name} step {step}: {'; '.join([shown, *flags])}")

    def _score(
        self, one: Served, journal: Journal, step: int, examples: int, keys: list[str],
        hold: Callable[[], dict[str, Any]],
    ) -> Scores:  # fmt: skip
        """The scores of a step's answers, which are kept, or were; journals where they are and each item's score."""
        kept = answers.find(journals.read(one.folder), step, evaluations.TEST_SET, one.how)
        facts: dict[str, Any] = {}
        if kept is None:
            answered, facts = self._answer(one, step, hold())
            kept = answers.keep(one.folder, journal.name, facts, answered)
        else:
            answered = answers.read(one.folder, kept)
        scores = metrics.score(keys, answered)
        where = {"event": evaluations.ANSWERS, "suite": evaluations.TEST_SET, "how": one.how, "keys": keys}
        where |= {"file": kept.file, "at": kept.at, "bytes": kept.size, "flags": scores.flags, **facts}
        journal.row("event", step=step, examples=examples, data=where)
        self._keep_items(one, journal, scores, step, examples)
        return scores

    def _look_inside(
        self, one: Served, journal: Journal, step: int, examples: int, ways: Ways, held: dict[str, Any]
    ) -> dict[str, float]:
        """The metrics that are taken inside the model whose weights are held; journals how, and each item's."""
        started = time.perf_counter()
        inside = Inside(
            self._held.llama, self._device, one.folder, step, held["weights"], one.vocabulary, one.test[0],
            list(tested(one.job["recipe"]["stages"][-1]["data"])), self._fence,
        )  # fmt: skip
        looked = inside.look(ways)
        told = {"event": evaluations.INSIDE, "ways": ways, "files": looked.files, **held, "by": self._item}
        told |= {"seconds": time.perf_counter() - started, **attempts.where(self._attempt)}
        journal.row("event", step=step, examples=examples, data=told)
        for key, (places, values) in looked.by_item.items():
            item_losses.keep(journal, key, values, step=step, examples=examples, places=places)
        return looked.values

    def _hold(self, one: Served, step: int, loss: float | None) -> dict[str, Any]:
        """Puts the weights of a step into the model, proves that they are there, and tells of them."""
        started = time.perf_counter()
        folder = one.folder / "snapshots" / str(step)
        meta: Mapping[str, Any] = (read_json(folder / "meta.json") or {}) if step else {}
        if step:
            self._held.hold(folder, one.job)
            told = meta["probe_loss"]
            loss = None if told is None else float(told)
        else:
            self._held.hold_base(one.job)
        probe = self._probe(one)
        refuse_other(probe, loss, one.job["recipe"]["stages"][-1]["train"]["precision"], f"step {step}")
        facts = {"weights": meta.get("weights"), "probe_loss": probe, "device": self._device}
        return facts | {"swap_s": time.perf_counter() - started}

    def _answer(self, one: Served, step: int, held: Mapping[str, Any]) -> tuple[list[Answered], dict[str, Any]]:
        """The items' answers by the weights that are held, and how they came about."""
        started = time.perf_counter()
        tokens, examples = one.test
        vocabulary = one.vocabulary
        generator = Generator(self._held.llama, one.how, vocabulary.bos, vocabulary.eos, self._device)
        made = generator.answers(one.prompts, [tokens.ids[place] for place in one.places])
        answered = [
            Answered(
                id=tokens.ids[place], task=tokens.tasks[place], prompt=vocabulary.text(prompt),
                references=examples[place].right_answers, answer=vocabulary.text(ids),
            )
            for place, prompt, ids in zip(one.places, one.prompts, made, strict=True)
        ]  # fmt: skip
        facts = {**held, "engine": "transformers", "generate_s": time.perf_counter() - started}
        facts |= {"versions": {name: importlib.metadata.version(name) for name in VERSIONS}}
        facts |= {"tokens": sum(map(len, made)), **attempts.where(self._attempt), "by": self._item}
        return answered, facts | {"step": step, "suite": evaluations.TEST_SET, "how": one.how}

    def _probe(self, one: Served) -> float:
        """The loss of the weights that are held on the run's test set, computed as the run computes it."""
        if self._probed is None or self._probed[:2] != (one, self._held.loads):
            self._probed = one, self._held.loads, self._held_out(one)
        held_out = self._probed[2]
        return summary(held_out.measure(), held_out.tokens)["loss"]

    def _held_out(self, one: Served) -> HeldOutLoss:
        tokens, _ = one.test
        budget = one.job["micro_tokens"] or schedule.MICRO_TOKENS[self._device.partition(":")[0]]
        rule = one.job["recipe"]["stages"][-1]["train"].get("truncated_answers", "exclude")
        return HeldOutLoss(self._held.model, tokens, Ranks(0, 1, 0), self._device, budget, None, rule)

    def _keep_items(self, one: Served, journal: Journal, scores: Scores, step: int, examples: int) -> None:
        ids = [one.test[0].ids[place] for place in one.places]
        for key, by_item in scores.by_item.items():
            values = np.array([by_item.get(item, math.nan) for item in ids])
            item_losses.keep(journal, key, values, step=step, examples=examples, places=one.places)
