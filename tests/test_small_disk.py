"""Does a disk that a storm freezes hold every writer up, and lose nothing?"""

import os
import threading
from pathlib import Path

import pytest

from tests.lib.requirements import need
from tests.lib.small_disk import small_disk


def test_a_frozen_disk_can_be_read_and_holds_writers_until_it_thaws(
    tmp_path: Path,
) -> None:
    """What was written before is read meanwhile; what is written meanwhile arrives."""
    if os.getuid() != 0:
        need("disk", ["root's rights to mount one"])
    with small_disk(tmp_path / "disk") as disk:
        if not disk.can_freeze:
            pytest.skip("this machine lends no loop device")
        path = disk.folder / "file"
        path.write_text("before")
        disk.freeze()
        writer = threading.Thread(target=path.write_text, args=("after",), daemon=True)
        writer.start()
        writer.join(0.5)
        assert writer.is_alive()
        assert path.read_text() == "before"

        disk.thaw()
        writer.join(30)
        assert path.read_text() == "after"
    assert not list((tmp_path / "disk").iterdir())
