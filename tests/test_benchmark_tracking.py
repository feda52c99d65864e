"""Does the benchmark of tracking measure what it says, in the form of every benchmark?"""

import os
import socket
import sys
from pathlib import Path

import pytest

from benchmarks import tracking


def test_it_measures_what_reaches_a_server(tmp_path: Path, mlflow: str) -> None:
    """With few points: a step's row, a delivery beside bare calls, a back-fill by `zsg
    sync`, writers at once."""
    step = tracking.step_cost(tmp_path, steps=200)
    fast = tracking.throughput(tmp_path, mlflow, points=1000, repeats=1)
    fill = tracking.back_fill(tmp_path, mlflow, runs=2)

    assert step.value > 0 and step.met == (step.value <= 0.1)
    assert (
        fast.peer
        and fast.goal == pytest.approx(0.9 * fast.peer)
        and fast.met == (fast.value >= fast.goal)
    )
    assert (fill.goal, fill.met) == (pytest.approx(11.2), fill.value <= 11.2)
    assert tracking.lost(mlflow, writers=4) == 0


def test_what_a_server_does_not_take_is_counted() -> None:
    """Of batches to a port where nobody listens all are lost."""
    assert tracking.lost("http://127.0.0.1:9", writers=2) == 100


STUBBORN = """
import http.server, signal, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

signal.signal(signal.SIGTERM, signal.SIG_IGN)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_an_interrupt_leaves_no_server_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one that does not end when it is told to."""
    monkeypatch.setattr(tracking, "STOPS_S", 0.5)
    port = tracking._port()
    argv = [sys.executable, "-c", STUBBORN, str(port)]

    with pytest.raises(KeyboardInterrupt):
        with tracking._started(argv, dict(os.environ), port, tmp_path):
            raise KeyboardInterrupt
    with pytest.raises(ConnectionRefusedError), socket.socket() as probe:
        probe.connect(("127.0.0.1", port))


@pytest.mark.soak(part="tracking")
def test_the_whole_of_it(tmp_path: Path) -> None:
    """All four rows, small: `zsg server` loses nothing of what its writers send at once."""
    rows = tracking.measure(tmp_path, runs=3, writers=16, repeats=1)

    assert [row.peer is None for row in rows] == [True, False, True, False]
    assert rows[-1].value == 0 and rows[-1].met
