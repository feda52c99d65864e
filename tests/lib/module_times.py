"""Prints at the end of a run which test modules took the most time, and what share."""

from collections import Counter

import pytest

SHOWN = 20


class ModuleTimes:
    """Adds up what setting up, calling and tearing down the tests of each module took.

    With xdist the reports of all workers arrive here, so the sum is that of all cores.
    """

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.tests: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        module = report.nodeid.partition("::")[0]
        self.seconds[module] += report.duration
        self.tests[module] += report.when == "call"

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        total = sum(self.seconds.values())
        if not total:
            return
        terminalreporter.section(f"{SHOWN} most expensive modules of {total:.0f} s")
        for module, seconds in self.seconds.most_common(SHOWN):
            share = seconds / total
            terminalreporter.write_line(
                f"{seconds:7.1f} s {share:6.1%} {self.tests[module]:5d} tests  {module}"
            )
