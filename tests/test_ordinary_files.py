"""Is a file of a model's folder read, digested and copied only where it lies in the
folder, or in its hub's cache?"""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.files import ordinary_files
from jobs.model import content
from launcher.grids import model_folder
from launcher.grids.inputs import Inputs
from tests.lib.model_folders import write_llama
from tests.lib.other_user import OtherUser
from zsg_core.errors import UserError

HASH = "0123456789abcdef" * 4
REVISION = "0123456789abcdef0123456789abcdef01234567"


def link(name: str, to: str) -> Callable[[Path], object]:
    """A link in place of a file of the folder."""

    def plant(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)

    return plant


def pipe(name: str) -> Callable[[Path], object]:
    """A pipe in place of a file, at which a reader would wait for ever."""
    return lambda folder: (
        (folder / name).unlink(missing_ok=True),
        os.mkfifo(folder / name),
    )


def sparse(name: str, size: int) -> Callable[[Path], object]:
    """A file of so many bytes, none of which is on the disk."""
    return lambda folder: ((folder / name).touch(), os.truncate(folder / name, size))


def template_link(folder: Path) -> None:
    """A template that is a link."""
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/rag.jinja").symlink_to("../../secret")


STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "the config": (
        link("config.json", "../secret"),
        r"config\.json is a link to .*secret, .* copy the folder .*cp -rL",
    ),
    "an absolute link": (
        link("tokenizer.json", "/etc/passwd"),
        "is a link to /etc/passwd",
    ),
    "what only a snapshot copies": (
        link("generation_config.json", "../secret"),
        "generation_config.json is a link",
    ),
    "a template": (
        link("chat_template.jinja", "../secret"),
        r"chat_template\.jinja is a link",
    ),
    "a template of several": (template_link, r"rag\.jinja is a link"),
    "a folder of templates": (
        link("additional_chat_templates", "../folder"),
        "is a link to a folder",
    ),
    "what a digest's pattern takes": (
        link("tokenizer.private", "../secret"),
        r"tokenizer\.private is a link",
    ),
    "weights": (link("model-00002-of-00002.safetensors", "../secret"), "is a link"),
    "by another link": (
        lambda folder: (
            link("hop", "../secret")(folder),
            link("vocab.json", "hop")(folder),
        ),
        r"vocab\.json is a link to .*secret",
    ),
    "by a linked folder": (
        lambda folder: (
            link("sub", "../folder")(folder),
            link("vocab.json", "sub/file")(folder),
        ),
        r"vocab\.json is a link",
    ),
    "to nowhere": (
        link("added_tokens.json", "nowhere"),
        "cannot be read: No such file",
    ),
    "in a circle": (link("added_tokens.json", "added_tokens.json"), "cannot be read"),
    "an adapter's": (
        link("adapter_config.json", "../secret"),
        r"adapter_config\.json is a link",
    ),
    "a pipe": (pipe("tokenizer_config.json"), "no ordinary file"),
    "a pipe of weights": (pipe("model.safetensors"), "no ordinary file"),
    "a link to a pipe": (
        lambda folder: (pipe("pipe")(folder), link("tokenizer.json", "pipe")(folder)),
        "no ordinary file",
    ),
    "a link to a device": (
        link("tokenizer.json", "/dev/zero"),
        "is a link to /dev/zero",
    ),
    "a tokenizer of a terabyte": (
        sparse("tokenizer.model", 10**12),
        "has 1,000,000,000,000 bytes",
    ),
    "a name that clears a terminal": (
        lambda folder: (folder / "tokenizer\x1b[2J").touch(),
        r"tokenizer\\x1b\[2J: its name does not print",
    ),
    "a name that is no text": (
        lambda folder: os.close(os.open(bytes(folder) + b"/vocab\xff", os.O_CREAT)),
        "its name does not print",
    ),
}


@pytest.mark.parametrize(("plant", "said"), STRANGE.values(), ids=STRANGE.keys())
def test_a_folder_with_something_strange_is_refused(
    tmp_path: Path, plant: Callable[[Path], object], said: str
) -> None:
    """Before anything of it is read, with the path; by plan, for every kind of model,
    and by the digest on a node."""
    (tmp_path / "secret").write_text('{"model_type": "secret"}')
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("secret")
    folder = write_llama(tmp_path / "model")
    plant(folder)

    for refuse in (
        lambda: model_folder.check_decoder(folder),
        lambda: model_folder.check_reward("k", folder),
        lambda: content.model_files(folder),
        lambda: content.reward_files(folder),
    ):
        with pytest.raises(UserError, match=said) as told:
            refuse()
        assert str(told.value).isprintable() and '"secret"' not in str(told.value)


