"""What a trial of training has reached, for the checks that judge it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What training reached on rank 0: medians of the steps after those that warm up.
    `tflops`: of each rank's device; `plain_save_s`: what saving the same weights takes
    where training waits for it."""

    tokens_per_s: float
    tflops: float
    stall_s: float | None
    plain_save_s: float
    written_bytes: float
    written_s: float
