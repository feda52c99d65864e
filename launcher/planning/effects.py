"""Lists what a submit would run that is not zsg's own, and what it would send to whom,
and which file says so.

A grid and its profiles may have been sent by somebody. What they can have run or sent
is listed here, whole and before anything is done: whoever reads `zsg plan`, or what
`zsg submit` says before it asks, has seen all of it. What the shipped profiles say is
zsg's own and not listed.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.tracking import logins
from launcher.clusters.profile_files import Layers
from launcher.clusters.profiles import Container, Environment, Profile, SlurmSettings
from launcher.grids.grid import Grid
from launcher.grids.runs import Run
from launcher.workspace import yaml_file
from launcher.workspace.shipped import find_shipped
from launcher.workspace.yaml_file import Document
from zsg_core import secrets
from zsg_core.shown_text import make_showable
from zsg_core.suites import Suite

RUNS, SENDS, SETS = "runs", "sends", "sets"
HUB = "https://huggingface.co"
# Variables by which programs find the code that they load, or start other programs.
_OF_CODE = re.compile(
    r"PYTHON\w*|LD_\w+|PATH|BASH_ENV|ENV|SHELLOPTS|BASHOPTS|PS4|IFS|\w*PRELOAD\w*|\w*PLUGIN\w*|\w*_PATH|\w*_HOME|HOME"
    r"|CC|CXX|CUDAHOSTCXX|TORCH\w*|TRITON\w*|PERL\w*|GIT_\w+|SSH_\w+|XDG_\w+"
)

# What options of sbatch do beyond saying where and when a job runs.
_DOES = {
    "mail-user": SENDS,
    "bb": RUNS,
    "bbf": RUNS,
    "burst-buffer": RUNS,
    "get-user-env": RUNS,
}


@dataclass(frozen=True)
class Effect:
    """One thing that a file of the user's has run, sent or set. `does`: RUNS, SENDS or SETS."""

    does: str
    what: str
    where: str

    @property
    def line(self) -> str:
        """For people, on one line."""
        return f"{self.what} ({self.where})"


def list_effects(
    layers: Layers,
    profile: Profile,
    grid: Grid,
    runs: Sequence[Run],
    environment: Mapping[str, str] = os.environ,
) -> list[Effect]:
    """All that a submit would run, send and set by what the grid and its profile's files say."""
    source = _Source(layers)
    found = [
        *_stand_ins(layers),
        *_setup(source, profile),
        *_programs(source, profile),
        *_variables(source, profile),
        *_places(source, profile),
        *_fetched(source, profile, environment),
        *_tracked(source, profile, environment),
        *_of_suites(grid, runs),
    ]
    return [Effect(one.does, _safe(one.what), _safe(one.where)) for one in found]


def _safe(text: str) -> str:
    # Nothing is left out of it, not even what looks like a password: a line could hide
    # a command so.
    return make_showable(text, keep="")


