"""Puts together what the ranks of a node check have found, and what became of its job.
Pure but for `read_check`."""

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from jobs.contract import attempt as attempts
from jobs.contract import node_check
from jobs.contract.causes import Cause
from jobs.contract.folder import Damaged
from jobs.contract.node_check import (
    MFU,
    Finding,
    FindingState,
    NodeCheckReport,
    NodeCheckRequest,
    RankRecord,
    Section,
)
from jobs.contract.states import State
from jobs.node_check import registry
from jobs.node_check.registry import NodeCheck
from launcher.clusters.slurm import parse_hosts
from launcher.doctor import setup_evidence
from launcher.status.next_steps import NEXT, NEXT_OF_CHECK
from launcher.workspace.job_state import JobState
from zsg_core.secrets import HIDDEN, hide_known, is_secret

# what the launcher itself looks at; the rest are the registry's
JOB, RANKS, SETUP = "job", "ranks", "setup"
LOGS = "zsg logs checks/{id} --rank {rank}"
ADVICE = {cause.value: text for cause, text in (NEXT | NEXT_OF_CHECK).items()}
_ASSIGNED = re.compile(r"\b([A-Za-z_]\w*)=(?:\"[^\"]*\"|'[^']*'|[^\s;&|]+)")
# the parts in which it is all the same what a rank computes on
ON_ANY_DEVICE = (Section.SETUP, Section.WORKSPACE)
MOST_RANKS = 8  # named one by one


@dataclass(frozen=True)
class CheckedJob:
    """A check that has ended: who it was, and what was left of it.

    `nodes`: as Slurm names those of its job, as far as that is known; `troubles`: why
    records of ranks cannot be read; `private`: paths that a report is not to show, each
    with the words in its place.
    """

    id: str
    zsg: str
    profile: str
    kind: str
    job: str | None
    created: int
    request: NodeCheckRequest
    state: JobState
    records: Sequence[RankRecord]
    troubles: Sequence[str] = ()
    nodes: Sequence[str] = ()
    private: Mapping[str, str] | None = None


def read_records(folder: Path, world: int) -> tuple[list[RankRecord], list[str]]:
    """What the `world` ranks of the newest start of the job have written, and why some
    of it cannot be read."""
    records, troubles = node_check.read_rank_records(folder)
    try:
        newest = attempts.read_attempt(folder)
    except Damaged as error:
        return records, [*troubles, str(error)]
    if newest is None:
        return [], troubles
    of_newest = [
        record
        for record in records
        if record.attempt == newest.attempt and record.rank < world
    ]
    return of_newest, troubles


def make_report(
    job: CheckedJob, checks: Sequence[NodeCheck] = registry.CHECKS
) -> NodeCheckReport:
    """All that was found, in the order of the report's sections."""
    findings = [
        *_judge_job(job),
        *_judge_ranks(job),
        *_join_findings(job.records, checks),
    ]
    findings += list(_name_unreached(checks, findings, job))
    order = list(Section)
    findings.sort(key=lambda finding: order.index(finding.section or Section.SETUP))
    findings = [_hide_private(finding, job.private or {}) for finding in findings]
    first = job.records[0] if job.records else None
    return NodeCheckReport(
        id=job.id,
        state=node_check.find_worst([finding.state for finding in findings]),
        zsg=job.zsg,
        profile=job.profile,
        kind=job.kind,
        job=job.job,
        created=job.created,
        nodes=_list_nodes(job),
        ranks=job.request.world,
        seen=len(job.records),
        gpus=_count_gpus(job.records),
        versions=first.versions if first else {},
        mfu=_find_mfu(findings),
        request=job.request,
        findings=findings,
    )


