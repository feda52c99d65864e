"""Writes the report of a node check as a text of 80 columns that can be sent to others.
Pure."""

import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from jobs.contract.node_check import (
    Finding,
    FindingState,
    NodeCheckReport,
    NodeCheckRequest,
    Section,
)
from jobs.node_check import registry
from jobs.node_check.registry import NodeCheck
from launcher.doctor import node_report
from zsg_core.shown_text import make_showable

WIDTH = 80
STATE_WIDTH = 9  # of the column with a finding's state
INDENT = " " * (STATE_WIDTH + 2)
MOST_NODES = 8  # named one by one
MOST_ALIKE = 3  # findings of one check that are all well, each with its own sentence
GB = 1e9
# the worst first
ORDER = (
    FindingState.PROBLEM,
    FindingState.WARNING,
    FindingState.OK,
    FindingState.SKIPPED,
)


def format_report(
    report: NodeCheckReport, checks: Sequence[NodeCheck] = registry.CHECKS
) -> str:
    """The whole report, with a line end."""
    lines = [
        *_format_head(report),
        "",
        *_format_assumptions(report.request),
        *_format_comparisons(report),
        *_format_sections(report),
        *_format_unconfirmed(report, checks),
    ]
    text = "\n".join(line.rstrip() for line in lines)
    return make_showable(text, keep="\n") + "\n"


def _format_head(report: NodeCheckReport) -> Iterator[str]:
    """Whose check it is, what it ran on and with, and how it came out."""
    size = f"{_count(report.request.nodes, 'node')}, {_count(report.ranks, 'rank')}"
    job = f", job {report.job}" if report.job else ""
    yield from _wrap(f"zsg doctor --on-node: profile {report.profile}, {size}{job}")
    created = time.gmtime(report.created / 1000)
    yield f"check {report.id}, {time.strftime('%Y-%m-%d %H:%M UTC', created)}"
    if report.nodes:
        yield from _wrap(f"nodes: {_name_nodes(report.nodes)}", "  ")
    for name, count in report.gpus.items():
        yield from _wrap(f"GPUs: {count} × {name}", "  ")
    yield from _wrap(f"versions: {_list_versions(report)}", "  ")
    yield from _wrap(f"result: {report.state} ({_count_states(report)})", "  ")


def _list_versions(report: NodeCheckReport) -> str:
    """The versions of rank 0's node, zsg's own first."""
    versions = {"zsg": report.zsg, **report.versions}
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _count_states(report: NodeCheckReport) -> str:
    """How many findings there are of each state, the worst first."""
    counts = Counter(finding.state for finding in report.findings)
    named = [f"{counts[state]} {state}" for state in ORDER if counts[state]]
    return ", ".join(named) or "nothing was found"


def _name_nodes(nodes: Sequence[str]) -> str:
    """The first nodes by their names, and how many more there are."""
    named = ", ".join(nodes[:MOST_NODES])
    others = len(nodes) - MOST_NODES
    return f"{named} and {others} more" if others > 0 else named


