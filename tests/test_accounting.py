"""Is what accounting tells of a user read as Slurm prints it, of two daemons that each tell a part?"""

import subprocess

from launcher.clusters import accounting
from tests.lib.slurm_answers import ASSOC_MGR, grants

TWO_USERS = """QOS Records

QOS=short(2)
    GrpSubmitJobs=N(7) MaxWallPJ=
    Account Limits
      nlp
        MaxSubmitJobsPA=N(5)
      vision
        MaxSubmitJobsPA=N(2)
    User Limits
      ada(1000)
        MaxSubmitJobsPU=N(4)
      1001
        MaxSubmitJobsPU=N(3)
QOS=normal(1)
    GrpSubmitJobs=N(0) MaxWallPJ=
    Account Limits
        No Accounts
    User Limits
        No Users
"""


def test_associations_are_the_users_own() -> None:
    """`scontrol show assoc_mgr` becomes the user's associations, each with its default
    QoS, and the accounts above them."""
    found = grants()

    assert [
        (row["Account"], row["MaxSubmitJobs"], row["DefaultQOS"])
        for row in found.associations
    ] == [("nlp", "50(40)", "normal"), ("vision", "", "normal")]
    assert found.accounts["nlp"]["GrpSubmitJobs"] == "900(1)"
    assert found.is_whole


def test_a_qos_is_told_by_both_daemons() -> None:
    """Flags and limits are slurmdbd's, what is used is slurmctld's."""
    short = grants().qos["short"]

    assert (short["MaxWallPJ"], short["MaxSubmitJobsPU"]) == ("30", "45(1)")
    assert short["Flags"] == "DenyOnLimit,NoReserve"
    assert grants().qos["normal"]["MaxSubmitJobsPU"] == "N(3)"


def test_what_other_users_use_is_not_ours() -> None:
    """A QoS lists all that have jobs in it, by number or by name; who has none is not listed."""
    table = accounting.parse_table(
        "short|||||||||5|5|9000\nA line of the site\n",
        tuple(accounting.QOS_COLUMNS.values()),
    )
    usage = accounting.parse_qos_usage(TWO_USERS)
    used = {
        uid: accounting.merge_grants(accounting.Grants(), usage, table, [], uid)
        for uid in ("1000", "1001", "1002")
    }

    assert [found.qos["short"]["MaxSubmitJobsPU"] for found in used.values()] == [
        "5(4)",
        "5(3)",
        "5(0)",
    ]
    assert used["1000"].used_by_accounts["short", "vision"]["MaxSubmitJobsPA"] == "5(2)"


def test_nothing_is_known_where_accounting_does_not_answer() -> None:
    """Neither daemon, or only one of them: no error, and it is known to be not whole."""

    def fail(argv, **options):
        return subprocess.CompletedProcess(argv, 1, "", "down")

    def answer_partly(argv, **options):
        text = ASSOC_MGR if argv[0] == "scontrol" else ""
        return subprocess.CompletedProcess(argv, 0, text, "")

    assert accounting.query_grants("ada", "c", fail) == accounting.Grants()
    found = accounting.query_grants("ada", "c", answer_partly)
    assert len(found.associations) == 2
    assert not found.is_whole


def test_usage_with_many_blank_lines_is_read_in_one_pass() -> None:
    """As sbatch's help is."""
    blank = " \n" * 100_000
    text = TWO_USERS.replace("    Account Limits", f"{blank}    Account Limits")

    usage = accounting.parse_qos_usage(text)

    assert usage == accounting.parse_qos_usage(TWO_USERS)
