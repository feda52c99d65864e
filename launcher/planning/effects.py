"""Lists what a submit would run that is not zsg's own, and what it would send to whom,
and which file says so.

A grid and its profiles may have been sent by somebody. What they can have run or sent
is listed here, whole and before anything is done: whoever reads `zsg plan`, or what
`zsg submit` says before it asks, has seen all of it. What the shipped profiles say is
zsg's own and not listed.
"""

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.tracking import logins
from launcher.clusters.profile_files import Layers
from launcher.clusters.profiles import Container, Environment, Profile, SlurmSettings
from launcher.grids import plugin_files
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
    effects = [
        *_list_profiles_in_place_of_shipped(layers),
        *_list_setup_lines(source, profile),
        *_list_programs(source, profile),
        *_list_sbatch_options(source, profile),
        *_list_code_cache(source, profile),
        *_list_set_variables(source, profile),
        *_list_passed_variables(source, profile),
        *_list_workspace_settings(source, profile),
        *_list_downloads(source, profile, environment),
        *_list_tracking(source, profile, environment),
        *_list_receivers(source, profile),
        *_list_plugins(grid),
        *_list_suites(grid, runs),
        *_list_servers(grid, runs),
    ]
    return [_make_effect_showable(effect) for effect in effects]


def _make_effect_showable(effect: Effect) -> Effect:
    # Nothing is left out of it, not even what looks like a password: a line could hide
    # a command so.
    return Effect(
        effect.does,
        make_showable(effect.what, keep=""),
        make_showable(effect.where, keep=""),
    )


class _Source:
    """Which file says a key."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers

    def of(self, *key_path: str | int) -> str | None:
        """File and line of a key that a file of the user's says; None where a shipped
        one does, or none."""
        for document in self._layers.documents:
            if key_path in document.lines:
                if _is_shipped(document):
                    return None
                return f"{_format_path(document.path)}:{document.line(key_path)}"
        return None


def _list_profiles_in_place_of_shipped(layers: Layers) -> Iterator[Effect]:
    names = {path.stem for path in find_shipped("cluster_profiles").glob("*.yaml")}
    for document in layers.documents:
        name = document.path.stem
        if name in names and not _is_shipped(document):
            text = (
                f"profile {name} is a file of yours, in place of the profile of that name that zsg"
                " ships"
            )
            yield Effect(SETS, text, _format_path(document.path))


def _list_setup_lines(source: _Source, profile: Profile) -> Iterator[Effect]:
    for number, item in enumerate(profile.setup):
        if origin := source.of("setup", number):
            for line in item.split("\n"):
                if line.strip():
                    yield Effect(RUNS, f"setup line of every job: {line}", origin)


def _list_programs(source: _Source, profile: Profile) -> Iterator[Effect]:
    """The programs that start every job."""
    container, srun_args = profile.container, profile.slurm.srun_args
    if container.prefix and (origin := source.of("container", "prefix")):
        prefix = " ".join(container.prefix)
        text = f"container.prefix starts every job's Python: {prefix}"
        yield Effect(RUNS, text, origin)
    is_other_python = container.python != Container().python
    if is_other_python and (origin := source.of("container", "python")):
        text = f"container.python is every job's Python: {container.python}"
        yield Effect(RUNS, text, origin)
    has_other_args = srun_args != SlurmSettings().srun_args
    if has_other_args and (origin := source.of("slurm", "srun_args")):
        args = " ".join(srun_args)
        text = f"slurm.srun_args, by which srun may run programs: {args}"
        yield Effect(RUNS, text, origin)


def _list_sbatch_options(source: _Source, profile: Profile) -> Iterator[Effect]:
    for name, value in profile.slurm.sbatch.items():
        if origin := source.of("slurm", "sbatch", name):
            option = f"--{name}" if value is True else f"--{name}={value}"
            text = f"slurm.sbatch, an option of every job: {option}"
            yield Effect(_DOES.get(name, SETS), text, origin)


def _list_code_cache(source: _Source, profile: Profile) -> Iterator[Effect]:
    cache = profile.environment.cache
    if cache != Environment().cache and (origin := source.of("environment", "cache")):
        text = f"environment.cache, from where jobs load code that was compiled before: {cache}"
        yield Effect(RUNS, text, origin)


def _list_set_variables(source: _Source, profile: Profile) -> Iterator[Effect]:
    for name, value in profile.environment.set.items():
        if origin := source.of("environment", "set", name):
            is_code = _OF_CODE.fullmatch(name) is not None
            note = ", which decides what code runs" if is_code else ""
            safe_value = _hide_secrets(name, value)
            text = f"environment.set, in every job: {name}={safe_value}{note}"
            yield Effect(RUNS if is_code else SETS, text, origin)


def _hide_secrets(name: str, value: str) -> str:
    """The value of a variable, without the password that it is or holds."""
    if secrets.is_secret(name):
        value = secrets.HIDDEN
    if name.lower().endswith("_proxy"):
        value = secrets.hide_in_addresses(value)
    return value


def _list_passed_variables(source: _Source, profile: Profile) -> Iterator[Effect]:
    shipped = Environment().keep
    names = [name for name in profile.environment.keep if name not in shipped]
    if names and (origin := source.of("environment", "keep")):
        text = f"environment.keep hands your shell's variables to every job: {', '.join(names)}"
        yield Effect(SENDS, text, origin)


def _list_workspace_settings(source: _Source, profile: Profile) -> Iterator[Effect]:
    if origin := source.of("workspace"):
        text = f"workspace: all that is made lies in {profile.workspace}, unless you name another"
        yield Effect(SETS, text, origin)
    if profile.share != "nobody" and (origin := source.of("share")):
        text = (
            "share: a group reads and writes a workspace that is made: that of the folder it"
            " lies in"
        )
        yield Effect(SETS, text, origin)


def _list_downloads(
    source: _Source, profile: Profile, environment: Mapping[str, str]
) -> Iterator[Effect]:
    if profile.internet and (origin := source.of("internet")):
        hub = secrets.hide_in_addresses(environment.get("HF_ENDPOINT") or HUB)
        text = (
            f"internet: data sets that the grid names are fetched from {hub}, with HF_TOKEN where"
            " you have one"
        )
        yield Effect(SENDS, text, origin)


def _list_tracking(
    source: _Source, profile: Profile, environment: Mapping[str, str]
) -> Iterator[Effect]:
    uri = profile.tracking.uri
    origin = source.of("tracking", "uri")
    if not uri or not origin:
        return
    if not uri.startswith("http"):
        text = f"tracking.uri: metrics, parameters and settings are written to {uri}"
        yield Effect(SENDS, text, origin)
        return
    login = logins.list_told(uri, environment)
    credentials = f", with {' and '.join(login)}" if login else ""
    text = (
        f"tracking.uri: metrics, parameters and settings are sent to {uri}{credentials}"
    )
    yield Effect(SENDS, text, origin)


def _list_receivers(source: _Source, profile: Profile) -> Iterator[Effect]:
    """Who is told of what becomes of runs, and the programs that are run for it."""
    for number, settings in enumerate(profile.notify):
        origin = source.of("notify", number)
        if not origin:
            continue
        events = ", ".join(settings.on)
        if settings.command is not None:
            text = (
                f"notify: a program is told ({events}): {shlex.join(settings.command)}"
            )
            yield Effect(RUNS, text, origin)
        else:
            name = settings.webhook or settings.slack
            text = (
                f"notify: names and errors ({events}) are sent to the address in {name}"
            )
            yield Effect(SENDS, text, origin)


def _list_plugins(grid: Grid) -> Iterator[Effect]:
    """The user's own code that jobs run."""
    for plugin in grid.plugins:
        about = plugin_files.describe_plugin(plugin)
        text = (
            f"plugin {plugin.name}, run by jobs with your rights, declares {about}"
            f" (sha256 {plugin.digest[:16]})"
        )
        yield Effect(RUNS, text, _format_path(grid.path.parent / plugin.name))