def cached(cache: Path, kind: str = "models") -> Path:
    """A Llama as huggingface_hub keeps it: each file of a snapshot a link to a blob of
    its repository."""
    repository = cache / f"{kind}--org--llama"
    folder = write_llama(repository / "snapshots" / REVISION)
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        blob = repository / "blobs" / f"{number:064x}"
        path.rename(blob)
        path.symlink_to(f"../../blobs/{blob.name}")
    return folder


def test_a_snapshot_in_a_hubs_cache_is_taken(tmp_path: Path) -> None:
    """Wherever the cache lies, reached by a link or not; its digest is that of a plain
    folder with the same files."""
    plain = write_llama(tmp_path / "plain")
    folder = cached(tmp_path / "anywhere/hub")
    (tmp_path / "link").symlink_to(folder)
    digests = Inputs(tmp_path / "digests.json")

    for one in (folder, tmp_path / "link"):
        model_folder.check_decoder(one)
        assert digests.digest_folder(one, content.model_files) == digests.digest_folder(
            plain, content.model_files
        )
    assert [path.name for path in content.copied_files(folder)] == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def outside(repository: Path, name: str) -> Path:
    """Something of the user's beside a repository of a cache."""
    path = repository.parent / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    return path


IMITATED: dict[str, Callable[[Path, Path], object]] = {
    "a blob that is a link": lambda folder, repository: (
        (repository / "blobs" / HASH).symlink_to(outside(repository, "secret")),
        link("vocab.json", f"../../blobs/{HASH}")(folder),
    ),
    "blobs that are a link": lambda folder, repository: (
        (repository / "blobs").rename(repository.parent / "elsewhere"),
        (repository / "blobs").symlink_to("../elsewhere"),
    ),
    "a blob of another repository": lambda folder, repository: (
        outside(repository, f"models--org--private/blobs/{HASH}"),
        link("vocab.json", f"../../../models--org--private/blobs/{HASH}")(folder),
    ),
    "a folder within the blobs": lambda folder, repository: (
        (repository / "blobs/sub").mkdir(),
        (repository / "blobs/sub/file").write_text("{}"),
        link("vocab.json", "../../blobs/sub/file")(folder),
    ),
    "another part of the repository": lambda folder, repository: (
        (repository / "refs").mkdir(),
        (repository / "refs/main").write_text("{}"),
        link("vocab.json", "../../refs/main")(folder),
    ),
}


@pytest.mark.parametrize("imitate", IMITATED.values(), ids=IMITATED.keys())
def test_a_folder_that_imitates_a_cache_reaches_no_other_file(
    tmp_path: Path, imitate: Callable[[Path, Path], object]
) -> None:
    """Only an ordinary file directly among the blobs of the very repository counts."""
    folder = cached(tmp_path / "hub")
    imitate(folder, folder.parent.parent)

    with pytest.raises(UserError, match="is a link to"):
        content.model_files(folder)


def test_blobs_beside_a_folder_that_is_no_snapshot_are_not_a_cache(
    tmp_path: Path,
) -> None:
    """The names of the layout decide: snapshots in a folder called models--…."""
    folder = cached(tmp_path / "hub", kind="mine")

    with pytest.raises(UserError, match="is a link to"):
        content.model_files(folder)


def test_an_embedding_model_is_judged_whole(tmp_path: Path) -> None:
    """All of it is read: no link in a folder of it, no linked folder, no pipe; in a
    hub's cache it is taken."""
    repository = tmp_path / "models--org--mini"
    folder = repository / "snapshots" / REVISION
    (folder / "1_Pooling").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / HASH).write_text("{}")
    (folder / "modules.json").write_text("[]")
    (folder / "1_Pooling/config.json").symlink_to(f"../../../blobs/{HASH}")
    assert len(content.embedding_files(folder)) == 2

    secret = outside(repository, "secret")
    for name, plant, said in (
        ("1_Pooling/any", lambda path: path.symlink_to(secret), "any is a link to"),
        (
            "2_Dense",
            lambda path: path.symlink_to(tmp_path),
            "2_Dense is a link to a folder",
        ),
        ("pipe", os.mkfifo, "pipe is no ordinary file"),
    ):
        plant(folder / name)
        with pytest.raises(UserError, match=said):
            content.embedding_files(folder)
        with pytest.raises(UserError, match=f"k: .*{said}"):
            model_folder.check_embedding("k", folder)
        (folder / name).unlink()


