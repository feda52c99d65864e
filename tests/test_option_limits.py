"""Are further options of sbatch, which a site would not take, refused before the queue?"""

import pytest

from launcher.planning import option_limits
from launcher.planning.job_request import list_requests
from tests.lib.slurm_answers import a_cluster, profile

ON = {"SlurmctldParameters": "enable_configless,enable_expedited_requeue"}


@pytest.mark.parametrize(
    ("options", "config", "words"),
    [
        ({}, {}, []),
        (
            {"requeue": "expedite"},
            {"SLURM_VERSION": "25.05.3"},
            ["which Slurm has since 25.11, and this is 25.05.3"],
        ),
        ({"requeue": "expedite"}, {"SLURM_VERSION": "25.11.0"}, ["switched on"]),
        ({"requeue": "expedite"}, {"SLURM_VERSION": "25.11.0-rc1"} | ON, []),
        ({"requeue": "expedite"}, {"SLURM_VERSION": "26.05.1"} | ON, []),
        ({"nodelist": "n1"}, {}, []),
        ({"nodelist": "n[1-2]"}, {}, ["names 2 nodes", "but a prepare job has 1"]),
        ({"nodelist": "/site/nodes"}, {}, []),
        ({"exclude": "n[1-2,7]"}, {}, []),
    ],
)
def test_what_sbatch_would_not_take_is_refused(
    options: dict[str, str], config: dict[str, str], words: list[str]
) -> None:
    """An expedited requeue where Slurm has none; more nodes than a job has."""
    own = profile(slurm={"sbatch": options}, train={"nodes": 2})
    found = list(
        option_limits.find_refusals(own, a_cluster(config), list_requests(own))
    )

    assert len(found) == bool(words)
    assert [part for part in words if part not in found[0]] == []


def test_what_an_expedited_requeue_leaves_is_told() -> None:
    """A job that fails by itself stays in the queue, held."""
    own = profile(slurm={"sbatch": {"requeue": "expedite"}})

    assert "zsg cancel takes it out" in " ".join(option_limits.find_notes(own))
    assert not list(option_limits.find_notes(profile()))
