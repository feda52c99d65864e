"""What Slurm 22.05 prints, shortened, and the cluster that it describes."""

import os
from collections.abc import Mapping

from launcher.clusters import accounting, cluster
from launcher.clusters.accounting import Grants
from launcher.clusters.cluster import Cluster
from launcher.clusters.profiles import Profile

CONFIG = """Configuration data as of 2026-11-21T09:50:11
AccountingStorageEnforce = associations,limits,qos
AccountingStorageType   = accounting_storage/slurmdbd
AuthInfo                = socket=/run/munge
KillWait                = 30 sec
MaxArraySize            = 101
MaxJobCount             = 10000
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at head is UP
"""
PARTITIONS = (
    "PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES"
    " QoS=N/A DefaultTime=NONE MaxNodes=2 MaxTime=01:00:00 MinNodes=0 Nodes=n[1-4] PriorityTier=1"
    " State=UP TotalCPUs=16 TotalNodes=4 SelectTypeParameters=NONE DefMemPerNode=UNLIMITED"
    " MaxMemPerNode=UNLIMITED"
    " TRES=cpu=64,mem=512000M,node=4,billing=64,gres/gpu=8\nPartitionName=gpu Default=NO"
    " MaxNodes=UNLIMITED MaxTime=UNLIMITED Nodes=g1 State=DOWN TotalNodes=1\n"
)
ASSOC_MGR = """Current Association Manager state

Association Records

ClusterName=c Account=nlp UserName= Partition= Priority=0 ID=3
    GrpSubmitJobs=900(1) GrpWall=N(0.00)
    MaxJobs= MaxSubmitJobs= MaxWallPJ=
ClusterName=c Account=nlp UserName=ada(1000) Partition= Priority=0 ID=4
    ParentAccount= Lft=2 DefAssoc=Yes
    GrpJobs=N(0) GrpJobsAccrue=N(0)
    GrpSubmitJobs=N(40) GrpWall=N(0.00)
    GrpTRES=cpu=N(0),mem=N(0),node=N(0),gres/gpu=N(0)
    MaxJobs= MaxJobsAccrue= MaxSubmitJobs=50(40) MaxWallPJ=
    MaxTRESPJ=
ClusterName=c Account=vision UserName=ada(1000) Partition= Priority=0 ID=6
    ParentAccount= Lft=5 DefAssoc=No
    GrpSubmitJobs=N(0) GrpWall=N(0.00)
    MaxJobs= MaxJobsAccrue= MaxSubmitJobs= MaxWallPJ=
    MaxTRESPJ=

QOS Records

QOS=normal(1)
    GrpJobs=N(0) GrpJobsAccrue=N(0) GrpSubmitJobs=N(3) GrpWall=N(0.00)
    MaxWallPJ=
    MaxTRESPJ=
    Account Limits
      nlp
        MaxJobsPA=N(0) MaxJobsAccruePA=N(0) MaxSubmitJobsPA=N(3)
    User Limits
      1000
        MaxJobsPU=N(0) MaxJobsAccruePU=N(0) MaxSubmitJobsPU=N(3)
QOS=short(2)
    GrpJobs=N(0) GrpJobsAccrue=N(0) GrpSubmitJobs=9000(1) GrpWall=N(0.00)
    MaxWallPJ=30
    MaxTRESPJ=gres/gpu=4
    User Limits
      1000
        MaxJobsPU=N(0) MaxJobsAccruePU=N(0) MaxSubmitJobsPU=45(1)
"""

# sacctmgr show qos, and show associations, with --parsable2
QOS = """normal|||||||||||
short|DenyOnLimit,NoReserve|00:30:00|gres/gpu=4||||||45||9000
long|PartitionTimeLimit,PartitionMaxNodes,PartitionMinNodes|7-00:00:00|||||||||
"""
ASSOCIATIONS = """nlp||normal|long,normal,short
vision||normal|normal,short
"""


def grants(qos: str = QOS, associations: str = ASSOCIATIONS, uid: int = 1000) -> Grants:
    """What accounting grants ada, of whom slurmctld tells the above."""
    records = accounting.split_records(ASSOC_MGR)
    return accounting.merge_grants(
        Grants(
            associations=tuple(row for row in records if row.get("UserName")),
            accounts={
                row["Account"]: row for row in records if row.get("UserName") == ""
            },
        ),
        accounting.parse_qos_usage(ASSOC_MGR),
        accounting.parse_table(qos, tuple(accounting.QOS_COLUMNS.values())),
        accounting.parse_table(associations, accounting.USER_COLUMNS),
        str(uid),
    )


def owned(lines: str, names: Mapping[str, str] | str, columns: int = 6) -> str:
    """Lines `id|…` of squeue, or with 3 `columns` of sacct, each with the user and the
    name of its job added.

    `names`: the job's name by its id, or one for all; a job without one is somebody else's.
    """
    made = []
    for line in lines.splitlines():
        job, *rest = line.split("|")
        rest += [""] * (columns - 1 - len(rest))
        main = job.partition("_")[0]
        name = names if isinstance(names, str) else names.get(job) or names.get(main)
        made.append(
            "|".join(
                [job, *rest, str(os.getuid()) if name else "4242", name or "thesis"]
            )
        )
    return "".join(f"{line}\n" for line in made)


def profile(**settings: object) -> Profile:
    """A Slurm profile with these settings."""
    return Profile.model_validate({"name": "p", "kind": "slurm", **settings})


def a_cluster(
    config: dict[str, str] | None = None, main: dict[str, str] | None = None
) -> Cluster:
    """The cluster of the answers above; `config` and `main` change its settings and
    those of its first partition."""
    known = cluster.parse_partitions(PARTITIONS)
    known["main"] |= main or {}
    return Cluster(
        config=cluster.parse_config(CONFIG) | (config or {}),
        partitions=known,
        grants=grants(),
        user="ada",
    )
