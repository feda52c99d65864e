"""Does a bundle redo a grid's figures elsewhere, and does a hostile one do nothing?"""

import gzip
import hashlib
import io
import os
import re
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs.contract.folder import Workspace
from launcher.reporting import bundle_reader, bundle_writer, licences, report
from launcher.reporting.data.grid_comparison import ReportOptions
from tests.lib.reported_grid import make
from zsg_core.errors import UserError


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A workspace with a grid of two runs."""
    place = Workspace(tmp_path / "work")
    make(place, "g", [({"order": order}, None, 1.0) for order in ("rt", "nft")])
    return place


def shown(place: Workspace, page: Path) -> str:
    """The page of the grid, without when it was written."""
    report.write_report(place, "g", ReportOptions(), page)
    return re.sub(r"written [^.]*\.", "", page.read_text(encoding="utf-8"))


@pytest.mark.engine  # needs the extras
def test_a_bundle_redoes_the_page_elsewhere(place: Workspace, tmp_path: Path) -> None:
    """The unpacked workspace has the same page; the archive is the same twice, and holds
    neither weights nor logs."""
    files = [tmp_path / "a.tar.gz", tmp_path / "b.tar.gz"]
    place.run("run0").mkdir(exist_ok=True)
    for name in ("log.txt", "model.safetensors"):
        (place.run("run0") / name).write_text("not of the results")
    for file in files:
        bundle_writer.write_bundle(place, "g", file)
    record = bundle_reader.unpack_bundle(files[0], tmp_path / "theirs")

    assert files[0].read_bytes() == files[1].read_bytes()
    theirs = Workspace(tmp_path / "theirs")
    assert shown(theirs, tmp_path / "a.html") == shown(place, tmp_path / "b.html")
    assert len(record.runs) == 2 and record.packages == sorted(
        record.packages, key=str.lower
    )
    names = {Path(listed.path).name for listed in record.files}
    assert "grid.json" in names and not names & {"log.txt", "model.safetensors"}
    assert theirs.root.stat().st_mode & 0o777 == 0o700


def test_a_secret_is_not_packed(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value of a variable whose name says so; nothing is written."""
    monkeypatch.setenv("JUDGE_API_KEY", "s3cret-of-mine")
    (place.grid("g") / "grid.yaml").write_text("name: g  # s3cret-of-mine\n")
    with pytest.raises(UserError, match=r"grid\.yaml: holds a secret"):
        bundle_writer.write_bundle(place, "g", tmp_path / "a.tar.gz")

    assert not list(tmp_path.glob("*.tar.gz"))


def pack(path: Path, members: list[tuple[str, bytes, bytes]]) -> Path:
    """An archive of members: name, kind and content."""
    with (
        gzip.open(path, "wb") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content)
            member.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
            archive.addfile(member, io.BytesIO(content))
    return path