def _count(count: int, word: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {word}{'s' * (count != 1)}"


def _format_assumptions(request: NodeCheckRequest) -> Iterator[str]:
    """What plan takes for granted."""
    yield "what zsg plan assumes"
    size = (
        f"{_count(request.nodes, 'node')} with {_count(request.ranks_per_node, 'rank')} each,"
        f" {_count(request.cpus_per_rank, 'CPU')} a rank"
    )
    yield from _bullet(size)
    memory = f"{request.mem_gb} GB" if request.mem_gb else "the site's default"
    yield from _bullet(f"memory of a node: {memory}")
    gpu = request.gpu
    if gpu is not None:
        yield from _bullet(
            f"{_count(request.gpus_per_node, 'GPU')} a node, {gpu.name}: {gpu.memory_gb:g} GB,"
            f" {gpu.peak_tflops:g} TFLOPS in bf16, of which training reaches {gpu.mfu:g}"
            " (gpu.mfu)"
        )
    elif request.has_gpus:
        yield from _bullet(
            f"{_count(request.gpus_per_node, 'GPU')} a node, of which the profile says no more"
            " (gpu): runs are not held against their memory"
        )
    else:
        yield from _bullet("no GPUs: nothing of them is assumed")
    trial = request.trial
    if trial is not None and request.has_gpus:
        yield from _bullet(
            f"a {trial.name} model in {trial.precision} at ZeRO {trial.zero_stage}:"
            f" {trial.need_bytes / GB:.1f} GB on each GPU at most"
        )


def _format_comparisons(report: NodeCheckReport) -> Iterator[str]:
    """Where that is wrong: what was measured and is not as assumed."""
    compared = [
        finding
        for finding in report.findings
        if finding.assumed is not None and finding.measured is not None
    ]
    wrong = [finding for finding in compared if finding.state != FindingState.OK]
    yield ""
    if not compared:
        yield "where that is wrong: nothing could be compared"
        return
    if not wrong:
        yield f"where that is wrong: nowhere, of {_count(len(compared), 'figure')}"
    else:
        yield "where that is wrong"
    for finding in wrong:
        yield from _bullet(_compare(finding))


def _compare(finding: Finding) -> str:
    """What was assumed and what was measured, and of which ranks."""
    unit = f" {finding.unit}" if finding.unit else ""
    where = _describe_where(finding)
    return (
        f"{_name(finding)}: assumed {finding.assumed:.4g}{unit}, measured"
        f" {finding.measured:.4g}{unit}{where}"
    )


def _name(finding: Finding) -> str:
    """The check, and which of its findings this is."""
    return f"{finding.check}, {finding.what}" if finding.what else finding.check


def _describe_where(finding: Finding) -> str:
    """Which ranks a finding is of, where it is not of all."""
    ranks = finding.ranks
    if not ranks and finding.rank is not None:
        ranks = [finding.rank]
    if not ranks:
        return ""
    return f" ({node_report.describe_ranks(ranks, finding.node)})"


def _format_sections(report: NodeCheckReport) -> Iterator[str]:
    """The findings of each part of the report, the worst of a part first."""
    for section in Section:
        findings = [f for f in report.findings if f.section == section]
        if findings:
            yield ""
            yield section.value
            yield from _format_looked_at(findings)
            yield from _format_skipped(findings)


def _format_looked_at(findings: Sequence[Finding]) -> Iterator[str]:
    """What was found in one part of the report, the worst first; of many findings of one
    check that are all well, the first tells of all."""
    looked_at = [f for f in findings if f.state != FindingState.SKIPPED]
    looked_at.sort(key=lambda finding: ORDER.index(finding.state))
    for finding in looked_at:
        alike = _list_alike(finding, findings)
        if len(alike) <= MOST_ALIKE:
            yield from _format_finding(finding)
        elif finding is alike[0]:
            yield from _format_alike(alike)


def _format_skipped(findings: Sequence[Finding]) -> Iterator[str]:
    """What was not looked at, those together that have the same reason."""
    names: dict[str, list[str]] = {}
    for finding in findings:
        if finding.state == FindingState.SKIPPED:
            reason = f"{finding.text}{_describe_where(finding)}"
            names.setdefault(reason, []).append(_name(finding))
    for reason, skipped in names.items():
        together = ", ".join(skipped)
        yield from _entry(FindingState.SKIPPED, f"{together}: {reason}")


def _list_alike(finding: Finding, findings: Sequence[Finding]) -> list[Finding]:
    """What the same check found well on the same ranks, where this is such a finding."""
    return [
        candidate
        for candidate in findings
        if candidate.state == finding.state == FindingState.OK
        and (candidate.check, candidate.ranks) == (finding.check, finding.ranks)
    ]


def _format_alike(alike: Sequence[Finding]) -> Iterator[str]:
    """Many findings of one check that are all well: their names, and the first of
    them as an example."""
    first = alike[0]
    names = ", ".join(finding.what for finding in alike)
    example = f"{first.what}: {first.text}"
    yield from _entry(first.state, f"{first.check}: all of {names}; {example}")


def _format_finding(finding: Finding) -> Iterator[str]:
    """Its state, what it is of, its sentence and what to do."""
    where = "" if _tells_where(finding) else _describe_where(finding)
    yield from _entry(finding.state, f"{_name(finding)}: {finding.text}{where}")
    if finding.advice:
        yield from _wrap(finding.advice, f"{INDENT}→ ", f"{INDENT}  ")


def _entry(state: FindingState, text: str) -> list[str]:
    """A text behind a state, in the column of texts."""
    return _wrap(text, f"  {state:{STATE_WIDTH}}", INDENT)


def _tells_where(finding: Finding) -> bool:
    """Whether its text begins with the ranks that it is of."""
    return finding.check == node_report.RANKS


def _format_unconfirmed(
    report: NodeCheckReport, checks: Sequence[NodeCheck]
) -> Iterator[str]:
    """What no rank could confirm, and why not; what only a GPU can confirm for GPUs."""
    yield ""
    unconfirmed = node_report.list_unconfirmed(report, checks)
    on_cpus = node_report.list_confirmed_on_cpus(report, checks)
    if not unconfirmed and not on_cpus:
        yield "what must still be confirmed: nothing"
        return
    yield "what must still be confirmed"
    for reason, skipped in unconfirmed.items():
        yield from _wrap(f"{reason}:" if reason else "no rank told of it:", "  ")
        for check in skipped:
            yield from _bullet(f"{check.name}: {check.confirms}")
    if on_cpus:
        yield from _wrap("confirmed on CPUs only; GPUs must confirm it anew:", "  ")
        yield from _bullet(", ".join(check.name for check in on_cpus))


def _bullet(text: str) -> list[str]:
    """One entry of a list."""
    return _wrap(text, "  - ", "    ")


def _wrap(text: str, first: str = "", following: str = "    ") -> list[str]:
    """A text on lines of 80 columns; a line end within it is a blank."""
    return textwrap.wrap(
        " ".join(text.split()),
        width=WIDTH,
        initial_indent=first,
        subsequent_indent=following,
        break_on_hyphens=False,
    )