def _judge_job(job: CheckedJob) -> Iterator[Finding]:
    """How the job itself ended, where that was not well."""
    state = job.state
    if state.state == State.DONE:
        return
    is_setup = state.cause == Cause.SETUP
    evidence = _show_evidence(state)
    words = [str(text) for text in (state.cause, evidence) if text]
    if is_setup:
        words = words[1:]
    node = f" on {state.node}" if state.node else ""
    text = ": ".join([f"the job {_describe_end(state.state)}{node}", *words])
    advice = ADVICE.get(state.cause or "", "zsg logs RUN shows what it printed")
    yield Finding(
        state=FindingState.PROBLEM,
        text=text,
        advice=advice.replace("RUN", f"checks/{job.id}"),
        check=SETUP if is_setup else JOB,
        what="lines" if is_setup else "end",
        section=Section.SETUP,
        node=state.node or "",
    )


def _show_evidence(state: JobState) -> str:
    """What proves how a job ended, without what a setup line may hold of keys."""
    return setup_evidence.hide_arguments(state.evidence or "")


def _describe_end(state: State) -> str:
    """How a job ended that did not end well, as the verb of a sentence."""
    if state == State.CANCELLED:
        return "was cancelled"
    if state == State.UNKNOWN:
        return "has ended, and nobody knows how"
    return "failed"


def _judge_ranks(job: CheckedJob) -> Iterator[Finding]:
    """The ranks that never told anything, and those that did not come to their end."""
    seen = {record.rank for record in job.records}
    missing = [rank for rank in range(job.request.world) if rank not in seen]
    # of a job that never began its end tells all there is
    if job.records or job.state.state == State.DONE:
        yield from _judge_missing(job, missing)
    for name, records in _group_cut_short(job.records):
        ranks = [record.rank for record in records]
        where = describe_ranks(ranks, _name_node(records))
        yield Finding(
            state=FindingState.PROBLEM,
            text=f"{where} did not come past the check {name}",
            advice=LOGS.format(id=job.id, rank=ranks[0]) + " shows what it printed",
            check=RANKS,
            what=f"in-{name}",
            section=Section.COMMUNICATION,
            node=_name_node(records),
            ranks=ranks,
        )
    for trouble in job.troubles:
        yield Finding(
            state=FindingState.WARNING,
            text=f"what a rank has written cannot be read: {trouble}",
            check=RANKS,
            what="unreadable",
            section=Section.COMMUNICATION,
        )


def _judge_missing(job: CheckedJob, missing: Sequence[int]) -> Iterator[Finding]:
    """The ranks that told nothing, those of a node together: the node may lack the
    workspace, or be gone."""
    by_node: dict[str, list[int]] = {}
    for rank in missing:
        by_node.setdefault(_guess_node(job, rank), []).append(rank)
    for node, ranks in by_node.items():
        yield Finding(
            state=FindingState.PROBLEM,
            text=f"{describe_ranks(ranks, node)} never wrote a word",
            advice=(
                "is the workspace there, and writable, on that node?"
                f" {LOGS.format(id=job.id, rank=ranks[0])} shows what it printed"
            ),
            check=RANKS,
            what="missing",
            section=Section.COMMUNICATION,
            node=node,
            ranks=ranks,
        )


