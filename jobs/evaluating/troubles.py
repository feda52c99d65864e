"""Keeps why something could not be evaluated until the job's end, as an error of the kind
that it was: a mistake of the user's comes again however often it is tried, a server that
was away may be back."""

from collections.abc import Iterable, Mapping

from zsg_core.errors import BadData, ClusterError, PluginError, UserError, ZsgError
from zsg_core.secrets import hide_known

# of the user's errors those that a job tells apart, each before what it is a kind of
_USERS = (PluginError, BadData, UserError)


def keep_error(error: BaseException, *, is_named: bool = True) -> ZsgError:
    """An error of the same kind and text, without the frames that it passed: these would
    keep the model's tensors. What is none of zsg's own counts as ClusterError.

    `is_named`: whether the text begins with the name of the error's class.
    """
    text = hide_known(f"{type(error).__name__}: {error}" if is_named else str(error))
    return _find_kind(error)(text)


def join_errors(errors: Mapping[str, ZsgError]) -> ZsgError:
    """One error of several, each by the key that it kept from being taken."""
    text = "; ".join(f"{key}: {error}" for key, error in errors.items())
    return find_worst(errors.values())(text)


def find_worst(errors: Iterable[ZsgError]) -> type[ZsgError]:
    """The kind of error by which a job ends that met these, one at least: ClusterError
    where it may help to try again, else that of the first."""
    kinds = [_find_kind(error) for error in errors]
    return ClusterError if ClusterError in kinds else kinds[0]


def _find_kind(error: BaseException) -> type[ZsgError]:
    for kind in _USERS:
        if isinstance(error, kind):
            return kind
    return ClusterError
