"""The evaluate job: takes metrics of the checkpoints of several runs, as their
snapshots come, with one loaded model.

Its `serves` lists the runs, and of each the suites to evaluate (eval_target). Of a step
that lacks a key of a suite, it takes the lease (leases), puts the snapshot's weights
into the model and proves that they are there (weight_swapper), answers the suite's items
(items, generate), keeps the answers (answers), scores them (scorers) or looks inside
the model (representations), and journals what it found in the run's folder. The row of
metrics comes last, so what can be scored is so as a whole or not at all; killed at any
moment, it leaves a lease that another takes over. A metric that cannot be had is named
where the job tells its end; a later job takes it.

It ends when all its runs have ended and nothing is left, or after some idle minutes;
where it drains, it waits for what others hold and does not idle.
"""

import contextlib
import importlib.metadata
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import UNSET, convert, structs

from jobs.contract import answers, evaluations, item_losses, leases, snapshots
from jobs.contract import attempt as attempts
from jobs.contract import journal as journals
from jobs.contract.answers import Asked, Generation
from jobs.contract.attempt import Attempt
from jobs.contract.job_file import EvaluateJob
from jobs.contract.journal import Journal
from jobs.contract.journal_rows import AnswersKept, InsideTaken
from jobs.contract.leases import Keeper, LeaseRecord, Lost
from jobs.evaluating import asking
from jobs.evaluating.asking import Asking
from jobs.evaluating.eval_target import EvalTarget, TrainerPoint
from jobs.evaluating.items import Items
from jobs.evaluating.representations import Inside
from jobs.evaluating.scorers import Scorers
from jobs.evaluating.weight_swapper import (
    WeightSwapper,
    become_sole_rank,
    refuse_other_loss,
)
from jobs.model.generate import Generator
from jobs.runtime.ranks import Ranks
from jobs.training.batches import TokenizedSet
from jobs.training.held_out import HeldOutLoss, summarize_losses
from zsg_core.errors import ClusterError, ZsgError
from zsg_core.metrics.keys import INSIDE, is_answers
from zsg_core.metrics.scoring import Answered, Scores
from zsg_core.recipe import list_tested
from zsg_core.secrets import hide_known
from zsg_core.suites import Suite
from zsg_core.training import schedule

logger = logging.getLogger(__name__)

POLL_S = 2.0
VERSIONS = ("torch", "transformers")


@dataclass
class Done:
    """What the exit record tells: how many suites of steps were scored, how often
    weights were put into the model."""

    scored: int = 0
    swaps: int = 0
    loads: int = 0
    lost: int = 0  # leases that another took over


class Stopped(Exception):
    """It was told to stop before its work was done; `done` is what it has done."""

    def __init__(self, done: Done) -> None:
        super().__init__(f"stopped after {done.scored} scores")
        self.done = done


def evaluate_runs(
    job: EvaluateJob,
    item: str,
    attempt: Attempt,
    is_stop_asked: Callable[[], bool],
) -> Done:
    """Evaluates until nothing is left. Raises ClusterError at its end if a step could
    not be evaluated, or Stopped: on a KeyboardInterrupt, and before the next suite
    where the interrupt was lost on its way (some libraries drop what is raised in a
    callback) and only `is_stop_asked` still tells of it."""
    return Evaluator(job, item, attempt, is_stop_asked).run()


