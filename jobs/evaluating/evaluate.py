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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET, convert, structs

from jobs.contract import answers, evaluations, item_losses, leases, snapshots
from jobs.contract import attempt as attempts
from jobs.contract import journal as journals
from jobs.contract.answers import Asked, Generation
from jobs.contract.attempt import Attempt
from jobs.contract.folder import Damaged
from jobs.contract.job_file import EvaluateJob
from jobs.contract.journal import Journal
from jobs.contract.journal_rows import AnswersKept, InsideTaken, JudgeSpent
from jobs.contract.leases import Keeper, LeaseRecord, Lost
from jobs.evaluating import asking, gradients
from jobs.evaluating.asking import Asking
from jobs.evaluating.eval_target import EvalTarget, TrainerPoint
from jobs.evaluating.gradients import GradientsTaken
from jobs.evaluating.harness_opening import open_harness
from jobs.evaluating.harness_taking import Taking
from jobs.evaluating.items import Items
from jobs.evaluating.representations import Inside, Looked
from jobs.evaluating.scorers import Scorers
from jobs.evaluating.troubles import find_worst, join_errors, keep_error
from jobs.evaluating.weight_swapper import (
    WeightSwapper,
    become_sole_rank,
    refuse_other_loss,
)
from jobs.model.batch_budget import BatchBudget
from jobs.model.generate import Generator
from jobs.model.tuning import list_trained
from jobs.runtime.installed_versions import read_version
from jobs.runtime.ranks import Ranks
from jobs.training.batches import TokenizedSet
from jobs.training.held_out import HeldOutLoss, summarize_losses
from zsg_core.errors import ClusterError, UserError, ZsgError
from zsg_core.metrics.keys import HARNESS, INSIDE, STANDARD_ERROR, is_answers
from zsg_core.metrics.metrics import METRICS, find_metric
from zsg_core.metrics.scoring import Answered, Scores
from zsg_core.recipe import list_tested
from zsg_core.suites import Suite
from zsg_core.training import schedule

logger = logging.getLogger(__name__)

POLL_S = 2.0
VERSIONS = ("torch", "transformers")
JOURNAL = (0, "its journal")  # among the troubles of a run: of all its steps


@dataclass
class Done:
    """What the exit record tells: how many suites of steps were scored, how often
    weights were put into the model."""

    scored: int = 0
    swaps: int = 0
    loads: int = 0
    lost: int = 0  # leases that another took over


@dataclass(frozen=True)
class AnswersAtStep:
    """The answers to a suite's items by the weights of a step. `facts`: what is journalled
    of how they came about."""

    place: answers.Place
    answered: list[Answered]
    facts: dict[str, Any]


@dataclass(frozen=True)
class ScoredSuite:
    """What was taken of a suite's answers: `keys`, and of those that were `requested` of a
    scorer the scores. `failed`: why other keys cannot be had; `judged`: what a judge took
    to rate them."""

    items: Items
    keys: list[str]
    requested: list[str]
    scores: Scores
    failed: dict[str, ZsgError]
    judged: JudgeSpent | None = None

    def list_metrics(self) -> dict[str, float]:
        """The row of metrics; NaN for one that was requested and is not to be had."""
        errors = {
            f"{key}{STANDARD_ERROR}": value for key, value in self.scores.error.items()
        }
        absent = {
            key: math.nan
            for key in self.requested
            if key in self.keys and key not in self.scores.values
        }
        return self.scores.values | errors | absent

    def describe(self) -> list[str]:
        """Each key with its value, or why there is none."""
        values = self.scores.values
        texts = [
            f"{key} {values[key]:.4g}" if key in values else key for key in self.keys
        ]
        texts += [f"{key} is not to be had: {why}" for key, why in self.failed.items()]
        if self.judged is not None:
            texts.append(describe_spent(self.judged))
        return texts


