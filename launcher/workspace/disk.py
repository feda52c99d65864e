"""Tells a disk's trouble, full, read-only, forbidden, unreachable, from a bug of ours."""

import errno

from jobs.files import file_errors
from zsg_core.errors import ClusterError

TROUBLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,  # forbidden
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,  # full
    errno.EMFILE,
    errno.ENFILE,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
}


def explain_disk_error(error: OSError) -> ClusterError:
    """The error for people. Raises the same error again if it is none of a disk's."""
    text = file_errors.describe_error(error)
    if file_errors.is_of_file_system(error):
        return ClusterError(
            f"{text}: the file system, or the server that has it, has failed; df shows which it"
            " is. Once that is mended, run the same command again"
        )
    if file_errors.may_be_of_server(error):
        return ClusterError(
            f"{text}: the server of a file system, or another, does not answer; once that is"
            " mended, run the same command again"
        )
    if error.errno not in TROUBLE:
        raise error
    return ClusterError(f"{text}; once that is mended, run the same command again")
