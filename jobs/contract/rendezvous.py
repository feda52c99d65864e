"""rendezvous.json: where the ranks of one start of a job meet."""

from pathlib import Path

import msgspec

from jobs.contract import attempt as attempts
from jobs.contract.records import read_record, write_record

NAME = "rendezvous.json"


class Rendezvous(msgspec.Struct, frozen=True, kw_only=True):
    """Address and port of rank 0's store, in the start of the job that both of
    `slurm_job_id` and `restart_count` name."""

    slurm_job_id: str | None
    restart_count: int
    address: str
    port: int

    @property
    def is_of_this_start(self) -> bool:
        """Whether the ranks of this very start of the job meet there."""
        here = (attempts.slurm_job_id(), attempts.restart_count())
        return (self.slurm_job_id, self.restart_count) == here


def locate_rendezvous(folder: Path) -> Path:
    """Where the file is, for people."""
    return folder / NAME


def read_rendezvous(folder: Path) -> Rendezvous | None:
    """Where the ranks of the newest start meet; None before rank 0 has told. Damaged for
    what is no such record."""
    return read_record(folder / NAME, Rendezvous)


def write_rendezvous(folder: Path, address: str, port: int) -> None:
    """Tells the other ranks of this start where rank 0 is."""
    rendezvous = Rendezvous(
        slurm_job_id=attempts.slurm_job_id(),
        restart_count=attempts.restart_count(),
        address=address,
        port=port,
    )
    write_record(folder / NAME, rendezvous)
