"""On which kind of file system a path lies, and which of them machines share."""

from pathlib import Path

SHARED = (
    "nfs",
    "nfs4",
    "lustre",
    "beegfs",
    "gpfs",
    "ceph",
    "cifs",
    "smb3",
    "fuse",
    "glusterfs",
    "wekafs",
)


def file_system(mountinfo: str, path: Path) -> str:
    """The type of the file system that holds a path, from /proc/self/mountinfo (man
    proc_pid_mountinfo)."""
    best, kind = "", "an unknown file system"
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        # a blank is written \040
        point = before.split(" ")[4].encode().decode("unicode_escape")
        # of two on one point, the later lies on top
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, after.split(" ")[0]
    return kind
