"""Holds a run's records against one another and against what they name: every look but the replay.

Each look returns what holds, or raises Differs or NotChecked. None imports an engine.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jobs.contract import job_file, journal, prepared, snapshots
from jobs.contract.exit_record import replace_unset
from jobs.contract.folder import META, SCORES, list_paths, read_json
from jobs.contract.item_losses import read_test_losses
from jobs.contract.job_file import PrepareJob
from jobs.contract.journal_rows import DigestRow
from jobs.contract.saved_state import SavedState
from jobs.contract.states import Outcome
from jobs.model import content
from jobs.training import safetensors_digests, state
from launcher.verification import run_plugins
from launcher.verification.evidence import Evidence
from launcher.verification.finding import Differs, NotChecked
from launcher.verification.journal_check import (
    SNAPSHOT,
    check_journal,
    replayable_values,
)
from launcher.workspace import code_snapshot
from zsg_core import recipe as recipes
from zsg_core.data.target_sets import BY_FILE
from zsg_core.digest import combine_digests, content_id, digest_ids
from zsg_core.errors import UserError
from zsg_core.orders import score_list
from zsg_core.orders.arrange import arrange_items
from zsg_core.orders.order_list import ListFile
from zsg_core.registry import find_digest, strip_digest
from zsg_core.training import schedule

MEAN = 1e-5  # relative: items are kept in float32, means in float64

Cells = Mapping[tuple[int, str], Any]
RecordCheck = Callable[[], str]


def list_checks(e: Evidence) -> Iterator[tuple[str, RecordCheck]]:
    """Every look at the records, by its name, in the order of the work."""
    arrangement = e.stage["arrangement"]
    yield "recipe", partial(check_recipe, e)
    yield "code", partial(check_code, e)
    for name, rule in recipes.list_sources(e.stage["data"]).items():
        yield f"data {name}".strip(), partial(check_data, e, name, rule)
    yield "base", partial(check_base, e)
    yield "corpus", partial(check_corpus, e)
    yield "arrangement", partial(check_arrangement, e)
    if find_digest(arrangement["order"]):
        yield "plugin order", partial(check_plugin_order, e)
    if "score" in arrangement:
        yield "scores", partial(check_scores, e)
    if "target" in arrangement:
        yield "target", partial(check_target, e)
    yield "schedule", partial(check_schedule, e)
    yield "journal", partial(check_journal, e)
    yield "losses", partial(check_losses, e)
    yield "weights", partial(check_weights, e)
    yield "state", partial(check_state, e)


def check_recipe(e: Evidence) -> str:
    """The run's id is the hash of its recipe, and so are the names of what it was made of."""
    ids = {"run": recipes.run_id(e.recipe), "corpus": recipes.corpus_id(e.recipe)}
    ids |= {
        "arrangement": recipes.arrangement_id(e.recipe),
        "base": recipes.base_id(e.recipe),
    }
    for kind, recorded in ({"run": e.job.run_id} | e.job.made.ids).items():
        if ids[kind] != recorded:
            raise Differs(
                f"the {kind} is {recorded}, the recorded recipe is that of {ids[kind]}"
            )
    return f"{ids['run']} is the hash of the recorded recipe"


def check_code(e: Evidence) -> str:
    """The code that was submitted is kept and is what it was."""
    recorded = replace_unset(e.job.code.digest)
    name = code_snapshot.name_folder(e.job.code.facts)
    folder = e.made(f"code/{name}")
    files = code_snapshot.read_packages(
        [folder / package for package in code_snapshot.NAMES]
    )
    digest = code_snapshot.compute_digest(files)
    if digest != recorded:
        raise Differs(f"{folder} has the digest {digest}")
    return f"{recorded}, {len(files)} files, commit {replace_unset(e.job.code.commit) or 'unknown'}"


def check_data(e: Evidence, name: str, rule: dict[str, Any]) -> str:
    """The user's files of a source are those that the recipe was made of."""
    paths = _paths(e).get(name)
    if paths is None:
        raise NotChecked("no prepare job is here that says where the data lay")
    checked = list[str]()
    if any(
        map(find_digest, (rule["reader"], rule.get("held_out", {}).get("reader", "")))
    ):
        run_plugins.enter_declared(e)
    recorded = {"data": (rule["reader"], rule["digest"])}
    if paths.get("test"):
        recorded["test"] = (rule["held_out"]["reader"], rule["held_out"]["digest"])
    if paths.get("tags") and "tags" in rule["train"]:
        recorded["tags"] = (None, rule["train"]["tags"])
    for kind, (reader, digest) in recorded.items():
        path = Path(paths[kind])
        list_files = content.data_files(reader) if reader else content.one_file
        try:
            files = list_files(path)
        except UserError as error:
            raise NotChecked(
                f"{path} is not here; what was read of it is in records/"
            ) from error
        if content.folder_digest(path, files, content.sha256_of(files)) != digest:
            raise Differs(f"{path} is not what it was when the run was submitted")
        checked.append(f"{path.name}, {len(files)} file{'s' * (len(files) != 1)}")
    return f"{' and '.join(checked)}: as submitted"