def describe_spent(spent: JudgeSpent) -> str:
    """What a judge took, for people."""
    words = (
        f"the judge replied {spent.requests:,} times: {spent.read:,} tokens read,"
        f" {spent.written:,} written"
    )
    if spent.cost is UNSET:
        return words
    return f"{words}, a cost of {spent.cost:,.4g}"


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
        self._targets = [
            EvalTarget(
                workspace.run(served.run), convert(served.suites, tuple[Suite, ...])
            )
            for served in job.serves
        ]
        used = become_sole_rank(job.resources.gpus_per_node)
        self._device = used[0]
        self._scorers = Scorers(workspace.ratings, used[-1])
        self._swapper = WeightSwapper(used, self._scorers.count_bytes_to_come)
        self._keeper = Keeper(job.lease_s / 6)
        # whose weights of which step, and their test loss
        self._holding: tuple[EvalTarget, int, float] | None = None
        # with how many loads: of which model
        self._probed: tuple[EvalTarget, int, HeldOutLoss] | None = None
        self._done = Done()
        self._harness: Any = None  # what holds tasks of lm-evaluation-harness

    def run(self) -> Done:
        self._scorers.look_ahead(
            [suite for target in self._targets for suite in target.suites]
        )
        for target in self._targets:
            self._close_holes(target)
            for step, damage in snapshots.find_damaged(target.folder).items():
                logger.warning(
                    f"{target.folder.name} step {step}: its snapshot is not whole, and is"
                    f" not evaluated: {damage}"
                )
        try:
            self._work_until_over()
        except KeyboardInterrupt:
            raise Stopped(self._done) from None
        finally:
            self._stop()
        self._refuse_troubles()
        return self._done

    def _work_until_over(self) -> None:
        """Evaluates as steps come, until nothing is left or nothing has come for long.
        KeyboardInterrupt where the job is told to stop."""
        idle_since = time.monotonic()
        while True:
            if self._is_stop_asked():
                raise KeyboardInterrupt
            if self._work_once():
                idle_since = time.monotonic()
                continue
            if self._is_over() or self._has_idled(idle_since):
                return
            time.sleep(POLL_S)

    def _is_over(self) -> bool:
        """Whether nothing is left to evaluate, and nothing more will come."""
        if any(next(self._list_open_work(target), None) for target in self._targets):
            return False
        return self._job.drains or all(
            evaluations.is_over(target.folder) for target in self._targets
        )

    def _has_idled(self, idle_since: float) -> bool:
        """Whether the job has waited for as long as it may."""
        waited_s = time.monotonic() - idle_since
        return not self._job.drains and waited_s > self._job.idle_s

    def _refuse_troubles(self) -> None:
        """Raises where a step could not be evaluated: a PluginError, BadData or UserError
        where that was the user's doing and would come again, else a ClusterError."""
        errors: list[ZsgError] = []
        texts: list[str] = []
        for target in self._targets:
            for (step, suite), error in target.troubles.items():
                errors.append(error)
                texts.append(f"{target.folder.name}, step {step}, {suite}: {error}")
        if errors:
            kind = find_worst(errors)
            first = next(
                text
                for text, error in zip(texts, errors, strict=True)
                if isinstance(error, kind)
            )
            raise kind(
                f"{len(errors)} steps could not be evaluated; the first, of run {first}"
            )

    def _stop(self) -> None:
        self._done.swaps, self._done.loads = self._swapper.swaps, self._swapper.loads
        self._keeper.stop()
        try:
            for target in self._targets:
                self._leave_file(
                    target
                )  # while the lease is held: it is the file's fence
        finally:
            if self._keeper.held:
                self._keeper.held.release()
        for target in self._targets:
            with contextlib.suppress(Damaged):
                _sweep_leases(target)

    def _work_once(self) -> bool:
        """Evaluates one suite at one step of some run; False if there is none to be had."""
        for target in self._targets:
            for step, suite in self._list_open_work(target):
                if self._try(target, step, suite):
                    return True
        return False

    def _list_open_work(self, target: EvalTarget) -> Iterator[tuple[int, Suite]]:
        """The open work of a run. One whose journal has lost rows has none: that is
        told at the end, and the other runs are evaluated."""
        try:
            yield from target.open_work()
        except Damaged as error:
            if JOURNAL not in target.troubles:
                logger.warning(f"{target.folder.name}: {error}")
            target.troubles[JOURNAL] = keep_error(error, is_named=False)

    def _try(self, target: EvalTarget, step: int, suite: Suite) -> bool:
        """Whether the step could be had, and was dealt with."""
        path = leases.path_of(target.folder, step, suite.name)
        journal = self._journal_of(target)
        lease = leases.claim_lease(
            path, self._item, journal.name, suite.keys, self._job.lease_s
        )
        if lease is None:
            return False
        self._keeper.held = lease
        try:
            for before in lease.before:
                self._take_over(target, journal, step, before)
            lease.forget()
            if (step, suite) not in target.open_work():
                return False  # another was quicker
            self._choose_work(suite)(target, suite, journal, step)
        except Lost as lost:
            logger.warning(str(lost))
            self._done.lost += 1
            self._leave_file(target)
        except Exception as error:
            if not isinstance(error, ZsgError):
                logger.exception(
                    f"{target.folder.name} step {step}: ends with an error"
                )
            self._holding = None
            target.troubles[step, suite.name] = keep_error(error)
            logger.warning(
                f"{target.folder.name} step {step}: {target.troubles[step, suite.name]}"
            )
        finally:
            # In this order: an interrupt in between leaves no lease behind.
            lease.release()
            self._keeper.held = None
        with contextlib.suppress(Damaged):  # the next look at the run tells of it
            evaluations.remove_needless_snapshots(target.folder, target.keys)
        return True

    def _choose_work(
        self, suite: Suite
    ) -> Callable[[EvalTarget, Suite, Journal, int], None]:
        """What takes the keys of a suite at a step."""
        if suite.name == INSIDE:
            return self._look_inside
        if suite.name == HARNESS:
            return self._take_tasks
        return self._evaluate

    def _leave_file(self, target: EvalTarget) -> None:
        """Writes what is left, unless another took it over: that may be written no
        more. The next step has a new file."""
        journal, target.journal = target.journal, None
        if journal:
            with contextlib.suppress(Lost):
                journal.close()

    def _journal_of(self, target: EvalTarget) -> Journal:
        """This evaluator's file in the run's journal, fenced by the lease that is held."""
        if target.journal is None:
            taken = [
                int(path.stem.split("-")[2])
                for path in journals.guest_files(target.folder)
            ]
            stage, number = target.job.stage_id, max(taken, default=-1) + 1
            while target.journal is None:
                try:
                    target.journal = Journal(
                        target.folder,
                        self._attempt,
                        journals.GUEST,
                        stage,
                        number,
                        fence=self._fence,
                    )
                except FileExistsError:  # another evaluator was quicker
                    number += 1
        return target.journal

    def _close_holes(self, target: EvalTarget) -> None:
        """Journals of evaluators' files that have lost rows how far they count, so that
        what they lack is taken again."""
        holes = journals.find_guest_holes(target.folder)
        if not holes:
            return
        journal = self._journal_of(target)
        for hole in holes:
            sizes = journals.limit_to_hole(hole)
            journal.add_rewind(sizes, step=0, examples=0, hole=hole)
            logger.warning(f"{hole}; what it lacks is taken again")
        journal.commit()

    def _fence(self) -> None:
        if self._keeper.held:
            self._keeper.held.check()

    def _take_over(
        self, target: EvalTarget, journal: Journal, step: int, before: LeaseRecord
    ) -> None:
        """Journals that nothing counts any more that the former holder of a lease may yet write."""
        path = journals.folder_of(target.folder) / before.journal
        size = path.stat().st_size if path.exists() else 0
        journal.add_rewind({path.name: size}, step=step, examples=0)
        journal.commit()
        logger.info(
            f"{target.folder.name} step {step}: taken over from {before.holder}, which gives no"
            " sign of life"
        )

    def _evaluate(
        self, target: EvalTarget, suite: Suite, journal: Journal, step: int
    ) -> None:
        """Takes the metrics of a suite's answers; journals where the answers are, each
        item's scores, the metrics."""
        lacking = evaluations.list_lacking_keys(suite.keys, step, target.taken())
        point = target.read_trainer_point(step) or TrainerPoint(None, 0)
        answers_at_step = _find_answers(target, suite, step)
        if answers_at_step is None:
            answers_at_step = self._make_answers(
                target, suite, journal, step, point.loss
            )
        scored = self._score(target, suite, lacking, answers_at_step.answered)
        event = _describe_answers(suite, answers_at_step, scored)
        journal.add_event(event, step=step, examples=point.examples)
        self._keep_items(
            target.folder, scored.items, journal, scored.scores, step, point.examples
        )
        if metrics := scored.list_metrics():
            journal.add_metrics(metrics, step=step, examples=point.examples)
        journal.commit()
        if scored.failed:
            target.troubles[step, suite.name] = join_errors(scored.failed)
        self._done.scored += bool(scored.keys)
        texts = [", ".join(scored.describe()), *event.flags]
        logger.info(f"{target.folder.name} step {step}: {'; '.join(texts)}")

    def _make_answers(
        self,
        target: EvalTarget,
        suite: Suite,
        journal: Journal,
        step: int,
        loss: float | None,
    ) -> AnswersAtStep:
        """Has the model answer with the weights of a step, and keeps its answers."""
        answered, generation = self._answer(target, suite, step, loss)
        question = Asked(step, suite.name, suite.how)
        place = answers.keep_answers(
            target.folder, journal.name, question, generation, answered
        )
        return AnswersAtStep(
            place, answered, {**structs.asdict(generation), "step": step}
        )

    def _score(
        self,
        target: EvalTarget,
        suite: Suite,
        lacking: list[str],
        answered: list[Answered],
    ) -> ScoredSuite:
        """The scores of a suite's answers by the keys that are lacking."""
        items = target.items(suite)
        requested = [key for key in lacking if not is_answers(key)]
        scores, failed, judged = self._scorers.score(suite, items, requested, answered)
        keys = [key for key in lacking if key not in failed]
        return ScoredSuite(items, keys, requested, scores, failed, judged)

    def _look_inside(
        self, target: EvalTarget, suite: Suite, journal: Journal, step: int
    ) -> None:
        """Takes the metrics that are taken inside the model; journals how, each item's
        values, the metrics."""
        point = target.read_trainer_point(step) or TrainerPoint(None, 0)
        loss, examples = point.loss, point.examples
        ways = {
            key: suite.find_definition(key)
            for key in evaluations.list_lacking_keys(suite.keys, step, target.taken())
        }
        probe, started = self._hold(target, step, loss), time.perf_counter()
        digest = _digest_of(target, step)
        inside = Inside(
            self._swapper.decoder,
            self._device,
            target.folder,
            step,
            digest,
            target.vocabulary,
            target.test[0],
            list(list_tested(target.job.stage["data"])),
            target.choices,
            lambda examples: self._held_out(target, examples),
            lambda key, how, looked: self._take_gradients(
                target, GradientsTaken(step, key, how, digest), looked
            ),
            self._fence,
        )
        looked = inside.look(ways)
        if looked.failed:
            target.troubles[step, suite.name] = join_errors(looked.failed)
            logger.warning(
                f"{target.folder.name} step {step}: {target.troubles[step, suite.name]}"
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
            f"{target.folder.name} step {step}: {'; '.join([shown, *looked.flags])}"
        )

    def _take_tasks(
        self, target: EvalTarget, suite: Suite, journal: Journal, step: int
    ) -> None:
        """Takes tasks of lm-evaluation-harness, one after the other: each is journalled
        as soon as it is taken, so a job that is killed in between loses one at most.

        Where the harness is not installed that is told, and other metrics are taken.
        """
        if self._harness is None:
            try:
                self._harness = open_harness(self._item)
            except ClusterError as error:
                target.troubles[step, suite.name] = keep_error(error, is_named=False)
                logger.warning(f"{target.folder.name} step {step}: {error}")
                return
        point = target.read_trainer_point(step) or TrainerPoint(None, 0)
        probe = self._hold(target, step, point.loss)
        taking = Taking(
            step=step,
            examples=point.examples,
            weights=_digest_of(target, step),
            probe_loss=probe,
            device=self._device,
            placement=attempts.describe_placement(self._attempt),
            swapper=self._swapper,
            budget=self._choose_loss_tokens(target),
        )
        failed: dict[str, ZsgError] = {}
        for key in evaluations.list_lacking_keys(suite.keys, step, target.taken()):
            try:
                self._harness.take(target, suite, key, journal, taking)
            except (UserError, ClusterError) as error:
                failed[key] = keep_error(error, is_named=False)
                target.troubles[step, suite.name] = join_errors(failed)
                logger.warning(
                    f"{target.folder.name} step {step}: {key}: {failed[key]}"
                )
                continue
            self._done.scored += 1

    def _take_gradients(
        self, target: EvalTarget, taken: GradientsTaken, looked: Looked
    ) -> None:
        """Takes how far gradients of training examples cancel, by the weights that are
        held; adds it to what was found inside them."""
        tuning = target.job.train["tuning"]
        trained = list_trained(self._swapper.decoder, tuning, self._swapper.trainable)
        if not trained:
            looked.values[taken.key] = math.nan
            looked.flags.append(
                f"{taken.key}: the base has no adapters yet, so no gradient is taken"
            )
            return
        drawn = target.draw_trained(taken.way["items"])
        sums = gradients.sum_gradients(
            self._swapper.model, trained, drawn, self._device
        )
        self._fence()
        looked.files.append(gradients.keep_norms(target.folder, taken, drawn, sums))
        looked.values.update(gradients.describe_sums(taken.key, drawn, sums))
        moved = self._swapper.measure_moved(target.job.base_folder)
        if moved is None:
            looked.flags.append(
                f"{taken.key}: how far weights moved is not known, as they started in other"
                " tensors"
            )
        else:
            looked.values[gradients.name_moved(taken.key)] = moved

    def _answer(
        self, target: EvalTarget, suite: Suite, step: int, loss: float | None
    ) -> tuple[list[Answered], Generation]:
        """The items' answers by the weights of a step, and how they came about."""
        started = time.perf_counter()
        probe = self._hold(target, step, loss)
        swapped, words, items = (
            time.perf_counter(),
            target.find_words(suite.marks or ()),
            target.items(suite),
        )

        def make_generator(how: Mapping[str, Any]) -> Generator:
            generator = Generator(
                self._swapper.decoder,
                how,
                words.bos,
                words.eos,
                self._device,
                words.text,
            )
            generator.budget = self._budget
            return generator

        generate = Asking(make_generator)
        answered = items.answer(generate)
        generation = Generation(
            weights=_digest_of(target, step),
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

    def _hold(self, target: EvalTarget, step: int, loss: float | None) -> float:
        """Puts the weights of a step into the model, unless they are there, and returns
        their loss on the test set.

        ClusterError where they are not those that the trainer had.
        """
        if self._holding and self._holding[:2] == (target, step):
            return self._holding[2]
        self._holding = None
        if step:
            folder = snapshots.folder_of(target.folder, step)
            if self._swapper.must_load(folder, target.job):
                self._probed = None  # it holds the model that is to go
            self._swapper.load_snapshot(folder, target.job)
            probe_loss = snapshots.read_meta(folder).probe_loss
            loss = None if probe_loss is None else float(probe_loss)
        else:
            self._probed = None
            self._swapper.load_base(target.job)
        probe = self._probe(target)
        refuse_other_loss(
            probe,
            loss,
            target.job.stage["train"]["precision"],
            f"step {step}",
        )
        self._holding = target, step, probe
        return probe

    def _probe(self, target: EvalTarget) -> float:
        """The loss of the weights that are held on the run's test set, computed as the
        run computes it."""
        if self._probed is None or self._probed[:2] != (target, self._swapper.loads):
            self._probed = (
                target,
                self._swapper.loads,
                self._held_out(target, target.test[0]),
            )
        held_out = self._probed[2]
        return summarize_losses(held_out.measure(), held_out.tokens)["loss"]

    @property
    def _budget(self) -> BatchBudget:
        """Of the batches of the model that is held."""
        assert self._swapper.budget is not None, "a model is held"
        return self._swapper.budget

    def _choose_loss_tokens(self, target: EvalTarget) -> int:
        """The most tokens of a pass in which no gradients are taken."""
        micro_tokens = (
            target.job.micro_tokens
            or schedule.MICRO_TOKENS[self._device.partition(":")[0]]
        )
        return self._budget.choose_loss_tokens(micro_tokens)

    def _held_out(self, target: EvalTarget, tokens: TokenizedSet) -> HeldOutLoss:
        """The loss of examples by the weights that are held, computed as the run
        computes that of its test set."""
        budget = self._choose_loss_tokens(target)
        rule = target.job.stage["train"].get("truncated_answers", "exclude")
        return HeldOutLoss(
            self._swapper.model,
            tokens,
            Ranks(0, 1, 0),
            self._device,
            budget,
            None,
            rule,
        )

    @staticmethod
    def _keep_items(
        run: Path,
        items: Items,
        journal: Journal,
        scores: Scores,
        step: int,
        examples: int,
    ) -> None:
        ids = [items.ids[number] for number in items.places]
        item_losses.describe_suite(run, items.name, items.ids, items.tasks)
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


def _sweep_leases(target: EvalTarget) -> None:
    """Removes the leases of what has been taken. Damaged where that cannot be told."""
    found = evaluations.collect_taken_keys(target.folder)
    leases.sweep_leases(
        target.folder,
        lambda step, keys: not evaluations.list_lacking_keys(keys, step, found),
    )


def _find_answers(target: EvalTarget, suite: Suite, step: int) -> AnswersAtStep | None:
    """The answers that are kept of a step; None where there are none."""
    rows = journals.read_guests(target.folder)
    place = answers.find_place(rows, step, suite.name, suite.how)
    if place is None:
        return None
    facts = {"asked": dict(place.asked)} if place.asked else {}
    return AnswersAtStep(place, answers.read_answers(target.folder, place), facts)


def _describe_answers(
    suite: Suite, at_step: AnswersAtStep, scored: ScoredSuite
) -> AnswersKept:
    """The row that tells where answers are kept and what was taken of them."""
    counts = at_step.facts.get("asked", {})
    scored_by = {
        key: scorer for key, scorer in suite.scored_by.items() if key in scored.keys
    }
    return AnswersKept(
        suite=suite.name,
        how=dict(suite.how),
        keys=scored.keys,
        scored_by=scored_by or UNSET,
        file=at_step.place.file,
        at=at_step.place.at,
        bytes=at_step.place.size,
        flags=[*asking.list_flags(counts, suite.how), *scored.scores.flags],
        failed={key: str(error) for key, error in scored.failed.items()} or UNSET,
        judged=scored.judged or UNSET,
        libraries=_read_libraries(scored.keys) or UNSET,
        **at_step.facts,
    )


def _read_libraries(keys: Sequence[str]) -> dict[str, str]:
    """The versions of the packages that score these keys."""
    metrics = [METRICS[find_metric(key)] for key in keys if not is_answers(key)]
    packages = dict.fromkeys(metric.package for metric in metrics)
    versions = {package: read_version(package) for package in packages if package}
    return {package: version for package, version in versions.items() if version}


def _digest_of(target: EvalTarget, step: int) -> str | None:
    """The digest of a snapshot's weights; None of the base."""
    if step == 0:
        return None
    return snapshots.read_meta(snapshots.folder_of(target.folder, step)).weights