def _guess_node(job: CheckedJob, rank: int) -> str:
    """The node of a rank that told nothing: srun numbers ranks node by node, unless the
    others tell otherwise."""
    per_node = job.request.ranks_per_node
    nodes = _list_nodes(job)
    if len(nodes) != job.request.nodes:
        return f"node {rank // per_node + 1} of {job.request.nodes}"
    for record in job.records:
        if record.node != nodes[record.rank // per_node]:
            return ""
    return nodes[rank // per_node]


def _group_cut_short(
    records: Iterable[RankRecord],
) -> list[tuple[str, list[RankRecord]]]:
    """The ranks that have not ended, by the check that they were at."""
    groups: dict[str, list[RankRecord]] = {}
    for record in records:
        if not record.ended:
            groups.setdefault(record.at_work or "before the first", []).append(record)
    return list(groups.items())


def _name_node(records: Iterable[RankRecord | Finding]) -> str:
    """The node of all these; empty where they are on several."""
    nodes = {record.node for record in records}
    return nodes.pop() if len(nodes) == 1 else ""


def describe_ranks(ranks: Sequence[int], node: str) -> str:
    """`rank 3 on n2`, `ranks 0 to 7`, `ranks 1, 4 and 12 more`."""
    on_node = f" on {node}" if node else ""
    if len(ranks) == 1:
        return f"rank {ranks[0]}{on_node}"
    first, last = ranks[0], ranks[-1]
    has_gaps = last - first >= len(ranks)
    if len(ranks) > 2 and not has_gaps:
        return f"ranks {first} to {last}{on_node}"
    named = ", ".join(map(str, ranks[:MOST_RANKS]))
    others = len(ranks) - MOST_RANKS
    if others > 0:
        named += f" and {others} more"
    return f"ranks {named}{on_node}"


def _join_findings(
    records: Sequence[RankRecord], checks: Sequence[NodeCheck]
) -> Iterator[Finding]:
    """The findings of all ranks, those that say the same as one, in the registry's
    order.

    A check of all ranks together may be told by rank 0 alone.
    """
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for record in records:
        for finding in record.findings:
            key = (finding.check, finding.what, finding.state, _name_kind(finding))
            groups.setdefault(key, []).append(finding)
    speakers = _list_speakers(records)
    names = [check.name for check in checks]
    sections = {check.name: check.section for check in checks}
    for group in sorted(groups.values(), key=lambda group: _find_place(group, names)):
        section = sections.get(group[0].check, Section.SETUP)
        # where rank 0 alone tells of a check, it speaks for all
        is_of_all = speakers[group[0].check] == {0}
        yield _merge(group, len(group) if is_of_all else len(records), section)


def _list_speakers(records: Sequence[RankRecord]) -> dict[str, set[int]]:
    """By the name of a check, the ranks that tell of it."""
    speakers: dict[str, set[int]] = {}
    for record in records:
        for finding in record.findings:
            speakers.setdefault(finding.check, set()).add(record.rank)
    return speakers


def _name_kind(finding: Finding) -> str:
    """What findings must have in common to be told as one: those that measure need not
    measure the same."""
    is_measured = finding.measured is not None or finding.state == FindingState.OK
    return "" if is_measured else finding.text


def _find_place(group: Sequence[Finding], names: Sequence[str]) -> int:
    """Where a group stands in the order of checks; what this zsg does not know comes
    last."""
    name = group[0].check
    return names.index(name) if name in names else len(names)


def _merge(group: Sequence[Finding], seen: int, section: Section) -> Finding:
    """One finding for those of several ranks, of `seen` that tell of its check: its text
    is of the rank in the middle of what was measured."""
    typical = _choose_typical(group)
    ranks = [finding.rank for finding in group if finding.rank is not None]
    merged = msgspec.structs.replace(typical, section=section)
    merged = _tell_range(merged, group)
    if len(ranks) >= seen:  # of all: none of them need be named
        return msgspec.structs.replace(merged, node="", rank=None, ranks=[])
    return msgspec.structs.replace(
        merged,
        node=_name_node(group),
        rank=ranks[0] if len(ranks) == 1 else None,
        ranks=ranks,
    )


def _tell_range(finding: Finding, group: Sequence[Finding]) -> Finding:
    """The finding with the least and the most that its group has measured, where they
    differ."""
    measured = [f.measured for f in group if f.measured is not None]
    lowest = min(measured, default=0.0)
    highest = max(measured, default=0.0)
    if lowest == highest:
        return finding
    unit = f" {finding.unit}" if finding.unit else ""
    span = f"{len(group)} ranks: {lowest:.4g} to {highest:.4g}{unit}"
    return msgspec.structs.replace(
        finding,
        text=f"{finding.text} ({span})",
        figures={**finding.figures, "lowest": lowest, "highest": highest},
    )


def _choose_typical(group: Sequence[Finding]) -> Finding:
    """The finding with the median of what was measured; the first where nothing was."""
    measured = [f.measured for f in group if f.measured is not None]
    if len(measured) < len(group):
        return group[0]
    middle = statistics.median_low(measured)
    return next(finding for finding in group if finding.measured == middle)


def _name_unreached(
    checks: Sequence[NodeCheck], findings: Sequence[Finding], job: CheckedJob
) -> Iterator[Finding]:
    """The checks that no rank came to."""
    reached = {finding.check for finding in findings}
    at_work = {record.at_work for record in job.records}
    for check in checks:
        if check.name in reached | at_work:
            continue
        yield Finding(
            state=FindingState.SKIPPED,
            text="not reached: the job had ended before",
            check=check.name,
            section=check.section,
        )


def _list_nodes(job: CheckedJob) -> list[str]:
    """The nodes of the job, in the order of the ranks."""
    if job.nodes:
        return list(job.nodes)
    if job.state.node:
        return parse_hosts(job.state.node) or [job.state.node]
    return list(dict.fromkeys(record.node for record in job.records))


def _count_gpus(records: Iterable[RankRecord]) -> dict[str, int]:
    """How many ranks have a GPU of each name, as its driver gives it."""
    counts: dict[str, int] = {}
    for record in records:
        if record.gpu:
            counts[record.gpu] = counts.get(record.gpu, 0) + 1
    return counts


def _find_mfu(findings: Iterable[Finding]) -> float | None:
    """What was measured as the share of the GPU's peak, if it was."""
    measured = [f.measured for f in findings if f.what == MFU and f.measured]
    return measured[0] if measured else None


def _hide_private(finding: Finding, private: Mapping[str, str]) -> Finding:
    """The finding without the user's own folders and secrets."""
    return msgspec.structs.replace(
        finding,
        text=_hide_in(finding.text, private),
        advice=_hide_in(finding.advice, private),
    )


def _hide_in(text: str, private: Mapping[str, str]) -> str:
    """A text with other words for the user's folders, and a sign for secrets: of this
    process, and what a setup line sets."""
    for path, words in private.items():
        # not a folder whose name only begins so
        text = re.sub(rf"{re.escape(path)}(?![\w-]|\.\w)", words, text)
    # a setup line may set one
    return _ASSIGNED.sub(_hide_assigned, hide_known(text))


def _hide_assigned(match: re.Match[str]) -> str:
    """An assignment whose name says that its value is nobody else's to see, without the
    value; any other as it stands."""
    return f"{match[1]}={HIDDEN}" if is_secret(match[1]) else match[0]


def list_unconfirmed(
    report: NodeCheckReport, checks: Sequence[NodeCheck] = registry.CHECKS
) -> dict[str, list[NodeCheck]]:
    """The entries of the registry that nothing has confirmed here, by the reason why they
    were skipped."""
    by_check: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_check.setdefault(finding.check, []).append(finding)
    unconfirmed: dict[str, list[NodeCheck]] = {}
    for check in checks:
        findings = by_check.get(check.name, [])
        if {finding.state for finding in findings} <= {FindingState.SKIPPED}:
            reason = findings[0].text if findings else ""
            unconfirmed.setdefault(reason, []).append(check)
    return unconfirmed


def list_confirmed_on_cpus(
    report: NodeCheckReport, checks: Sequence[NodeCheck] = registry.CHECKS
) -> list[NodeCheck]:
    """What nodes without GPUs have confirmed, and GPUs would have to confirm anew: they
    compute and communicate by other kernels."""
    if report.gpus:
        return []
    confirmed = {f.check for f in report.findings if f.state == FindingState.OK}
    return [
        check
        for check in checks
        if check.name in confirmed and check.section not in ON_ANY_DEVICE
    ]
