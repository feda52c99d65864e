"""Are embeddings made once, kept by content, and gone on with where they stopped?"""

from pathlib import Path

import numpy as np
import pytest

from jobs.contract.folder import Workspace
from jobs.preparing import embed
from launcher.grids import inputs
from zsg_core.errors import UserError
from zsg_core.settings.run import Settings

TEXTS = [f"text {i % 7} of {i % 40}" for i in range(100)]


def letters(texts: list[str]) -> np.ndarray:
    """A model that counts letters."""
    return np.array(
        [[text.count(letter) for letter in "0123456789"] for text in texts], np.float32
    )


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks of a few texts."""
    monkeypatch.setattr(embed, "BLOCK", 8)


def filled(draft: Path, encode=letters, texts=TEXTS, known=()) -> np.ndarray:
    """The file that is made of what is known and what `fill_draft` embeds."""
    draft.mkdir(exist_ok=True)
    embed.begin_draft(draft, texts, known)
    embed.fill_draft(draft, texts, encode)
    return np.load(draft / "vectors.npy")


def test_every_text_has_its_vector_in_its_place(tmp_path):
    """Equal texts have equal vectors, and the order is that of the texts."""
    assert filled(tmp_path / "a").tolist() == letters(TEXTS).tolist()


def test_equal_texts_are_embedded_once(tmp_path):
    """What a batch does to the last bits cannot tell equal texts apart, and no work is
    done twice."""
    seen: list[str] = []

    filled(tmp_path / "a", lambda texts: (seen.extend(texts), letters(texts))[1])
    assert sorted(seen) == sorted(set(TEXTS))


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_an_embedding_goes_on_where_it_stopped(tmp_path, calls):
    """Killed after some blocks, it embeds only the others, in the same blocks."""
    asked: list[list[str]] = []

    def dying(texts: list[str]) -> np.ndarray:
        if len(asked) == calls:
            raise KeyboardInterrupt
        asked.append(texts)
        return letters(texts)

    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "a", dying)
    half = asked[:]
    made = filled(
        tmp_path / "a", lambda texts: (asked.append(texts), letters(texts))[1]
    )

    whole: list[list[str]] = []
    wanted = filled(
        tmp_path / "b", lambda texts: (whole.append(texts), letters(texts))[1]
    )
    assert len(half) == calls
    assert asked == whole
    assert made.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_what_another_embedding_knows_is_not_embedded_again(tmp_path, calls):
    """Lent vectors stand in their places, killed or not; a draft begun before more was
    known keeps its list."""
    places = np.flatnonzero([text.startswith(("text 1", "text 3")) for text in TEXTS])
    lent = [
        (part, 100 + letters([TEXTS[place] for place in part]))
        for part in (places[::2], places[1::2])
    ]
    asked: list[str] = []

    def dying(texts: list[str]) -> np.ndarray:
        if len(asked) >= 8 * calls:
            raise KeyboardInterrupt
        asked.extend(texts)
        return letters(texts)

    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "a", dying, known=lent)
    everything = [(np.arange(len(TEXTS)), np.zeros((len(TEXTS), 10), np.float32))]
    made = filled(
        tmp_path / "a",
        lambda texts: (asked.extend(texts), letters(texts))[1],
        known=everything,
    )

    wanted = letters(TEXTS)
    wanted[places] += 100
    assert made.tolist() == wanted.tolist()
    assert sorted(asked) == sorted(
        {text for text in TEXTS if not text.startswith(("text 1", "text 3"))}
    )


def test_texts_are_known_by_all_embeddings_of_the_same_model(tmp_path, monkeypatch):
    """A list of another split lends from several; another model's and an unfinished one
    lend nothing."""
    monkeypatch.setattr(embed.content, "refuse_changed", lambda *given: None)
    asked: list[str] = []
    monkeypatch.setattr(
        embed,
        "make_encoder",
        lambda folder: lambda texts: (asked.extend(texts), letters(texts))[1],
    )
    place = Workspace(tmp_path)

    def embedded(texts: list[str], model: str) -> Path:
        return embed.embed_texts(place, texts, tmp_path, model)

    for texts, model in (
        (["9", "1"], "other"),
        (["1", "2"], "model"),
        (["3", "2"], "model"),
    ):
        embedded(texts, model)
    (embedded(["6"], "model") / "COMMIT").unlink()
    asked.clear()

    made = embedded(["9", "3", "1", "6", "3"], "model")
    assert sorted(asked) == ["6", "9"]
    assert (
        embed.map_vectors(made).tolist() == letters(["9", "3", "1", "6", "3"]).tolist()
    )


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (["ab", "c"], ["a", "bc"]),
        (["a"], ["a", ""]),
        (["a", "b"], ["b", "a"]),
        (["é"], ["e\u0301"]),
    ],
)
def test_different_lists_of_texts_have_different_ids(one, two):
    """The id is that of the texts in their order, wherever one ends and the next begins."""
    assert embed.texts_digest(one) != embed.texts_digest(two)


def test_the_real_model_is_asked_once_for_the_same_texts(tmp_path, monkeypatch):
    """Unit vectors of MiniLM, mapped from a file that a second corpus with the same
    texts finds made."""
    settings = Settings.model_validate({"data": {"path": "/d"}})
    model = inputs.embedding_folder(settings)
    digest = embed.content.folder_digest(
        model,
        files := embed.content.embedding_files(model),
        embed.content.sha256_of(files),
    )
    place = Workspace(tmp_path)
    folder = embed.embed_texts(place, ["a cat", "a dog", "a cat"], model, digest)
    vectors = embed.map_vectors(folder)
    monkeypatch.setattr(embed, "make_encoder", None)  # a second model would be a bug

    assert (
        embed.embed_texts(place, ["a cat", "a dog", "a cat"], model, digest) == folder
    )
    assert isinstance(vectors, np.memmap)
    assert (vectors.shape, vectors.dtype) == ((3, 384), np.float32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-6)
    assert vectors[0].tolist() == vectors[2].tolist() != vectors[1].tolist()
    assert sorted(path.name for path in folder.parent.iterdir() if path.is_dir()) == [
        folder.name
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_refused_where_it_is_made(tmp_path, value):
    """With the text that it is of, whatever would be measured by it; vectors that an
    older zsg kept are made anew."""

    def broken(texts: list[str]) -> np.ndarray:
        made = letters(texts)
        made[[text == TEXTS[9] for text in texts], 3] = value
        return made

    with pytest.raises(UserError, match=f"not finite of 1 texts, .* {TEXTS[9]!r}"):
        filled(tmp_path / "a", broken)
    known = [(np.arange(len(TEXTS)), broken(TEXTS))]
    made = filled(tmp_path / "b", known=known)
    assert made.tolist() == letters(TEXTS).tolist()


def test_vectors_that_are_lent_are_copied_only_where_some_are_not_finite() -> None:
    """Looked at block by block: of large embeddings nothing is made twice."""
    vectors = letters(TEXTS)
    vectors[[0, 7, 8, 99], 3] = np.nan, np.inf, -np.inf, np.nan

    is_finite = embed._find_finite(vectors)
    assert np.flatnonzero(~is_finite).tolist() == [0, 7, 8, 99]
    assert embed._find_finite(vectors[:0]).shape == (0,)
