"""Asks accounting what it grants this user: accounts, qualities of service, their
limits, and how much of them is used.

slurmctld tells what is used, slurmdbd what slurmctld does not print: flags of a QoS, and
which one a job has that names none. Answers are parsed by pure functions.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs.runtime.slurm_calls import Runner, run_program
from launcher.clusters import slurm
from launcher.clusters.in_background import begin_call

SlurmRecord = dict[str, str]

DEEPEST = 20  # accounts above an account that are asked for
USER_COLUMNS = ("Account", "Partition", "DefaultQOS", "QOS")
# of a QoS, by sacctmgr's columns: the names that slurmctld has for them
QOS_COLUMNS = {
    "Name": "QOS",
    "Flags": "Flags",
    "MaxWall": "MaxWallPJ",
    "MaxTRES": "MaxTRESPJ",
    "MaxTRESPerNode": "MaxTRESPN",
    "MaxTRESPU": "MaxTRESPU",
    "MaxTRESPA": "MaxTRESPA",
    "MinTRES": "MinTRESPJ",
    "GrpTRES": "GrpTRES",
    "MaxSubmitPU": "MaxSubmitJobsPU",
    "MaxSubmitPA": "MaxSubmitJobsPA",
    "GrpSubmit": "GrpSubmitJobs",
}
# of which slurmctld also tells how much is used
COUNTED = ("MaxSubmitJobsPU", "MaxSubmitJobsPA", "GrpSubmitJobs")
_SECTIONS = re.compile(r"^[ \t]+(Account|User) Limits", flags=re.M)
_OWNER = re.compile(r"^[ \t]+([^\s=()]+)(?:\((\d+)\))?[ \t]*$", flags=re.M)


@dataclass(frozen=True, kw_only=True)
class Grants:
    """What accounting grants a user.

    `associations`: of the user, one for each account, and partition if it is of one.
    `accounts`: those accounts and the ones above them, by name. `qos`: every QoS, with
    what of it the user uses. `used_by_accounts`: what accounts use of a QoS, by both.
    `is_whole`: whether flags and defaults are known, too.
    """

    associations: tuple[SlurmRecord, ...] = ()
    accounts: Mapping[str, SlurmRecord] = field(default_factory=dict[str, SlurmRecord])
    qos: Mapping[str, SlurmRecord] = field(default_factory=dict[str, SlurmRecord])
    used_by_accounts: Mapping[tuple[str, str], SlurmRecord] = field(
        default_factory=dict[tuple[str, str], SlurmRecord]
    )
    is_whole: bool = False


@dataclass(frozen=True)
class _QosUsage:
    """A QoS as slurmctld prints it: its own limits, and what users and accounts have of it."""

    limits: SlurmRecord
    users: Mapping[str, SlurmRecord]
    accounts: Mapping[str, SlurmRecord]


def query_grants(
    user: str, cluster: str, run: Runner = run_program, named: str | None = None
) -> Grants:
    """What accounting grants a user on a cluster; empty where it does not answer.

    `named`: the cluster that calls must name, if not the default one.
    """
    of_qos = ["show", "qos", f"format={','.join(QOS_COLUMNS)}"]
    of_user = ["show", "associations", "where", f"users={user}"]
    of_user += [f"clusters={cluster}"] if cluster else []
    of_user.append(f"format={','.join(USER_COLUMNS)}")
    limits = begin_call(lambda: _ask_database(of_qos, run))
    defaults = begin_call(lambda: _ask_database(of_user, run))
    usage = _ask_controller([f"users={user}", "flags=assoc,qos"], run, named)
    records = split_records(usage)
    return merge_grants(
        Grants(
            associations=tuple(row for row in records if row.get("UserName")),
            accounts=_complete_accounts(records, run, named),
        ),
        parse_qos_usage(usage),
        parse_table(limits.result(), tuple(QOS_COLUMNS.values())),
        parse_table(defaults.result(), USER_COLUMNS),
        str(os.getuid()),
    )


def _ask_controller(words: Sequence[str], run: Runner, named: str | None) -> str:
    argv = ["scontrol", "show", "assoc_mgr", *words]
    return slurm.call_accounting(argv, run, named)


def _ask_database(words: Sequence[str], run: Runner) -> str:
    # one slurmdbd serves all clusters: sacctmgr takes none by an option
    argv = ["sacctmgr", "--noheader", "--parsable2", "--readonly", *words]
    return slurm.call_accounting(argv, run)


def _complete_accounts(
    records: Sequence[SlurmRecord], run: Runner, named: str | None
) -> dict[str, SlurmRecord]:
    """The accounts among the records of a user, and all above them: asked for where
    they were not told as well."""
    accounts = {row["Account"]: row for row in records if _is_account(row)}
    own_names = {row["Account"] for row in records if row.get("UserName")}
    for _ in range(DEEPEST):
        missing = (own_names | _list_parents(accounts)) - accounts.keys()
        if not missing:
            break
        words = [f"accounts={','.join(sorted(missing))}", "flags=assoc"]
        answer = split_records(_ask_controller(words, run, named))
        # of an account that nobody tells, nothing is known
        accounts |= {name: {"Account": name} for name in missing}
        accounts |= {row["Account"]: row for row in answer if _is_account(row)}
    return accounts


def _list_parents(accounts: Mapping[str, SlurmRecord]) -> set[str]:
    """The accounts that are directly above others."""
    return {name for row in accounts.values() if (name := get_parent(row))}


def get_parent(account: SlurmRecord) -> str:
    """The name of the account above one; empty for the uppermost."""
    return account.get("ParentAccount", "").partition("(")[0]


def _is_account(row: SlurmRecord) -> bool:
    """Whether an association is that of an account as a whole."""
    return "Account" in row and not row.get("UserName") and not row.get("Partition")


def split_records(text: str) -> list[SlurmRecord]:
    """The associations and QoS of `scontrol show assoc_mgr`, as words: of a QoS those
    of all its users, too."""
    blocks = re.split(r"^(?=ClusterName=|QOS=)", text, flags=re.M)
    return [split_words(block) for block in blocks if "=" in block]


def split_words(text: str) -> SlurmRecord:
    """The words `Key=value` of a text."""
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


def parse_qos_usage(text: str) -> dict[str, _QosUsage]:
    """The QoS of `scontrol show assoc_mgr` by name: `MaxSubmitJobsPU=5(4)` is a limit,
    and used."""
    usage: dict[str, _QosUsage] = {}
    for block in re.split(r"^(?=ClusterName=|QOS=)", text, flags=re.M):
        if not block.startswith("QOS="):
            continue
        limits, *sections = _SECTIONS.split(block)
        record = split_words(limits)
        by_kind = dict(zip(sections[::2], sections[1::2], strict=True))
        usage[record["QOS"].partition("(")[0].lower()] = _QosUsage(
            record,
            _split_owners(by_kind.get("User", "")),
            _split_owners(by_kind.get("Account", "")),
        )
    return usage


def _split_owners(text: str) -> dict[str, SlurmRecord]:
    """What each user or account has, from lines with its name or number, and words below."""
    _, *pieces = _OWNER.split(text)
    names, numbers, words = pieces[::3], pieces[1::3], pieces[2::3]
    return {
        number or name: split_words(text_of_owner)
        for name, number, text_of_owner in zip(names, numbers, words, strict=True)
    }


def parse_table(text: str, columns: Sequence[str]) -> list[SlurmRecord]:
    """The rows of sacctmgr with --parsable2, by the names of their columns."""
    rows = (line.split("|") for line in text.split("\n"))
    return [
        dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)
    ]


def merge_grants(
    grants: Grants,
    usage: Mapping[str, _QosUsage],
    limits: Sequence[SlurmRecord],
    defaults: Sequence[SlurmRecord],
    uid: str,
) -> Grants:
    """The grants with what slurmctld tells of QoS, and slurmdbd of their limits and of
    the user's defaults."""
    limits_by_name = {row["QOS"].lower(): row for row in limits}
    qos: dict[str, SlurmRecord] = {}
    used_by_accounts: dict[tuple[str, str], SlurmRecord] = {}
    for name in usage.keys() | limits_by_name.keys():
        used = usage.get(name, _QosUsage({}, {}, {}))
        record = limits_by_name.get(name, {})
        qos[name] = _add_usage(record, used.limits | used.users.get(uid, {}))
        for account, words in used.accounts.items():
            used_by_accounts[name, account.lower()] = _add_usage(record, words)
    return Grants(
        associations=tuple(_add_defaults(row, defaults) for row in grants.associations),
        accounts=grants.accounts,
        qos=qos,
        used_by_accounts=used_by_accounts,
        is_whole=bool(limits) and bool(defaults),
    )


def _add_usage(record: SlurmRecord, usage: SlurmRecord) -> SlurmRecord:
    """A QoS as slurmdbd knows it, with what slurmctld prints of it, which is what binds."""
    merged = record | {key: value for key, value in usage.items() if value}
    for key in COUNTED:
        limit, _, used = usage.get(key, "").rstrip(")").partition("(")
        number = limit if limit.isdigit() else record.get(key, "")
        merged[key] = f"{number or 'N'}({used or 0})"
    return merged


def _add_defaults(row: SlurmRecord, defaults: Sequence[SlurmRecord]) -> SlurmRecord:
    """An association, with the QoS that it has and the one it has by default."""
    key = (row.get("Account", ""), row.get("Partition", ""))
    for default in defaults:
        if (default["Account"], default["Partition"]) == key:
            return row | {key: default[key] for key in ("DefaultQOS", "QOS")}
    return row
