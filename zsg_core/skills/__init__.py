"""Small instruction tasks that zsg makes itself, in families of skills near to and far
from the held-out ones.

Near families have held-out tasks, which differ from their training tasks in surface
only; far families have none and share no answer with them. So near and far mean
something, by construction, and an order by similarity has something to find: `python -m
zsg_core.skills --help`.
"""

from zsg_core.skills.data_set import (
    FAMILIES,
    MOST_PER_TASK,
    make_task_files,
    write_tasks,
)

__all__ = ["FAMILIES", "MOST_PER_TASK", "make_task_files", "write_tasks"]