def test_a_socket_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an address that is short enough for one."""
    folder = write_llama(tmp_path / "model")
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("merges.txt")
        with pytest.raises(UserError, match=r"merges\.txt is no ordinary file"):
            content.model_files(folder)


def test_only_known_names_are_copied(tmp_path: Path) -> None:
    """Whatever else lies there, also of a name that a digest's pattern takes."""
    folder = write_llama(tmp_path / "model")
    for name in (
        "tokenizer.private",
        "vocab-secrets.txt",
        "notes.model",
        "chat_template.bak",
        "README.md",
        "vocab.json",
    ):
        (folder / name).write_text("{}")
    (folder / "additional_chat_templates").mkdir()
    for name in ("rag.jinja", "notes.txt"):
        (folder / "additional_chat_templates" / name).write_text("x")

    copied = [
        str(path.relative_to(folder))
        for path in content.copied_files(folder, "generation_config.json")
    ]
    assert copied == [
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "additional_chat_templates/rag.jinja",
    ]


def test_a_copy_is_not_more_open_than_its_source(tmp_path: Path) -> None:
    """Nor than the process lets files be; nothing is copied over what is there, and no
    link is written through."""
    folder = write_llama(tmp_path / "model")
    source = folder / "tokenizer.json"
    before = os.umask(0o022)
    try:
        for rights, made in (
            (0o600, 0o600),
            (0o640, 0o640),
            (0o666, 0o644),
            (0o400, 0o600),
            (0o755, 0o644),
        ):
            source.chmod(rights)
            to = tmp_path / f"{rights:o}"
            ordinary_files.copy_file(folder, source, to)
            assert stat.S_IMODE(to.stat().st_mode) == made
            assert to.read_bytes() == source.read_bytes()
    finally:
        os.umask(before)
    (tmp_path / "kept").write_text("mine")
    (tmp_path / "link").symlink_to("kept")
    for name in ("kept", "link"):
        with pytest.raises(FileExistsError):
            ordinary_files.copy_file(folder, source, tmp_path / name)
    assert (tmp_path / "kept").read_text() == "mine"


def test_a_link_that_another_user_plants_is_not_followed(
    stranger: OtherUser, open_to_all: Path
) -> None:
    """The folder was sent around: the owner of the link gets nothing of who uses the model."""
    folder = write_llama(open_to_all / "model")
    private = open_to_all / "private"
    private.write_text("mine")
    private.chmod(0o600)
    folder.chmod(0o777)
    assert not stranger.can('cat "$1"', private)
    assert stranger.can('ln -s "$1" "$2"', private, folder / "chat_template.jinja")

    with pytest.raises(UserError, match=r"chat_template\.jinja is a link to .*private"):
        model_folder.check_decoder(folder)
    with pytest.raises(UserError, match="is a link to"):
        ordinary_files.copy_file(
            folder, folder / "chat_template.jinja", open_to_all / "copy"
        )
    assert not (open_to_all / "copy").exists()


def test_an_adapter_that_came_after_plan_is_refused_on_the_node(tmp_path: Path) -> None:
    """transformers would put it on top of the weights, of which no digest knows."""
    folder = write_llama(tmp_path / "model")
    files = content.model_files(folder)
    digest = content.folder_digest(folder, files, content.sha256_of(files))
    content.refuse_changed(folder, content.model_files, digest)
    (folder / "adapter_config.json").write_text("{}")

    with pytest.raises(UserError, match="an adapter lies beside the weights"):
        content.refuse_changed(folder, content.model_files, digest)


def test_a_reward_models_templates_are_in_its_digest(tmp_path: Path) -> None:
    """They decide what it reads; a base's decide nothing, and a reward model without
    any has the digest it had."""
    folder = write_llama(tmp_path / "model")

    def digest(list_files: content.Files) -> str:
        files = list_files(folder)
        return content.folder_digest(folder, files, content.sha256_of(files))

    base = digest(content.model_files)
    assert digest(content.reward_files) == base
    made = []
    for told in ("one", "two"):
        (folder / "chat_template.jinja").write_text(told)
        made.append(digest(content.reward_files))
    assert len({base, *made}) == 3
    assert digest(content.model_files) == base


def test_links_out_of_a_folder_of_data_are_told(
    tmp_path: Path, logged: list[str]
) -> None:
    """They may be the user's own: what lies there is read, and she knows of it."""
    row = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
    (tmp_path / "elsewhere.jsonl").write_text(row)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl").symlink_to("../elsewhere.jsonl")
    (tmp_path / "data/plain.jsonl").write_text(row)
    inputs = Inputs(tmp_path / "digests.json")
    for path in ("data", "data/plain.jsonl"):
        inputs._tell_links(tmp_path / path, content.data_files("messages"))

    [told] = logged
    assert told.startswith(
        f"note: {tmp_path}/data/train.jsonl is a link to {tmp_path}/elsewhere.jsonl; "
    )
