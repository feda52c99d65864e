"""The second user of the suite is a real one: it is held by the modes of files as anybody is."""

import os
from pathlib import Path

from tests.lib.other_user import OtherUser


def test_the_other_user_reads_what_is_open_and_not_what_is_private(
    stranger: OtherUser, open_to_all: Path
) -> None:
    """What is 0644 in an open folder is read, what is 0600 is not."""
    shown = open_to_all / "shown"
    private = open_to_all / "private"
    for path, mode in ((shown, 0o644), (private, 0o600)):
        path.write_text("word")
        path.chmod(mode)
    assert stranger.run("cat", shown).stdout == "word"
    assert not stranger.can('cat "$1"', private)
    assert (
        stranger.run("id", "-u").stdout.strip() == str(stranger.uid) != str(os.getuid())
    )
