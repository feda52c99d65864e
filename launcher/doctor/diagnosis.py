"""The answer of one check of `zsg doctor`."""

from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Diagnosis:
    """One thing checked. `advice` says what to do; it is empty where all is well.

    The fields are the keys of `zsg doctor --json`.
    """

    what: str
    verdict: str
    found: str
    advice: str = ""

    @property
    def line(self) -> str:
        """The check in one line."""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.verdict:8} {self.what}: {self.found}{advice}"


def make_diagnosis(what: str, verdict: str, found: str, advice: str) -> Diagnosis:
    """As bad as `verdict` says if there is advice, and fine if there is none."""
    return Diagnosis(what, verdict if advice else OK, found, advice)
