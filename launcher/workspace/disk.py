"""Tells a disk's trouble, full, read-only, forbidden, unreachable, from a bug of ours."""

import errno

from zsg_core.errors import ClusterError

TROUBLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,  # forbidden
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,  # full
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOLCK,  # unreachable
    errno.EMFILE,
    errno.ENFILE,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
}


def explain_disk_error(error: OSError) -> ClusterError:
    """The error for people. Raises the same error again if it is none of a disk's."""
    if error.errno not in TROUBLE:
        raise error
    where = f"{error.filename}: " if error.filename else ""
    return ClusterError(
        f"{where}{error.strerror}; once that is mended, run the same command again"
    )
