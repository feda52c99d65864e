"""Is what the ranks of a node check write read again as it was, whoever died meanwhile?"""

import math
from pathlib import Path

import msgspec

from jobs.contract import job_file, node_check
from jobs.contract.job_file import NodeCheckJob, Paths, Resources
from jobs.contract.node_check import FindingState, NodeCheckReport, RankRecord
from tests.lib.node_checks import REQUEST, make_finding


def test_a_request_is_read_from_job_json_as_it_was_written(tmp_path: Path) -> None:
    """With the model's shape and the profile's GPU in it."""
    job = NodeCheckJob(
        schema=1,
        run_id=None,
        submission="1a2b3c4d",
        resources=Resources(
            profile="p", nodes=2, ranks_per_node=4, cpus_per_rank=8, time_min=15
        ),
        paths=Paths(workspace=str(tmp_path)),
        stage_id="node-check",
        request=REQUEST,
    )
    job_file.write_job(tmp_path, job)

    assert job_file.read_job(tmp_path) == job
    assert job.kind == node_check.KIND


def test_records_of_ranks_are_read_in_order_and_a_broken_one_is_told(
    tmp_path: Path,
) -> None:
    """Rank 10 comes after rank 2; a draft of a rank that died is no record."""
    for rank in (10, 2, 0):
        record = RankRecord(
            attempt=1, rank=rank, node="n1", findings=[make_finding(rank=rank)]
        )
        node_check.write_rank_record(tmp_path, record)
    node_check.locate_rank_record(tmp_path, 3).write_text("{")
    node_check.locate_rank_record(tmp_path, 4).with_name(".4.json.0a1b2c3d").touch()

    records, troubles = node_check.read_rank_records(tmp_path)

    assert [record.rank for record in records] == [0, 2, 10]
    assert len(troubles) == 1
    assert "ranks/3.json" in troubles[0]


def test_a_rank_that_measures_no_number_is_read_all_the_same(tmp_path: Path) -> None:
    """JSON has no NaN: such numbers are left out, and the finding stays."""
    finding = msgspec.structs.replace(
        make_finding(), measured=math.nan, figures={"loss": math.inf, "steps": 4.0}
    )
    node_check.write_rank_record(
        tmp_path, RankRecord(attempt=1, rank=0, node="n1", findings=[finding])
    )

    record = node_check.read_rank_record(tmp_path, 0)

    assert record is not None
    assert (record.findings[0].measured, record.findings[0].assumed) == (None, 4.0)
    assert record.findings[0].figures == {"steps": 4.0}


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    """It is absent before."""
    report = NodeCheckReport(
        id="0a1b2c3d4e5f",
        state=FindingState.OK,
        zsg="0.1.0",
        profile="p",
        kind="slurm",
        job="17",
        created=1,
        nodes=["n1", "n2"],
        ranks=8,
        seen=8,
        gpus={"NVIDIA A800": 8},
        request=REQUEST,
        findings=[make_finding()],
    )

    assert node_check.read_report(tmp_path) is None
    node_check.write_report(tmp_path, report)
    assert node_check.read_report(tmp_path) == report


def test_the_worst_of_states_is_a_problem_and_what_is_skipped_the_least() -> None:
    """Of none it is skipped."""
    states = list(FindingState)

    assert node_check.find_worst(states) == FindingState.PROBLEM
    assert node_check.find_worst([FindingState.SKIPPED, FindingState.OK]) == "ok"
    assert node_check.find_worst([]) == FindingState.SKIPPED
