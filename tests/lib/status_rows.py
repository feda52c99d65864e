"""Rows of status, as for one run and for many."""

from typing import Any

from launcher.status import status_view as view

NOW = 1_796_990_400.0  # a Friday, 12:00 UTC
NOT_FINITE = (
    "step 2: DeepSpeed skipped the update because a gradient was not finite; a skipped"
    " step is another experiment. Lower train.lr, use train.precision: fp32, or"
    " train.overflow: skip"
)


def row(run: str, state: str, **facts: Any) -> dict[str, Any]:
    """A row of status."""
    known = {
        "run": run,
        "grid": "g",
        "state": state,
        "attempt": 1,
        "step": None,
        "steps": 30,
        "loss": None,
    }
    known |= {
        "slurm": None,
        "axes": {"arrangement.order": "nft"},
        "cause": None,
        "evidence": None,
        "wanted": True,
    }
    return known | facts


def whole_row(run: str, state: str, **facts: Any) -> dict[str, Any]:
    """A row with all that a table looks at."""
    attempt = None if state in ("queued", "waiting") else 1
    return dict.fromkeys(view.SHOWN) | row(run, state, attempt=attempt) | facts


def cost(useful: float, **facts: Any) -> dict[str, Any]:
    """What a run has cost."""
    known = {"useful": useful, "repeated": 0.0, "lost": 0.0, "left": None}
    known |= {"has_gpus": True, "unknown_before_attempt": None}
    return {"gpu_hours": known | facts}


def one_grid() -> list[dict[str, Any]]:
    """Four runs on this machine: two are done, two have diverged."""
    rows: list[dict[str, Any]] = []
    for number, run in enumerate(("e4a6866a6224", "0aa3866a6224")):
        axes = {"train.lr": 0.003, "seed": number}
        loss = 3.8423 + number / 10
        facts = {"grid": "fail", "axes": axes, "step": 24, "steps": 24, "loss": loss}
        facts |= cost(0.5, has_gpus=False)
        rows.append(whole_row(run, "done", **facts))
    for number, run in enumerate(("59725024575a", "5dad01f76a67")):
        axes = {"train.lr": 1e20, "seed": number}
        facts = {"grid": "fail", "axes": axes, "step": 2, "steps": 24}
        facts |= {"cause": "diverged", "evidence": NOT_FINITE}
        facts |= cost(0.0, lost=0.06, has_gpus=False)
        rows.append(whole_row(run, "failed", **facts))
    return rows


def three_grids() -> list[dict[str, Any]]:
    """One grid on this machine, two on Slurm, of other axes."""
    rows = one_grid()
    axes = {"arrangement.order": "nft", "data.sample_seed": 0}
    live = {"heartbeat_s": 4.0, "tokens_per_s": 12345.6, "eta_s": 11_220.0}
    live |= {"gpus": 16, "doing": "training", "expected_end": NOW + 11_220}
    live |= cost(16.5, repeated=1.25, left=49.9)
    of_slurm = {"grid": "wsd-order", "steps": 480}
    rows.append(
        whole_row(
            "aaad01f76a67",
            "running",
            axes=axes,
            step=120,
            loss=2.5,
            slurm="7001_0",
            **of_slurm,
            **live,
        )
    )
    queued = {"reason": "Resources", "expected_start": NOW + 86_400}
    rows.append(
        whole_row(
            "bbad01f76a67",
            "queued",
            axes=axes | {"data.sample_seed": 1},
            slurm="7001_1",
            **of_slurm,
            **queued,
        )
    )
    rows.append(
        whole_row(
            "ccad01f76a67",
            "waiting",
            axes=axes | {"arrangement.order": "rt"},
            slurm="7001_2",
            reason="Dependency",
            **of_slurm,
        )
    )
    told = {"cause": "cancelled", "evidence": "by zsg cancel"}
    rows.append(
        whole_row(
            "ddad01f76a67",
            "cancelled",
            axes=axes | {"arrangement.order": "fft"},
            slurm="7001_3",
            step=40,
            loss=2.75,
            **of_slurm,
            **told,
            **cost(4.0, unknown_before_attempt=2),
        )
    )
    for number in range(3):
        rows.append(
            whole_row(
                f"{number}ead01f76a67",
                "done",
                grid="dmt",
                axes={"strategy": {"name": "dmt", "k": f"1/{4**number}"}},
                step=60,
                steps=60,
                loss=1.5 + number / 8,
                slurm=f"6990_{number}",
            )
        )
    return rows


def many_rows(count: int) -> list[dict[str, Any]]:
    """A grid of many runs: half done, a fiftieth under way, some out of memory, one
    that hangs, the rest pending."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        axes = {
            "arrangement.order": ("nft", "rt", "fft")[number % 3],
            "seed": number // 3,
        }
        facts: dict[str, Any] = {"state": "queued", "reason": "Priority"}
        if number < count // 2:
            facts = {"state": "done", "step": 30, "loss": 1 + number / count}
            facts |= cost(24.0)
        elif number < count // 2 + count // 50:
            facts = {"state": "running", "step": 12, "loss": 2.5, "gpus": 16}
            facts |= {"eta_s": 11_220.0, "expected_end": NOW + 11_220}
            facts |= {"doing": "training", "heartbeat_s": 4.0}
        elif number % 50 == 0:
            evidence = f"CUDA out of memory. Tried to allocate {number} MiB"
            facts = {"state": "failed", "cause": "out of memory", "step": 3}
            facts |= {"evidence": evidence}
        slurm = f"{7000 + number // 1000}_{number % 1000}"
        facts = {"axes": axes, "grid": "many", "slurm": slurm, **facts}
        state = facts.pop("state")
        rows.append(whole_row(f"{number:012x}", state, **facts))
    rows[count // 2] |= {"flag": "no step for 25 min, 16 GPUs held"}
    return rows