def _paths(e: Evidence) -> dict[str, dict[str, Any]]:
    """Where the sources lay, by the prepare job that made the corpus."""
    for root in e.roots:
        for path in list_paths(root / "prepare", "*"):
            job = job_file.read_job_if_sound(path)
            if not isinstance(job, PrepareJob):
                continue
            if job.corpus.id == e.job.made.corpus:
                return job.paths.sources
    return {}


def check_base(e: Evidence) -> str:
    """The weights that the run started from are those that the recipe names."""
    if e.job.before:
        folder = base_folder(e)
        meta: dict[str, Any] = read_json(folder / META) or {}
        return f"{folder}: {_weights(folder, meta['weights'], 'their meta.json')}"
    recorded, folder = e.recipe["base"].get("digest"), base_folder(e)
    if recorded is None:
        meta = read_json(folder / META) or {}
        if meta.get("recipe") != e.recipe["base"]:
            raise Differs(f"{folder}/meta.json has another recipe")
        recorded, digest = meta.get("digest"), content.tiny_digest(folder)
    else:
        files = content.model_files(folder)
        digest = content.folder_digest(folder, files, content.sha256_of(files))
    if digest != recorded:
        raise Differs(f"{folder} has the digest {digest}, recorded is {recorded}")
    return f"{folder.name}: {digest[:12]}"


def base_folder(e: Evidence) -> Path:
    """Where the weights lie that the run started from. NotChecked if they are nowhere."""
    if e.job.before:
        start = e.job.before[-1]
        if weights_folder := e.find(f"runs/{start}/weights"):
            return weights_folder
        raise NotChecked(
            f"the weights of the stage before, {start}, were not kept; that run can be verified"
            " itself"
        )
    if base_id := e.job.made.base:
        return e.made(f"bases/{base_id}")
    folder = e.job.base_folder
    if not folder.is_dir():
        raise NotChecked(f"the base model {folder} is not here")
    return folder


def check_corpus(e: Evidence) -> str:
    """The examples are those that were sampled, and the arrangement orders them and no others."""
    from jobs.preparing.corpus import Corpus  # pyarrow, which a login node may lack

    need = f"corpora/{e.job.made.corpus}"
    sampled = Corpus(e.workspace_of(need), e.job.made.corpus)
    if sampled.recipe != e.stage["data"]:
        raise Differs(f"{sampled.folder}/meta.json has another recipe")
    for split, chosen in (("train", sampled.train), ("test", sampled.test)):
        if digest_ids(chosen.ids) != sampled.meta[f"{split}_digest"]:
            raise Differs(
                f"{sampled.folder}: the {split} examples are others than its meta.json says"
            )
    positions = np.load(e.arrangement / "places.npy")
    if [sampled.train.ids[position] for position in positions] != e.ids:
        raise Differs(
            f"{e.arrangement}: its places in the corpus and its ids are different lists"
        )
    return f"{len(sampled.train)} training and {len(sampled.test)} test examples"


def check_arrangement(e: Evidence) -> str:
    """The order is the list that its record describes, made by the recipe's rule of this corpus."""
    meta: dict[str, Any] = read_json(e.arrangement / META) or {}
    if meta.get("recipe") != e.stage["arrangement"]:
        raise Differs(f"{e.arrangement}/meta.json has another recipe")
    if meta["sources"]["corpus"] != e.job.made.corpus:
        raise Differs(f"{e.arrangement} orders corpus {meta['sources']['corpus']}")
    digest = digest_ids(e.ids)
    if digest != meta["ids_digest"]:
        raise Differs(
            f"{e.arrangement}/ids has the digest {digest}, recorded is {meta['ids_digest']}"
        )
    return f"{len(e.ids)} ids, {digest[:12]}"


