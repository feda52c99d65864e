"""checks/<id>/ of a workspace: what a trial of a cluster's nodes is to find out, and what
each of its ranks has found (zsg doctor --on-node).

job.json        the request, as `request` of a job of kind `check`
ranks/<n>.json  what rank n has found so far, written anew after each check: of a rank
                that dies or hangs it says in which check
trials/         what checks write, read on other nodes, and remove
report.json     all of it together, with what the launcher saw of the job
report.txt      the same for people
"""

import math
from enum import StrEnum
from pathlib import Path

import msgspec

from jobs.contract.folder import SCHEMA, Damaged, list_paths
from jobs.contract.records import read_record, write_record
from zsg_core.training.decoder import DecoderShape

FOLDER = "checks"  # of a workspace
KIND = "check"  # of the job
RANKS = "ranks"
REPORT = "report.json"
TEXT = "report.txt"
TRIALS = "trials"  # files that checks make to look at, and remove
# of a check that began just before the deadline; its job has a little more
LONGEST_CHECK_S = 90.0
# the `what` of the finding whose `measured` may become a profile's `gpu.mfu`
MFU = "mfu"


class FindingState(StrEnum):
    """How well it stands with what was looked at."""

    OK = "ok"
    WARNING = "warning"  # it works, and otherwise than plan assumes, or slowly
    PROBLEM = "problem"  # a run would fail, or its numbers be wrong
    SKIPPED = "skipped"  # not looked at; the text says why


# the worst last
SEVERITY = (
    FindingState.SKIPPED,
    FindingState.OK,
    FindingState.WARNING,
    FindingState.PROBLEM,
)


class Section(StrEnum):
    """The parts of the report, in their order; the value is the headline."""

    SETUP = "setup"
    WORKSPACE = "workspace"
    GPUS = "GPUs"
    COMMUNICATION = "communication"
    ATTENTION = "attention kernel"
    ARITHMETIC = "arithmetic"
    MEMORY = "memory"
    SPEED = "speed"
    SNAPSHOTS = "snapshots"


class AssumedGpu(msgspec.Struct, frozen=True, kw_only=True):
    """What the profile says of a GPU: the keys of `gpu`. `memory_gb` in 1e9 bytes;
    `peak_tflops`: dense bf16, 1e12 operations a second; `mfu`: a share of that."""

    name: str
    memory_gb: float
    peak_tflops: float
    mfu: float


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A model with random weights that is trained for a few steps, on all ranks together.

    `batch`: examples of `max_length` tokens in a step, of all ranks; `micro_tokens`: the
    most tokens of a micro-batch. Predicted, in bytes on each GPU: `held_bytes` stay from
    step to step, `need_bytes` are the most at any moment, the largest micro-batch
    included.
    """

    name: str
    shape: DecoderShape
    precision: str
    zero_stage: int
    hpz_ranks: int | None = None
    batch: int
    max_length: int
    micro_tokens: int
    recompute: bool = False
    held_bytes: float
    need_bytes: float


class NodeCheckRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be found out, and what `zsg plan` assumes of it.

    `gpus_per_node`: asked of Slurm, 0 on CPU nodes; `mem_gb`: memory asked for on each
    node, None for the site's default; `gpu`: None where the profile tells nothing of it;
    `precisions`: of which a step is held against the CPU's; `head_sizes`: of the
    attention kernel; `trial`: None where no model fits, or none is to be trained;
    `stall_goal_s`: the most that a snapshot may hold training up; `patience_s`: after
    which ranks no longer wait for one another; `budget_s`: after which nothing more is
    begun, so that the job ends by itself; `setup_lines`: how many the profile has;
    `asked`: a digest of what Slurm was asked for, empty for a job of no Slurm.
    """

    nodes: int
    ranks_per_node: int
    cpus_per_rank: int
    gpus_per_node: int = 0
    mem_gb: int | None = None
    gpu: AssumedGpu | None = None
    precisions: list[str] = []
    head_sizes: list[int] = []
    trial: Trial | None = None
    stall_goal_s: float = 0.3
    patience_s: float = 120.0
    budget_s: float = 600.0
    setup_lines: int = 0
    asked: str = ""

    @property
    def world(self) -> int:
        """Ranks on all nodes."""
        return self.nodes * self.ranks_per_node

    @property
    def has_gpus(self) -> bool:
        """Whether the nodes are to have GPUs."""
        return self.gpus_per_node > 0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one rank has found in one check; a check may find several things.

    `check`: the name of the entry in jobs.node_check.registry; `what`: tells its findings
    apart, one word that is a stable key, such as `bf16`; `text`: one sentence; `advice`:
    what to do, empty where all is well. `assumed` and `measured` are numbers of the same
    `unit`, where there is something to compare; `figures`: further numbers by stable
    keys that name their unit. `check`, `node` and `rank` are filled in by whoever runs
    the check. In a report one finding may stand for several ranks, which are `ranks`;
    then `rank` is None, and `node` empty where they are on several. `section`: where it
    stands in the report.
    """

    state: FindingState
    text: str
    advice: str = ""
    what: str = ""
    assumed: float | None = None
    measured: float | None = None
    unit: str = ""
    figures: dict[str, float] = {}
    check: str = ""
    node: str = ""
    rank: int | None = None
    ranks: list[int] = []
    section: Section | None = None


class RankRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's part of the check. `attempt`: the start of the job that wrote it;
    `device`: `cuda:0`, `cpu`; `gpu`: the name that its driver gives it; `at_work`: the
    check that has begun and not ended; `ended`: whether it has come to its end."""

    schema: int = SCHEMA
    attempt: int
    rank: int
    node: str
    device: str = ""
    gpu: str = ""
    versions: dict[str, str] = {}
    at_work: str = ""
    ended: bool = False
    findings: list[Finding] = []


class NodeCheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a check has found, of all ranks together; the keys of `zsg doctor --on-node
    --json`.

    `state`: the worst of its findings; `job`: Slurm's id, None for a local one;
    `created`: ms since the epoch; `ranks`: how many there were to be, `seen`: how many
    have told anything; `gpus`: by the name of each, how many ranks have one; `versions`:
    of rank 0; `mfu`: what was measured, None where it was not.
    """

    schema: int = SCHEMA
    id: str
    state: FindingState
    zsg: str
    profile: str
    kind: str
    job: str | None = None
    created: int
    nodes: list[str]
    ranks: int
    seen: int
    gpus: dict[str, int] = {}
    versions: dict[str, str] = {}
    mfu: float | None = None
    request: NodeCheckRequest
    findings: list[Finding]


def locate_rank_record(folder: Path, rank: int) -> Path:
    """Where a rank writes what it has found."""
    return folder / RANKS / f"{rank}.json"


def write_rank_record(folder: Path, record: RankRecord) -> None:
    """Writes what a rank has found so far. Numbers that are none (NaN, infinite), which
    JSON does not know, are left out: the text tells of them."""
    findings = [_leave_out_nonfinite(finding) for finding in record.findings]
    record = msgspec.structs.replace(record, findings=findings)
    write_record(locate_rank_record(folder, record.rank), record)


def _leave_out_nonfinite(finding: Finding) -> Finding:
    """The finding with finite numbers only."""
    return msgspec.structs.replace(
        finding,
        assumed=_if_finite(finding.assumed),
        measured=_if_finite(finding.measured),
        figures={
            name: value
            for name, value in finding.figures.items()
            if math.isfinite(value)
        },
    )


def _if_finite(value: float | None) -> float | None:
    """The number, unless it is none."""
    return value if value is not None and math.isfinite(value) else None


def read_rank_record(folder: Path, rank: int) -> RankRecord | None:
    """What a rank has found so far; None before it has begun. Damaged for what is no
    record."""
    return read_record(locate_rank_record(folder, rank), RankRecord)


def read_rank_records(folder: Path) -> tuple[list[RankRecord], list[str]]:
    """The records of the ranks that have written any, in the order of the ranks; and why
    others cannot be read."""
    records: list[RankRecord] = []
    troubles: list[str] = []
    for path in list_paths(folder / RANKS, "*.json"):
        if path.name.startswith("."):
            continue  # a draft
        try:
            record = read_record(path, RankRecord)
        except Damaged as error:
            troubles.append(str(error))
            continue
        if record is not None:
            records.append(record)
    return sorted(records, key=lambda record: record.rank), troubles


def write_report(folder: Path, report: NodeCheckReport) -> None:
    """Writes what was found of all ranks together."""
    write_record(folder / REPORT, report)


def read_report(folder: Path) -> NodeCheckReport | None:
    """What was found; None before that is known. Damaged for what is no report."""
    return read_record(folder / REPORT, NodeCheckReport)


def has_report(folder: Path) -> bool:
    """Whether what was found has been put together."""
    return (folder / REPORT).is_file()


def find_worst(states: list[FindingState]) -> FindingState:
    """The worst of several; SKIPPED of none."""
    return max(states, key=SEVERITY.index, default=FindingState.SKIPPED)
