"""Do people see what was measured: in MLflow's pages, and on the page of zsg report?"""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jobs.contract.folder import Workspace
from tests.lib.browser import browser, complaints, keep_picture
from tests.lib.command_line import Zsg, wait_until

pytestmark = [
    pytest.mark.soak(part="users"),
    pytest.mark.browser,
    pytest.mark.usefixtures("chromium"),
]

GRID = """\
name: seen
profile: local
defaults:
  data: {{path: {tasks}, train_per_task: 6, test_per_task: 5, positive_examples: 0}}
  train: {{batch: 8, steps: 8, lr: 2e-3, max_length: 96, precision: fp32}}
  checkpoints: {{every: 2}}
grid: {{arrangement.order: [random, fft], seed: [0, 1]}}
"""
RUNS = 4
TRACES = "return document.querySelectorAll('.scatterlayer .trace').length"
WIDTHS = "return [document.documentElement.scrollWidth, window.innerWidth]"
SIZES = (
    "return [...document.querySelectorAll('figure svg')].map(one =>"
    " one.getBoundingClientRect().height)"
)
PAPER = "return getComputedStyle(document.body).backgroundColor"
ASK = """
const [url, done] = arguments
fetch(url, {credentials: "include"}).then(answer => answer.text()).then(done, () => done("refused"))
"""
HEADS = (
    "return [...document.querySelectorAll('table')[0].tBodies[0].rows].map(row =>"
    " +row.cells[3].dataset.v)"
)


@contextmanager
def other_page() -> Iterator[str]:
    """A page that somebody else serves at another port of the same host."""
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/none"
        server.shutdown()
        serving.join()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, tasks: Path) -> Zsg:
    """A workspace of four real runs: two orders, two seeds."""
    zsg = Zsg(tmp_path_factory.mktemp("seen"))
    zsg("submit", zsg.write("grid.yaml", GRID.format(tasks=tasks)))
    return zsg


@pytest.fixture(scope="module")
def address(seen: Zsg, unused_port: int) -> Iterator[str]:
    """What `zsg ui` prints once it serves."""
    quiet: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.DEVNULL,
        "start_new_session": True,
    }
    server = seen.start("ui", "seen", "--port", str(unused_port), **quiet)
    try:
        assert server.stdout
        yield server.stdout.readline().split()[1]
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.communicate(timeout=30)


def test_mlflow_compares_the_runs(address: str, tmp_path: Path) -> None:
    """The address that `zsg ui` prints shows all runs of the grid by name, each with a
    curve of its loss."""
    with browser(tmp_path, 1400) as driver:
        driver.get(address)
        wait_until(lambda: driver.execute_script(TRACES) >= RUNS)
        shown = driver.execute_script("return document.body.innerText")
        keep_picture(driver, "compare.png")

    assert f"Comparing {RUNS} Runs" in shown
    names = {
        f"order={order} seed={seed}" for order in ("random", "fft") for seed in (0, 1)
    }
    assert names <= set(re.findall(r"order=\w+ seed=\d", shown))


def test_a_browser_keeps_the_secret(address: str, tmp_path: Path) -> None:
    """The token leaves the address, and the cookie opens the pages from then on; a page
    of another port gets nothing.

    Without it nothing is shown. The page complains of nothing that it was refused.
    """
    bare = address.partition("?")[0]
    with browser(tmp_path, 1400) as driver:
        driver.get(bare)
        assert "this MLflow lets in its owner only" in driver.execute_script(
            "return document.body.innerText"
        )
        driver.get(address)
        wait_until(lambda: driver.execute_script(TRACES) >= RUNS)
        shown, [cookie] = driver.current_url, driver.get_cookies()
        seen_by_scripts = driver.execute_script("return document.cookie")
        refused = [
            one["message"]
            for one in complaints(driver)
            if " 401 " in one["message"] or " 403 " in one["message"]
        ]
        driver.get(f"{bare}#/experiments")
        wait_until(
            lambda: "seen" in driver.execute_script("return document.body.innerText")
        )
        keep_picture(driver, "experiments.png")
        with other_page() as other:
            driver.get(other)
            asked = driver.execute_async_script(
                ASK, f"{bare}ajax-api/2.0/mlflow/experiments/search?max_results=9"
            )

    assert "token" not in shown and shown.startswith(f"{bare}#/metric?")
    assert (cookie["httpOnly"], cookie["sameSite"], seen_by_scripts) == (
        True,
        "Strict",
        "",
    )
    # The first is of the page that was refused; then the pages ask for parts of MLflow
    # that are closed.
    assert [
        line
        for line in refused[1:]
        if not re.search(r"favicon|/assistant/|/gateway/|/webhooks", line)
    ] == []
    assert asked == "refused"


def test_mlflow_lists_the_runs_of_a_large_grid(
    address: str, seen: Zsg, tmp_path: Path, monkeypatch: Any
) -> None:
    """Where an address cannot name all runs, the page lists them flat, with charts, and
    without the grid's own run."""
    from jobs.tracking import mlflow_sync, tracker

    monkeypatch.setattr(tracker, "MOST_CURVES", RUNS - 1)
    large = mlflow_sync.find_grid_page(Workspace(seen.work), "seen")
    with browser(tmp_path, 1400) as driver:
        driver.get(address.partition("#")[0] + large)
        wait_until(
            lambda: (
                f"{RUNS} matching runs"
                in driver.execute_script("return document.body.innerText")
            )
        )
        wait_until(lambda: driver.execute_script(TRACES) >= RUNS)
        shown = driver.execute_script("return document.body.innerText")
        keep_picture(driver, "list.png")

    assert len(set(re.findall(r"order=\w+ seed=\d", shown))) == RUNS


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (400, False)])
def test_the_report_is_readable(
    seen: Zsg, tmp_path: Path, width: int, dark: bool
) -> None:
    """Light, dark and narrow: no complaint of the browser, every figure drawn, nothing
    to scroll sideways; it sorts."""
    said = seen("report", "seen")
    page = said.split()[1]
    with browser(tmp_path, width, dark) as driver:
        driver.get(f"file://{page}")
        keep_picture(driver, f"report-{width}-{'dark' if dark else 'light'}.png")
        sizes, (needed, there) = (
            driver.execute_script(SIZES),
            driver.execute_script(WIDTHS),
        )
        paper = sum(map(int, re.findall(r"\d+", driver.execute_script(PAPER))[:3]))
        before = driver.execute_script(HEADS)
        driver.find_elements("css selector", "table")[0].find_elements(
            "css selector", "th button"
        )[3].click()
        after = driver.execute_script(HEADS)
        assert complaints(driver) == []

    assert len(sizes) >= 2 and min(sizes) > 150
    assert needed <= there
    assert (paper < 200) == dark
    assert after == sorted(before)