def check_target(e: Evidence) -> str:
    """The order was made by the items of its target set that are recorded, and none of
    those that are held out is a test item."""
    from jobs.preparing.corpus import Corpus  # pyarrow, which a login node may lack

    meta = prepared.read_arrangement_meta(e.arrangement)
    path = e.arrangement / prepared.TARGET_IDS
    if meta is None or meta.target is None or not path.is_file():
        raise Differs(f"{e.arrangement} does not tell which target set it looks at")
    ids = path.read_text(encoding="utf-8").splitlines()
    if digest_ids(ids) != meta.target.ids_digest or len(ids) != meta.target.count:
        raise Differs(f"{path} is not the list that meta.json describes")
    if meta.target.by != BY_FILE:
        corpus_id = e.job.made.corpus
        corpus = Corpus(e.workspace_of(f"corpora/{corpus_id}"), corpus_id)
        both = set(ids).intersection(corpus.test.ids)
        if both:
            raise Differs(f"{path} has test items: {', '.join(sorted(both)[:3])}")
    return meta.target.describe()


def check_plugin_order(e: Evidence) -> str:
    """The order is what the plugin's copy makes of the corpus, whatever became of the
    user's file."""
    from jobs.preparing.corpus import Corpus  # pyarrow, which a login node may lack

    folder, plugins = run_plugins.enter_declared(e)
    run_plugins.let_run(folder, plugins)
    corpus = Corpus(e.workspace_of(f"corpora/{e.job.made.corpus}"), e.job.made.corpus)
    order = arrange_items(
        e.stage["arrangement"],
        corpus.train.tasks,
        list,  # no distance is asked for, nor a round
        lambda farthest, cap: iter(()),
        ids=corpus.train.ids,
        sources=lambda: corpus.train.sources,
        examples=lambda: list(corpus.train),
    )
    if [corpus.train.ids[position] for position in order.places] != e.ids:
        raise Differs(f"{e.arrangement} is not what the plugin's copy makes")
    name = strip_digest(e.stage["arrangement"]["order"])
    return f"{name} by the copy in {folder.name}: the same {len(e.ids)} ids"


def check_scores(e: Evidence) -> str:
    """The order is that of the kept scores by a model, which are what was published;
    the model itself is not asked again."""
    from jobs.preparing.corpus import Corpus  # pyarrow, which a login node may lack

    folder = e.made(f"{SCORES}/{recipes.scores_id(e.recipe)}")
    meta, used = prepared.read_scores_meta(folder), _find_used_scores(e)
    scores = score_list.read_scores(ListFile(folder / "scores.jsonl"))
    if meta is None or meta.digest != scores.digest:
        raise Differs(f"{folder}/scores.jsonl is not what its meta.json describes")
    if used is None or used.digest != scores.digest:
        raise Differs(f"{e.arrangement} was made of other scores than {folder} has")
    corpus = Corpus(e.workspace_of(f"corpora/{e.job.made.corpus}"), e.job.made.corpus)
    order = arrange_items(
        e.stage["arrangement"],
        corpus.train.tasks,
        list,  # no distance is asked for, nor a round
        lambda farthest, cap: iter(()),
        ids=corpus.train.ids,
        sources=lambda: corpus.train.sources,
        read_input=lambda: scores,
    )
    if [corpus.train.ids[position] for position in order.places] != e.ids:
        raise Differs(f"{e.arrangement} is not the order of the scores in {folder}")
    return (
        f"{meta.count} of {meta.recipe['name']}, {scores.digest[:12]}, in their order"
    )


def _find_used_scores(e: Evidence) -> prepared.UsedScores | None:
    """The scores that the order says it was made of."""
    meta = prepared.read_arrangement_meta(e.arrangement)
    return meta.sources.scores if meta else None


def check_schedule(e: Evidence) -> str:
    """The ids that the ranks consumed, as journalled, are those of the arrangement in batches."""
    journalled = {
        row.step: row.data["ids"] for row in e.rows if isinstance(row, DigestRow)
    }
    if not journalled:
        raise NotChecked("no checkpoint has been journalled")
    for step, digest in sorted(journalled.items()):
        if e.digests.get(step) != digest:
            raise Differs(
                f"step {step}: the digest of the ids consumed is {digest}, by the arrangement"
                f" {e.digests.get(step)}"
            )
    last = max(journalled)
    return (
        f"{journalled[last][:12]} after step {last}, and at {len(journalled) - 1} checkpoints"
        " before"
    )


def check_losses(e: Evidence) -> str:
    """A checkpoint's loss is the mean of its items' losses, and the end record's loss
    the last of them."""
    by_key: dict[str, dict[int, float]] = {}
    for point in journal.first_points(e.rows)[0]:
        by_key.setdefault(point.key, {})[point.step] = point.value
    count = 0
    for key, losses in by_key.items():
        if key == "loss" or schedule.quick_items(key):
            count += _compare_with_items(e, key, losses)
    _compare_with_end(e, by_key.get("loss", {}))
    if not count:
        raise NotChecked("no checkpoint has been journalled")
    return f"at {count} checkpoints the mean of the items' losses"


