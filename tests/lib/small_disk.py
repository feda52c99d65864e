"""A file system of its own for a test: small enough to be filled, and it can be frozen
as one whose server does not answer."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

SIZE_MB = 300


class SmallDisk:
    """A mounted file system. `can_freeze`: not that in memory, which serves where this
    machine lends no loop device."""

    def __init__(self, folder: Path, can_freeze: bool) -> None:
        self.folder, self.can_freeze = folder, can_freeze

    def freeze(self) -> None:
        """From now on every write waits, and cannot be killed meanwhile, as on a hard
        NFS mount; what is there can be read."""
        _call("fsfreeze", "--freeze", self.folder)

    def thaw(self) -> None:
        """Lets all that waits go on."""
        _call("fsfreeze", "--unfreeze", self.folder)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """A disk at a new folder, while it is needed."""
    folder.mkdir()
    with tempfile.TemporaryDirectory() as beside:
        memory = Path(beside)
        # the image lies in memory: fsync of a disk within a disk is slow
        _mount_in_memory(memory, SIZE_MB + 50)
        try:
            can_freeze = _mount_image(memory / "image", folder)
            if not can_freeze:
                _mount_in_memory(folder, SIZE_MB)
            disk = SmallDisk(folder, can_freeze)
            try:
                yield disk
            finally:
                with contextlib.suppress(subprocess.CalledProcessError):
                    disk.thaw()  # a test that failed may have left it frozen
                _call("umount", "--lazy", folder)
        finally:
            _call("umount", "--lazy", memory)


def _mount_in_memory(folder: Path, size_mb: int) -> None:
    _call("mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", folder)


def _mount_image(image: Path, folder: Path) -> bool:
    """Whether this machine has loop devices, and the image is mounted now."""
    with image.open("wb") as file:
        file.truncate(SIZE_MB << 20)
    try:
        _call("mkfs.ext4", "-q", "-m", "0", image)
        _call("mount", "-o", "loop", image, folder)
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False
    return True


def _call(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True)