def manifest(files: dict[str, bytes], **changes: Any) -> tuple[str, bytes, bytes]:
    """A bundle.json that lists files."""
    listed = [
        {"path": path, "size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        for path, text in files.items()
    ]
    record = {"schema": 1, "grid": "g", "zsg": "1", "python": "3", "files": listed}
    text = msgspec.json.encode(record | changes)
    return ("bundle.json", tarfile.REGTYPE, text)


SOUND = {"workspace/grids/g/grid.json": b"{}"}
FILE = ("workspace/grids/g/grid.json", tarfile.REGTYPE, b"{}")
HOSTILE = {
    "leads up": [manifest({"workspace/../../evil": b"x"})],
    "is absolute": [manifest({"/etc/evil": b"x"})],
    "twice": [manifest({**SOUND, "workspace/grids/g/GRID.json": b"{}"})],
    "a link": [manifest(SOUND), (FILE[0], tarfile.SYMTYPE, b"")],
    "a hard link": [manifest(SOUND), (FILE[0], tarfile.LNKTYPE, b"")],
    "a device": [manifest(SOUND), (FILE[0], tarfile.CHRTYPE, b"")],
    "a long name": [("x" * 300, tarfile.REGTYPE, b"")],
    "unlisted": [manifest(SOUND), FILE, ("evil", tarfile.REGTYPE, b"x")],
    "missing": [manifest(SOUND)],
    "another size": [manifest(SOUND), (FILE[0], tarfile.REGTYPE, b"{ }")],
    "another content": [manifest(SOUND), (FILE[0], tarfile.REGTYPE, b"[]")],
    "a newer schema": [manifest(SOUND, schema=2), FILE],
    "no manifest": [FILE],
    "no JSON": [("bundle.json", tarfile.REGTYPE, b"[[")],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_bundle_leaves_nothing(kind: str, tmp_path: Path) -> None:
    """A UserError in one line that names the file; nothing is written anywhere."""
    file = pack(tmp_path / "evil.tar.gz", HOSTILE[kind])
    with pytest.raises(UserError, match=r"evil\.tar\.gz: .*nothing was unpacked"):
        bundle_reader.unpack_bundle(file, tmp_path / "in" / "work")

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_a_file_that_is_no_archive_is_told(tmp_path: Path) -> None:
    """Also one that was cut."""
    for name, content in (("a", b"hello"), ("b", gzip.compress(b"x" * 5000)[:40])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="no bundle of zsg, or is damaged"):
            bundle_reader.unpack_bundle(tmp_path / name, tmp_path / "work")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        bundle_reader.unpack_bundle(tmp_path / "a", tmp_path / "full")


def test_code_is_unpacked_only_if_asked_for(tmp_path: Path) -> None:
    """It is somebody's; what it is was checked all the same."""
    files = {**SOUND, "code/abc/jobs/entry.py": b"pass\n"}
    members = [(path, tarfile.REGTYPE, text) for path, text in files.items()]
    file = pack(tmp_path / "a.tar.gz", [manifest(files), *members])
    bundle_reader.unpack_bundle(file, tmp_path / "without")
    bundle_reader.unpack_bundle(file, tmp_path / "with", with_code=True)

    assert not (tmp_path / "without/code").exists()
    assert (tmp_path / "with/code/abc/jobs/entry.py").read_bytes() == b"pass\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ("", licences.UNKNOWN)),
        ({"README.md": "# Mine\nlicense: mit\n"}, ("", licences.UNKNOWN)),
        (
            {"README.md": "---\ntags: [a]\nlicense: apache-2.0\n---\n# A"},
            ("README.md", "apache-2.0"),
        ),
        ({"LICENSE": "\n  MIT License\n\nCopyright"}, ("LICENSE", "MIT License")),
        (
            {"README.md": "---\nlicense: gemma\n---\n", "LICENSE": "x"},
            ("README.md", "gemma"),
        ),
        ({"X_TERMS.html": "<html>"}, ("X_TERMS.html", "as this file says")),
        (
            {"LICENSE.txt": "a\x1b[31m" + "b" * 500},
            ("LICENSE.txt", "a\\x1b[31m" + "b" * 191),
        ),
        ({"COPYING": b"\xff\xfe\x00"}, ("COPYING", "��\\x00")),
    ],
)
def test_a_licence_is_told_as_it_lies_beside_a_model(
    tmp_path: Path, files: dict[str, Any], expected: tuple[str, str]
) -> None:
    """The card's word, else the first line of a text; one line that a terminal can show."""
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(raw)

    assert licences.find_licence(tmp_path) == expected


def test_a_licence_that_is_no_ordinary_file_is_not_read(tmp_path: Path) -> None:
    """A pipe would wait for ever; a folder that is gone tells nothing."""
    os.mkfifo(tmp_path / "LICENSE")
    (tmp_path / "README.md").mkdir()

    assert licences.find_licence(tmp_path) == ("", licences.UNKNOWN)
    assert licences.find_licence(tmp_path / "gone") == ("", licences.UNKNOWN)


def test_a_card_of_blank_lines_is_read_in_one_pass() -> None:
    """A head that never ends takes no time that grows with the square of its lines; one
    that ends is read, also with blanks behind its marks."""
    assert licences.read_card_head("---\n" + "\n" * 2_000_000) == ""
    assert licences.read_card_head("--- \nlicense: mit\n---\t\ntext") == "license: mit"
    assert licences.read_card_head("text\n---\nlicense: mit\n---\n") == ""