def _list_suites(grid: Grid, runs: Sequence[Run]) -> Iterator[Effect]:
    origin = _format_path(grid.path)
    if any("suites" in override for override in grid.overrides):
        origin = f"{origin} and --set"
    suites = {_effects_key(suite): suite for run in runs for suite in run.suites}
    for suite in suites.values():
        if suite.judge is not None:
            text = f"judge: answers are sent to {_describe_judge(suite.judge)}"
            yield Effect(SENDS, text, origin)
        if suite.runs_code:
            text = "humaneval: programs that the model wrote are run, in a sandbox"
            yield Effect(RUNS, text, origin)


def _list_servers(grid: Grid, runs: Sequence[Run]) -> Iterator[Effect]:
    """Who is sent texts of the data, so that more are made."""
    origin = _format_path(grid.path)
    if any("make" in override for override in grid.overrides):
        origin = f"{origin} and --set"
    texts: dict[str, None] = {}
    for run in runs:
        for name, server in run.servers.items():
            address = f"{server.base_url}, without a key"
            if server.key_env:
                address = f"{server.base_url} with the value of {server.key_env}"
            texts[f"make: texts of source {name} are sent to {address}"] = None
    for text in texts:
        yield Effect(SENDS, text, origin)


def _effects_key(suite: Suite) -> tuple[Any, ...]:
    """What two suites share that send and run the same."""
    return suite.name, suite.runs_code, *(suite.judge or {}).values()


def _describe_judge(judge: Mapping[str, Any]) -> str:
    key = judge["key_env"]
    if key:
        return f"{judge['base_url']} with the value of {key}"
    return f"{judge['base_url']}, without a key"


def _is_shipped(document: Document) -> bool:
    return document.path.resolve().parent == find_shipped("cluster_profiles").resolve()


def _format_path(path: Path) -> str:
    """A path for people: relative where it lies below the current folder."""
    current, absolute = Path.cwd(), path.absolute()
    if absolute.is_relative_to(current):
        path = absolute.relative_to(current)
    return yaml_file.format_path(path)


def as_rows(effects: Sequence[Effect]) -> list[dict[str, str]]:
    """For scripts."""
    return [asdict(effect) for effect in effects]