class _Source:
    """Which file says a key."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers

    def of(self, *place: str | int) -> str | None:
        """File and line of a place that a file of the user's says; None where a shipped
        one does, or none."""
        for document in self._layers.documents:
            if place in document.lines:
                return (
                    None
                    if _is_shipped(document)
                    else f"{_shown(document.path)}:{document.line(place)}"
                )
        return None


def _stand_ins(layers: Layers) -> Iterator[Effect]:
    names = {path.stem for path in find_shipped("cluster_profiles").glob("*.yaml")}
    for document in layers.documents:
        name = document.path.stem
        if name in names and not _is_shipped(document):
            what = (
                f"profile {name} is a file of yours, in place of the profile of that name that zsg"
                " ships"
            )
            yield Effect(SETS, what, _shown(document.path))


def _setup(source: _Source, profile: Profile) -> Iterator[Effect]:
    for number, item in enumerate(profile.setup):
        if where := source.of("setup", number):
            for line in item.split("\n"):
                if line.strip():
                    yield Effect(RUNS, f"setup line of every job: {line}", where)


def _programs(source: _Source, profile: Profile) -> Iterator[Effect]:
    container, slurm = profile.container, profile.slurm
    if container.prefix and (where := source.of("container", "prefix")):
        yield Effect(
            RUNS,
            f"container.prefix starts every job's Python: {' '.join(container.prefix)}",
            where,
        )
    if container.python != Container().python and (
        where := source.of("container", "python")
    ):
        yield Effect(
            RUNS, f"container.python is every job's Python: {container.python}", where
        )
    if slurm.srun_args != SlurmSettings().srun_args and (
        where := source.of("slurm", "srun_args")
    ):
        yield Effect(
            RUNS,
            f"slurm.srun_args, by which srun may run programs: {' '.join(slurm.srun_args)}",
            where,
        )
    for name, value in slurm.sbatch.items():
        if where := source.of("slurm", "sbatch", name):
            said = f"--{name}" if value is True else f"--{name}={value}"
            yield Effect(
                _DOES.get(name, SETS),
                f"slurm.sbatch, an option of every job: {said}",
                where,
            )
    if profile.environment.cache != Environment().cache and (
        where := source.of("environment", "cache")
    ):
        what = (
            "environment.cache, from where jobs load code that was compiled before:"
            f" {profile.environment.cache}"
        )
        yield Effect(RUNS, what, where)


def _variables(source: _Source, profile: Profile) -> Iterator[Effect]:
    for name, value in profile.environment.set.items():
        if where := source.of("environment", "set", name):
            shown = secrets.HIDDEN if secrets.is_secret(name) else value
            shown = (
                secrets.hide_in_addresses(shown)
                if name.lower().endswith("_proxy")
                else shown
            )
            is_code = _OF_CODE.fullmatch(name) is not None
            more = ", which decides what code runs" if is_code else ""
            yield Effect(
                RUNS if is_code else SETS,
                f"environment.set, in every job: {name}={shown}{more}",
                where,
            )
    more = [name for name in profile.environment.keep if name not in Environment().keep]
    if more and (where := source.of("environment", "keep")):
        yield Effect(
            SENDS,
            f"environment.keep hands your shell's variables to every job: {', '.join(more)}",
            where,
        )


def _places(source: _Source, profile: Profile) -> Iterator[Effect]:
    if where := source.of("workspace"):
        what = f"workspace: all that is made lies in {profile.workspace}, unless you name another"
        yield Effect(SETS, what, where)
    if profile.share != "nobody" and (where := source.of("share")):
        what = (
            "share: a group reads and writes a workspace that is made: that of the folder it"
            " lies in"
        )
        yield Effect(SETS, what, where)


def _fetched(
    source: _Source, profile: Profile, environment: Mapping[str, str]
) -> Iterator[Effect]:
    if profile.internet and (where := source.of("internet")):
        hub = secrets.hide_in_addresses(environment.get("HF_ENDPOINT") or HUB)
        what = (
            f"internet: data sets that the grid names are fetched from {hub}, with HF_TOKEN where"
            " you have one"
        )
        yield Effect(SENDS, what, where)


def _tracked(
    source: _Source, profile: Profile, environment: Mapping[str, str]
) -> Iterator[Effect]:
    uri = profile.tracking.uri
    where = source.of("tracking", "uri")
    if not uri or not where:
        return
    if not uri.startswith("http"):
        yield Effect(
            SENDS,
            f"tracking.uri: metrics, parameters and settings are written to {uri}",
            where,
        )
        return
    login = logins.list_told(uri, environment)
    more = f", with {' and '.join(login)}" if login else ""
    yield Effect(
        SENDS,
        f"tracking.uri: metrics, parameters and settings are sent to {uri}{more}",
        where,
    )


def _of_suites(grid: Grid, runs: Sequence[Run]) -> Iterator[Effect]:
    where = _shown(grid.path)
    if any("suites" in one for one in grid.overrides):
        where = f"{where} and --set"
    suites = {_reached(suite): suite for run in runs for suite in run.suites}
    for suite in suites.values():
        if suite.judge is not None:
            yield Effect(
                SENDS, f"judge: answers are sent to {_told_of(suite.judge)}", where
            )
        if suite.runs_code:
            yield Effect(
                RUNS,
                "humaneval: programs that the model wrote are run, in a sandbox",
                where,
            )


def _reached(suite: Suite) -> tuple[Any, ...]:
    return suite.name, suite.runs_code, *(suite.judge or {}).values()


def _told_of(judge: Mapping[str, Any]) -> str:
    key = judge["key_env"]
    return (
        f"{judge['base_url']} with the value of {key}"
        if key
        else f"{judge['base_url']}, without a key"
    )


def _is_shipped(document: Document) -> bool:
    return document.path.resolve().parent == find_shipped("cluster_profiles").resolve()


def _shown(path: Path) -> str:
    here, whole = Path.cwd(), path.absolute()
    return yaml_file.format_path(
        whole.relative_to(here) if whole.is_relative_to(here) else path
    )


def as_rows(found: Sequence[Effect]) -> list[dict[str, str]]:
    """For scripts."""
    return [{"does": one.does, "what": one.what, "where": one.where} for one in found]