def _compare_with_items(e: Evidence, key: str, losses: Mapping[int, float]) -> int:
    """At how many steps there are losses of items. Differs where a journalled loss is
    not their mean."""
    items = read_test_losses(e.folder, key, e.rows)
    by_step = zip(items.steps, items.losses.astype(np.float64), strict=True)
    for step, of_items in by_step:
        finite = of_items[np.isfinite(of_items)]
        if step not in losses or not len(finite):
            continue
        mean = float(finite.mean())
        if not journal.values_agree(losses[step], mean, MEAN):
            raise Differs(
                f"{key} at step {step} is {losses[step]!r}, the mean of its items"
                f" {mean:.6g}"
            )
    return len(items.steps)


def _compare_with_end(e: Evidence, losses: Mapping[int, float]) -> None:
    """Differs where the end record of a run that is done has another loss than the journal."""
    if not losses or e.end is None or e.end.outcome != Outcome.DONE:
        return
    recorded = replace_unset(e.end.loss)
    if recorded is None:
        return
    last = max(losses)
    if not journal.values_agree(losses[last], float(recorded), 0.0):
        raise Differs(
            f"exit.json has the loss {recorded!r}, the journal {losses[last]!r} at step {last}"
        )


def check_weights(e: Evidence) -> str:
    """Weights on disk have the digests that were journalled when they were written."""
    recorded = replayable_values(e.rows)
    last = _find_last_weights(e, recorded)
    snapshots_found = _check_snapshots(e, recorded)
    if last and (e.folder / "weights").is_dir():
        _weights(e.folder / "weights", last, "the journal")
    checked = [f"{last[:12]} at the end" if last else "", snapshots_found]
    if not any(checked):
        raise NotChecked("neither the run's end nor a snapshot has been journalled")
    return ", ".join(filter(None, checked))


def _find_last_weights(e: Evidence, recorded: Cells) -> str:
    """The digest of the weights at the run's end, of which exit.json must tell the same;
    "" where none is journalled."""
    ends = [value for (_, key), value in recorded.items() if key == "digest of weights"]
    if not ends:
        return ""
    last = ends[-1]
    if e.end and replace_unset(e.end.weights, last) != last:
        raise Differs(f"exit.json has the weights {e.end.weights}, the journal {last}")
    return last


def _check_snapshots(e: Evidence, recorded: Cells) -> str:
    steps = [step for step, key in recorded if key == SNAPSHOT]
    on_disk = [step for step in steps if snapshots.folder_of(e.folder, step).is_dir()]
    for step in on_disk:
        folder = snapshots.folder_of(e.folder, step)
        _weights(folder, recorded[step, SNAPSHOT], f"the journal at step {step}")
    if not steps:
        return ""
    as_journalled = " and as journalled" if on_disk else ""
    return f"{len(on_disk)} of {len(steps)} snapshots are on disk{as_journalled}"


def _weights(folder: Path, recorded: str, source: str) -> str:
    try:
        digest = combine_digests(safetensors_digests.compute_digests(folder))
    except ValueError as error:
        raise Differs(str(error)) from error
    if digest != recorded:
        raise Differs(f"{folder} has the digest {digest}, by {source} {recorded}")
    return digest[:12]


def check_state(e: Evidence) -> str:
    """A full state is of this run, and the ids it says it has consumed are those of the
    schedule."""
    saved = newest_state(e)
    expected = {
        "run_id": e.job.run_id,
        "recipe": content_id(e.recipe, 64),
        "schedule": e.digests[max(e.digests)],
    }
    for key, value in expected.items():
        if saved.what.get(key) != value:
            raise Differs(
                f"the state of step {saved.step} is of another {key}: {saved.what.get(key)}, not"
                f" {value}"
            )
    if saved.ids != e.digests.get(saved.step):
        raise Differs(
            f"the state of step {saved.step} has consumed {saved.ids}, by the schedule"
            f" {e.digests.get(saved.step)}"
        )
    return f"of step {saved.step}, attempt {saved.attempt}"


def newest_state(e: Evidence) -> SavedState:
    """The newest full state. NotChecked if there is none; Differs for one that is not
    whole."""
    states, faults = state.find_whole_states(e.folder)
    if faults:
        raise Differs(
            f"{faults[-1]}; the next attempt passes it over for an older one, or starts over"
        )
    if not states:
        raise NotChecked(
            "no full state is kept"
            + " (checkpoints.keep_state keeps the last)" * bool(e.end)
        )
    return max(states, key=lambda saved: saved.step)