class Evaluator:
    """One start of an evaluate job."""

    def __init__(
        self,
        job: EvaluateJob,
        item: str,
        attempt: Attempt,
        is_stop_asked: Callable[[], bool],
    ) -> None:
        workspace = job.workspace
        self._job, self._item, self._attempt = job, item, attempt
        self._is_stop_asked = is_stop_asked
        self._served = [
            EvalTarget(
                workspace.run(served.run), convert(served.suites, tuple[Suite, ...])
            )
            for served in job.serves
        ]
        self._device = become_sole_rank()
        self._held = WeightSwapper(self._device)
        self._scorers = Scorers(workspace.ratings, self._device)
        self._keeper = Keeper(job.lease_s / 6)
        # whose weights of which step, and their test loss
        self._holding: tuple[EvalTarget, int, float] | None = None
        # with how many loads: of which model
        self._probed: tuple[EvalTarget, int, HeldOutLoss] | None = None
        self._done = Done()

    def run(self) -> Done:
        self._scorers.look_ahead(
            [suite for one in self._served for suite in one.suites]
        )
        idle_since = time.monotonic()
        try:
            while True:
                if self._is_stop_asked():
                    raise KeyboardInterrupt
                if self._work_once():
                    idle_since = time.monotonic()
                    continue
                left = [
                    one
                    for one in self._served
                    if next(one.open_work(), None) is not None
                ]
                if not left and all(
                    evaluations.is_over(one.folder) or self._job.drains
                    for one in self._served
                ):
                    break
                if (
                    not self._job.drains
                    and time.monotonic() - idle_since > self._job.idle_s
                ):
                    break
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            raise Stopped(self._done) from None
        finally:
            self._stop()
        troubles = [
            f"{one.folder.name}, step {step}, {suite}: {why}"
            for one in self._served
            for (step, suite), why in one.troubles.items()
        ]
        if troubles:
            raise ClusterError(
                f"{len(troubles)} steps could not be evaluated; the first, of run {troubles[0]}"
            )
        return self._done

    def _stop(self) -> None:
        self._done.swaps, self._done.loads = self._held.swaps, self._held.loads
        self._keeper.stop()
        for one in self._served:
            self._leave_file(one)  # while the lease is held: it is the file's fence
        if self._keeper.held:
            self._keeper.held.release()
        for one in self._served:
            found = evaluations.collect_taken_keys(one.folder)
            leases.sweep_leases(
                one.folder,
                lambda step, keys, found=found: (
                    not evaluations.list_lacking_keys(keys, step, found)
                ),
            )

    def _work_once(self) -> bool:
        """Evaluates one suite at one step of some run; False if there is none to be had."""
        for one in self._served:
            for step, suite in one.open_work():
                if self._try(one, step, suite):
                    return True
        return False

    def _try(self, one: EvalTarget, step: int, suite: Suite) -> bool:
        """Whether the step could be had, and was dealt with."""
        path = leases.path_of(one.folder, step, suite.name)
        journal = self._journal_of(one)
        lease = leases.claim_lease(
            path, self._item, journal.name, suite.keys, self._job.lease_s
        )
        if lease is None:
            return False
        self._keeper.held = lease
        try:
            for before in lease.before:
                self._take_over(one, journal, step, before)
            lease.forget()
            if (step, suite) not in one.open_work():
                return False  # another was quicker
            (self._look_inside if suite.name == INSIDE else self._evaluate)(
                one, suite, journal, step
            )
        except Lost as lost:
            logger.warning(str(lost))
            self._done.lost += 1
            self._leave_file(one)
        except Exception as error:
            if not isinstance(error, ZsgError):
                logger.exception(f"{one.folder.name} step {step}: ends with an error")
            self._holding = None
            one.troubles[step, suite.name] = hide_known(
                f"{type(error).__name__}: {error}"
            )
            logger.warning(
                f"{one.folder.name} step {step}: {one.troubles[step, suite.name]}"
            )
        finally:
            # In this order: an interrupt in between leaves no lease behind.
            lease.release()
            self._keeper.held = None
        evaluations.remove_needless_snapshots(one.folder, one.keys)
        return True

    def _leave_file(self, one: EvalTarget) -> None:
        """Writes what is left, unless another took it over: that may be written no
        more. The next step has a new file."""
        journal, one.journal = one.journal, None
        if journal:
            with contextlib.suppress(Lost):
                journal.close()

    def _journal_of(self, one: EvalTarget) -> Journal:
        """This evaluator's file in the run's journal, fenced by the lease that is held."""
        if one.journal is None:
            taken = [
                int(path.stem.split("-")[2])
                for path in journals.guest_files(one.folder)
            ]
            stage, number = one.job.stage_id, max(taken, default=-1) + 1
            while one.journal is None:
                try:
                    one.journal = Journal(
                        one.folder,
                        self._attempt,
                        journals.GUEST,
                        stage,
                        number,
                        fence=self._fence,
                    )
                except FileExistsError:  # another evaluator was quicker
                    number += 1
        return one.journal

    def _fence(self) -> None:
        if self._keeper.held:
            self._keeper.held.check()

    def _take_over(
        self, one: EvalTarget, journal: Journal, step: int, before: LeaseRecord
    ) -> None:
        """Journals that nothing counts any more that the former holder of a lease may yet write."""
        path = journals.folder_of(one.folder) / before.journal
        size = path.stat().st_size if path.exists() else 0
        journal.add_rewind({path.name: size}, step=step, examples=0)
        journal.commit()
        logger.info(
            f"{one.folder.name} step {step}: taken over from {before.holder}, which gives no"
            " sign of life"
        )

    def _evaluate(
        self, one: EvalTarget, suite: Suite, journal: Journal, step: int
    ) -> None:
        lacking = evaluations.list_lacking_keys(suite.keys, step, one.taken())
        rows = journals.read_journal(one.folder)
        kept = answers.find_place(rows, step, suite.name, suite.how)
        point = one.read_trainer_point(step)
        examples = point.examples if point else 0
        if kept is None:
            answered, generation = self._answer(
                one, suite, step, point.loss if point else None
            )
            about = Asked(step, suite.name, suite.how)
            kept = answers.keep_answers(
                one.folder, journal.name, about, generation, answered
            )
            told_once: dict[str, Any] = {**structs.asdict(generation), "step": step}
        else:
            answered = answers.read_answers(one.folder, kept)
            told_once = {"asked": dict(kept.asked)} if kept.asked else {}
        asked = [key for key in lacking if not is_answers(key)]
        items = one.items(suite)
        scores, failed = self._scorers.score(suite, items, asked, answered)
        done = [key for key in lacking if key not in failed]
        scored_by = {key: by for key, by in suite.scored_by.items() if key in done}
        counts = told_once.get("asked", {})
        flags = [*asking.list_flags(counts, suite.how), *scores.flags]
        event = AnswersKept(
            suite=suite.name,
            how=dict(suite.how),
            keys=done,
            scored_by=scored_by or UNSET,
            file=kept.file,
            at=kept.at,
            bytes=kept.size,
            flags=flags,
            failed=dict(failed) or UNSET,
            **told_once,
        )
        journal.add_event(event, step=step, examples=examples)
        self._keep_items(one, items, journal, scores, step, examples)
        data = scores.values | {
            f"{key}_stderr": value for key, value in scores.error.items()
        }
        # Asked for, and nothing to be had.
        data |= {
            key: math.nan for key in asked if key in done and key not in scores.values
        }
        if data:
            journal.add_metrics(data, step=step, examples=examples)
        journal.commit()
        if failed:
            one.troubles[step, suite.name] = "; ".join(
                f"{key}: {why}" for key, why in failed.items()
            )
        self._done.scored += bool(done)
        told_of = [
            f"{key} {scores.values[key]:.4g}" if key in scores.values else key
            for key in done
        ]
        told_of += [f"{key} is not to be had: {why}" for key, why in failed.items()]
        logger.info(
            f"{one.folder.name} step {step}: {'; '.join([', '.join(told_of), *flags])}"
        )

    def _look_inside(
        self, one: EvalTarget, suite: Suite, journal: Journal, step: int
    ) -> None:
        """Takes the metrics that are taken inside the model; journals how, each item's
        values, the metrics."""
        point = one.read_trainer_point(step) or TrainerPoint(None, 0)
        loss, examples = point.loss, point.examples
        ways = {
            key: suite.find_definition(key)
            for key in evaluations.list_lacking_keys(suite.keys, step, one.taken())
        }
        probe, started = self._hold(one, step, loss), time.perf_counter()
        digest = _digest_of(one, step)
        inside = Inside(
            self._held.llama,
            self._device,
            one.folder,
            step,
            digest,
            one.vocabulary,
            one.test[0],
            list(list_tested(one.job.stage["data"])),
            one.choices,
            lambda examples: self._held_out(one, examples),
            self._fence,
        )
        looked = inside.look(ways)
        if looked.failed:
            one.troubles[step, suite.name] = "; ".join(
                f"{key}: {why}" for key, why in looked.failed.items()
            )
            logger.warning(
                f"{one.folder.name} step {step}: {one.troubles[step, suite.name]}"
            )
        ways = {key: way for key, way in ways.items() if key not in looked.failed}
        if not ways:
            return
        event = InsideTaken(
            ways=ways,
            files=looked.files,
            weights=digest,
            probe_loss=probe,
            device=self._device,
            seconds=time.perf_counter() - started,
            **attempts.describe_placement(self._attempt),
            by=self._item,
            flags=looked.flags,
        )
        journal.add_event(event, step=step, examples=examples)
        for key, (places, values) in looked.by_item.items():
            item_losses.journal_item_losses(
                journal, key, values, step=step, examples=examples, places=places
            )
        journal.add_metrics(looked.values, step=step, examples=examples)
        journal.commit()
        self._done.scored += 1
        shown = ", ".join(f"{key} {looked.values[key]:.4g}" for key in ways)
        logger.info(
            f"{one.folder.name} step {step}: {'; '.join([shown, *looked.flags])}"
        )

    def _answer(
        self, one: EvalTarget, suite: Suite, step: int, loss: float | None
    ) -> tuple[list[Answered], Generation]:
        """The items' answers by the weights of a step, and how they came about."""
        started = time.perf_counter()
        probe = self._hold(one, step, loss)
        swapped, words, items = time.perf_counter(), one.vocabulary, one.items(suite)
        generate = Asking(
            lambda how: Generator(
                self._held.llama, how, words.bos, words.eos, self._device, words.text
            )
        )
        answered = items.answer(generate)
        generation = Generation(
            weights=_digest_of(one, step),
            probe_loss=probe,
            engine="transformers",
            device=self._device,
            versions={name: importlib.metadata.version(name) for name in VERSIONS},
            swap_s=swapped - started,
            generate_s=time.perf_counter() - swapped,
            tokens=generate.tokens,
            asked=generate.summarize(items, answered),
            **attempts.describe_placement(self._attempt),
            by=self._item,
        )
        return answered, generation

    def _hold(self, one: EvalTarget, step: int, loss: float | None) -> float:
        """Puts the weights of a step into the model, unless they are there, and returns
        their loss on the test set.

        ClusterError where they are not those that the trainer had.
        """
        if self._holding and self._holding[:2] == (one, step):
            return self._holding[2]
        self._holding = None
        if step:
            folder = snapshots.folder_of(one.folder, step)
            self._held.load_snapshot(folder, one.job)
            told = snapshots.read_meta(folder).probe_loss
            loss = None if told is None else float(told)
        else:
            self._held.load_base(one.job)
        probe = self._probe(one)
        refuse_other_loss(
            probe,
            loss,
            one.job.stage["train"]["precision"],
            f"step {step}",
        )
        self._holding = one, step, probe
        return probe

    def _probe(self, one: EvalTarget) -> float:
        """The loss of the weights that are held on the run's test set, computed as the
        run computes it."""
        if self._probed is None or self._probed[:2] != (one, self._held.loads):
            self._probed = one, self._held.loads, self._held_out(one, one.test[0])
        held_out = self._probed[2]
        return summarize_losses(held_out.measure(), held_out.tokens)["loss"]

    def _held_out(self, one: EvalTarget, tokens: TokenizedSet) -> HeldOutLoss:
        """The loss of examples by the weights that are held, computed as the run
        computes that of its test set."""
        budget = (
            one.job.micro_tokens
            or schedule.MICRO_TOKENS[self._device.partition(":")[0]]
        )
        rule = one.job.stage["train"].get("truncated_answers", "exclude")
        return HeldOutLoss(
            self._held.model, tokens, Ranks(0, 1, 0), self._device, budget, None, rule
        )

    def _keep_items(
        self,
        one: EvalTarget,
        items: Items,
        journal: Journal,
        scores: Scores,
        step: int,
        examples: int,
    ) -> None:
        ids = [items.ids[place] for place in items.places]
        item_losses.describe_suite(one.folder, items.name, items.ids, items.tasks)
        for key, by_item in scores.by_item.items():
            values = np.array([by_item.get(item, math.nan) for item in ids])
            item_losses.journal_item_losses(
                journal,
                key,
                values,
                step=step,
                examples=examples,
                places=items.places,
                of=items.name,
            )


def _digest_of(one: EvalTarget, step: int) -> str | None:
    """The digest of a snapshot's weights; None of the base."""
    if step == 0:
        return None
    return snapshots.read_meta(snapshots.folder_of(one.folder, step)).weights
