"""The searches for nearest neighbours that orders are made with."""

from jobs.preparing import engines
from zsg_core.orders.nearest import Blas

ENGINES = {
    "numpy": Blas,
    "torch": lambda: engines.Torch("cpu"),
    "faiss": lambda: engines.Faiss(on_gpu=False),
}
