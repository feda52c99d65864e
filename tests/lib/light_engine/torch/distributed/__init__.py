"""The collectives of a single rank."""

from torch import Any as ReduceOp


def all_reduce(value, op=None):
    pass


def all_gather_object(found, value):
    found[0] = value


def broadcast_object_list(box, src=0):
    pass


def is_initialized():
    return False


def barrier():
    pass


def __getattr__(name):
    return ReduceOp
