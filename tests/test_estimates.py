"""Does a plan say what runs take, and refuse what cannot fit with the smallest change
that would?"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.clusters import profiles
from launcher.planning import memory_fit, row_counts
from launcher.planning.estimates import Estimates, build_lines, describe_assumptions
from launcher.planning.memory_fit import Layout, Load
from launcher.planning.workload import AT_MOST, COUNTED, MEAN, UNKNOWN
from launcher.submission import workflow
from tests.lib.builders import task, write_niv2
from tests.lib.command_line import Zsg
from tests.lib.journal_rows import plain_rows
from tests.lib.published_llamas import CONFIGS, remember, write_model
from zsg_core.errors import UserError
from zsg_core.families.registry import shape_of_config
from zsg_core.training.estimate import GB

# of a plan: whether submit would refuse the states of a real model, this machine's disk decides
BY_DISK = (0, 2)
GPUS = """
name: gpus
kind: slurm
train: {ranks_per_node: RANKS}
deepspeed: {zero_stage: STAGE}
slurm: {gpus_per_node: 8}
gpu: {name: A800-80G, memory_gb: 80, tflops: 312, mfu: 0.5}
"""


def load(
    name: str,
    batch: int = 16,
    max_length: int = 1024,
    precision: str = "bf16",
    recompute: bool | None = False,
) -> Load:
    """A published Llama, trained so."""
    shape = shape_of_config({**CONFIGS[name], "vocab_size": 32000})
    return Load(
        shape=shape,
        trained=shape.parameters,
        precision=precision,
        batch=batch,
        max_length=max_length,
        budget=16_384,
        recompute=recompute,
    )


# what is trained; ZeRO stage, nodes and GPUs of each now; the smallest change that fits
FITS = [
    pytest.param(load("7B"), (1, 1, 4), (1, 1, 4), id="7B on 4 GPUs fits at stage 1"),
    pytest.param(load("7B"), (2, 1, 4), (2, 1, 4), id="and so it does at stage 2"),
    pytest.param(
        load("13B"), (1, 1, 8), (2, 1, 8), id="a higher stage before more GPUs"
    ),
    pytest.param(
        load("7B"),
        (1, 1, 2),
        (2, 1, 2),
        id="a stage that leaves room for few tokens at once",
    ),
    pytest.param(load("13B"), (1, 1, 2), (3, 1, 4), id="more GPUs where no stage fits"),
    pytest.param(
        load("7B", max_length=256), (1, 1, 2), (2, 1, 2), id="short examples need fewer"
    ),
    pytest.param(
        load("33B"), (1, 1, 4), (3, 2, 8), id="a further node where one is used whole"
    ),
    pytest.param(load("33B"), (3, 1, 8), (3, 2, 8), id="33B takes 16 GPUs at stage 3"),
    pytest.param(
        load("33B", batch=12), (3, 1, 8), None, id="no GPU without an example"
    ),
    pytest.param(
        load("33B", max_length=8192, batch=512),
        (1, 1, 8),
        None,
        id="an example alone is too long",
    ),
    pytest.param(
        load("13B", precision="fp32"), (0, 1, 8), (3, 1, 8), id="fp32 begins at stage 0"
    ),
    pytest.param(
        load("13B", recompute=None),
        (1, 1, 8),
        (1, 1, 8),
        id="recomputing before a higher stage",
    ),
    pytest.param(
        load("33B", recompute=None),
        (3, 1, 8),
        (3, 1, 8),
        id="33B fits 8 GPUs where it is recomputed",
    ),
    pytest.param(
        load("13B", recompute=None),
        (1, 1, 2),
        (3, 1, 3),
        id="recomputing takes fewer GPUs",
    ),
]

# what is trained; ZeRO stage and GPUs of a node; whether it recomputes; tokens of a micro-batch
RECOMPUTED = [
    pytest.param(load("7B", recompute=None), (1, 4), False, 4096, id="there is room"),
    pytest.param(
        load("7B", recompute=None),
        (2, 2),
        False,
        2401,
        id="there is room for one example at least",
    ),
    pytest.param(load("13B", recompute=None), (1, 8), True, 2048, id="there is not"),
    pytest.param(
        load("33B", max_length=4096, recompute=None),
        (3, 8),
        True,
        6198,
        id="long examples",
    ),
    pytest.param(load("7B", recompute=True), (1, 4), True, 4096, id="it is asked for"),
    pytest.param(
        load("13B", recompute=False), (1, 8), False, 1024, id="it is forbidden"
    ),
]


@pytest.mark.parametrize(("what", "now", "recomputes", "tokens"), RECOMPUTED)
def test_activations_are_recomputed_where_an_example_fits_only_so(
    what: Load, now: tuple[int, int], recomputes: bool, tokens: int
) -> None:
    """On GPUs of 80 GB, unless it is asked for or forbidden; micro-batches fill the
    memory that is then left."""
    layout = Layout(zero_stage=now[0], nodes=1, ranks_per_node=now[1])

    assert what.recomputes(layout, 80) == recomputes
    assert what.micro_tokens(layout, 80) == tokens
    assert what.recomputes(layout, None) == bool(what.recompute), (
        "where no memory is known there is room"
    )


@pytest.mark.parametrize(("what", "now", "wanted"), FITS)
def test_the_smallest_change_that_fits(
    what: Load, now: tuple[int, ...], wanted: tuple[int, ...] | None
) -> None:
    """On nodes of 8 GPUs of 80 GB: fewest GPUs first, then the lowest stage; nothing
    changes where it fits."""
    stage, nodes, ranks = now
    layout = Layout(zero_stage=stage, nodes=nodes, ranks_per_node=ranks)
    found = memory_fit.smallest_change(what, layout, 80, 8)

    assert (found and (found.zero_stage, found.nodes, found.ranks_per_node)) == wanted
    assert (memory_fit.explain_misfit(what, layout, 80, "A800", 8) is None) == (
        wanted == now
    )


def test_a_second_copy_takes_room_and_is_the_first_to_go() -> None:
    """33B on 16 GPUs: 2 bytes a parameter over the GPUs of a node."""
    model = load("33B", recompute=None)
    plain = Layout(zero_stage=3, nodes=2, ranks_per_node=8)
    copied = Layout(zero_stage=3, nodes=2, ranks_per_node=8, hpz_ranks=2)
    more = model.tensors(copied).weights - model.tensors(plain).weights
    why = memory_fit.explain_misfit(model, copied, 45, "A", 8) or ""

    assert more / GB == pytest.approx(2 * 32.5 / 2, rel=0.01)
    assert "smallest change that fits: deepspeed.hpz_ranks: null in the profile" in why


@pytest.mark.parametrize(
    ("what", "now", "said"),
    [
        pytest.param(
            load("13B"),
            (1, 1, 8),
            "needs 81.6 GB on each GPU, but A800 has 80 GB: 71.6 GB weights, gradients and"
            " optimiser (13.02 billion parameters in bf16, ZeRO 1 on 8 GPUs) and 10.0 GB"
            " activations (one example of 1024 tokens). The smallest change that fits:"
            " deepspeed.zero_stage: 2 in the profile (68.8 GB)",
            id="a stage",
        ),
        pytest.param(
            load("33B"),
            (3, 2, 4),
            "The smallest change that fits: resources.ranks_per_node: 5 (76.0 GB)",
            id="GPUs of the node",
        ),
        pytest.param(
            load("33B"),
            (1, 1, 4),
            "The smallest change that fits: deepspeed.zero_stage: 3 in the profile and"
            " resources.ranks_per_node: 8 and resources.nodes: 2 (53.6 GB)",
            id="all three",
        ),
        pytest.param(
            load("33B", batch=12),
            (3, 1, 8),
            "Nothing up to 12 GPUs fits (16 nodes, a batch of 12); it takes a smaller model, a"
            " lower train.max_length or GPUs with more memory",
            id="nothing",
        ),
        pytest.param(
            load("33B", max_length=16, batch=1),
            (1, 1, 1),
            "650.6 GB on each GPU, but A800 has 80 GB: weights, gradients and optimiser in its step"
            " (32.53 billion parameters in bf16, ZeRO 1 on 1 GPU). Nothing up to 1 GPUs fits",
            id="the step is the worst moment",
        ),
    ],
)
def test_a_refusal_says_need_room_and_change(
    what: Load, now: tuple[int, int, int], said: str
) -> None:
    """The message has what the run needs, what the GPU has, and what to write where."""
    stage, nodes, ranks = now

    assert said in str(
        memory_fit.explain_misfit(
            what,
            Layout(zero_stage=stage, nodes=nodes, ranks_per_node=ranks),
            80,
            "A800",
            8,
        )
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two training tasks of four instances and a held-out one of four."""
    return write_niv2(tmp_path / "data")


def grid(
    zsg: Zsg,
    data: Path,
    more: str = "",
    axes: str = "{seed: [0]}",
    profile: str = "gpus",
) -> Path:
    """A grid file of 7B; `more` are further lines of its defaults."""
    model = zsg.folder / "llama-2-7b"
    if not model.exists():
        write_model(model, "7B")
        for workspace in ("work", "zsg-work"):
            remember(zsg.folder / workspace, model)
    text = (
        f"name: g\nprofile: {profile}\ndefaults:\n  data.path: {data}\n  model: {{name: seven,"
        f" path: {model}}}\n"
    )
    return zsg.write("grid.yaml", f"{text}{more}grid: {axes}\n")


def profile(zsg: Zsg, stage: int = 1, ranks: int = 4) -> None:
    """Nodes of 8 GPUs of 80 GB."""
    (zsg.folder / "cluster_profiles").mkdir(exist_ok=True)
    text = GPUS.replace("STAGE", str(stage)).replace("RANKS", str(ranks))
    zsg.write("cluster_profiles/gpus.yaml", text)


def estimates(path: Path, folder: Path) -> tuple[list, Estimates]:
    """The runs of a grid file and their estimates."""
    opened = workflow.open_grid(path, None, folder / "work")
    return opened.runs, Estimates(
        opened.site.workspace, opened.site.profile, opened.runs
    )


def test_a_plan_says_in_a_line_each_what_runs_take(zsg: Zsg, data: Path) -> None:
    """What fills a GPU and what a smaller choice would, the hours with what they rest on,
    the disk; the table by ZeRO stage stays away."""
    profile(zsg)
    printed = zsg("plan", grid(zsg, data, axes="{seed: [0, 1, 2]}"), code=BY_DISK)
    lines = {line.partition(" ")[0]: line for line in printed.splitlines()}

    assert lines["memory"].split("memory")[1].strip() == (
        "47.2 GB of weights, gradients, optimiser + 26.2 of activations: fills 73.4 of 80"
        " GB (llama-2-7b, ZeRO 1, 4 GPUs); 2 GPUs would not fit (80.9)"
    )
    assert "3 runs × 4 GPUs ×" in lines["cost"] and "50% of A800" in lines["cost"]
    assert lines["disk"].endswith("of saved states while runs are under way")
    assert "g: 3 to submit, 0 done, 0 failed, 0 running" in printed
    assert "tensors" not in printed


def test_a_plan_shows_the_memory_by_stage_where_it_is_asked_for(
    zsg: Zsg, data: Path
) -> None:
    """In 80 columns there is one line per stage, no line is cut, and each number's basis
    is told."""
    profile(zsg)
    zsg.env["COLUMNS"] = "80"
    asked = grid(zsg, data, axes="{seed: [0, 1, 2]}")
    printed = zsg("plan", asked, "--memory", code=BY_DISK)
    rows = [line.split() for line in printed.splitlines() if "llama-2-7b  " in line]

    assert [row[3:5] for row in rows[:3]] == [
        ["1*", "53.9"],
        ["2", "43.8"],
        ["3", "31.0"],
    ]
    assert rows[0] == ["llama-2-7b", "6.74B", "1×4", "1*", "53.9", "26.2", "73.4", "80"]
    assert rows[3][:4] == ["llama-2-7b", "1×4", "≤3", "≤41k"] and rows[3][-1] == "94.3"
    for said in (
        "tensors: GB (1e9",
        "steps: at most, from",
        "tokens: at most, examples × max",
        "50% of A800-80G's",
        "start: weights take 13.5 GB of each GPU",
        "host: up to 96.9 GB of memory on",
    ):
        assert said in printed


def test_rows_for_scripts_carry_the_estimate(zsg: Zsg, data: Path) -> None:
    """`zsg plan --json` stays a list of runs; each has its estimate."""
    profile(zsg)
    [row] = json.loads(zsg("plan", grid(zsg, data), "--json", code=BY_DISK))

    made = row["estimate"]
    assert row["action"] == "submit"
    assert (made["model"], made["parameters"], made["zero_stage"]) == (
        "llama-2-7b",
        6_738_415_616,
        1,
    )
    assert made["tensors_gb"] == {"1": 53.907, "2": 43.8, "3": 30.954}
    assert made["activations_gb"] > 0 and made["recompute"] is False
    assert (made["start_gb"], made["host_gb"]) == (13.477, 96.861)
    assert (
        made["examples"],
        made["examples_are"],
        made["steps"],
        made["checkpoints"],
    ) == (
        40,
        AT_MOST,
        3,
        2,
    )
    assert (made["tokens"], made["test_tokens"], made["tokens_are"]) == (
        40 * 1024,
        5 * 1024,
        AT_MOST,
    )
    flops = made["train_flops"] + made["test_flops"]
    assert made["gpu_hours"] == pytest.approx(flops / (312e12 * 0.5 * 3600), abs=1e-4)


def test_a_quick_set_costs_its_part(zsg: Zsg, data: Path) -> None:
    """One of five items at each of four checkpoints is 0.8 test sets, beside the two whole ones."""
    profile(zsg)
    ask = ["plan", grid(zsg, data), "--json", "--set"]
    whole, quick = (
        json.loads(zsg(*ask, setting, code=BY_DISK))[0]["estimate"]
        for setting in (
            "checkpoints.every=10",
            "checkpoints={every: 1, quick: {items: 1}}",
        )
    )

    assert (whole["checkpoints"], quick["checkpoints"]) == (2, 4)
    assert quick["test_flops"] / whole["test_flops"] == pytest.approx(2.8 / 2)


def test_a_run_that_cannot_fit_is_refused(zsg: Zsg, data: Path) -> None:
    """plan and submit end with 2 and one message: the run's axes, how many are like it,
    and the change."""
    profile(zsg, ranks=2)
    path = grid(zsg, data, axes="{seed: [0, 1], train.max_length: [64, 1024]}")
    for command in ("plan", "submit"):
        printed = zsg(command, path, code=2)

        assert printed == ""
        [error] = [line for line in zsg.said.splitlines() if line.startswith("error: ")]
        assert (
            "(seed: 0, train.max_length: 64) needs " in error
            or "(seed: 0, train.max_length: 1024) needs " in error
        )
        assert "The smallest change that fits: deepspeed.zero_stage: " in error
        assert error.endswith("of the 4 runs do not fit")
    assert not (zsg.work / "ledger.jsonl").exists()


SMALL_GPUS = """
name: small
kind: slurm
train: {nodes: 4, ranks_per_node: 8}
deepspeed: {zero_stage: 3}
slurm: {gpus_per_node: 8}
gpu: {name: A10-24G, memory_gb: 24, tflops: 125}
"""


def test_a_run_that_could_not_be_evaluated_is_refused(zsg: Zsg, data: Path) -> None:
    """plan ends with 2: 13B is trained by 32 GPUs of 24 GB, and one does not hold it;
    with the change that is named it plans, and says what evaluators take."""
    (zsg.folder / "cluster_profiles").mkdir()
    model = write_model(zsg.folder / "llama-2-13b", "13B")
    remember(zsg.work, model)
    zsg.write("cluster_profiles/small.yaml", SMALL_GPUS)
    zsg.write(
        "cluster_profiles/two.yaml",
        SMALL_GPUS.replace("name: small", "name: two", 1) + "evaluate: {gpus: 2}\n",
    )
    path = zsg.write(
        "grid.yaml",
        f"name: g\nprofile: small\ndefaults:\n  data.path: {data}\n  model: {{name: m, path:"
        f" {model}}}\n  train: {{batch: 32, max_length: 512}}\n  checkpoints: {{snapshots: 1,"
        " metrics: [loss, exact_match]}\ngrid: {seed: [0]}\n",
    )

    assert zsg("plan", path, code=2) == ""
    assert "its evaluate job needs 2" in zsg.said
    assert "The smallest change that fits: evaluate.gpus: 2 in the profile" in zsg.said
    printed = zsg("plan", path, "--profile", "two", "--memory", code=BY_DISK)
    assert "evaluators: " in printed and "on the fullest of 2 GPUs at least" in printed
    [row] = json.loads(zsg("plan", path, "--profile", "two", "--json", code=BY_DISK))
    assert row["estimate"]["evaluator"]["gpus"] == 2
    assert row["estimate"]["evaluator"]["answers_at_once"] >= 1
    assert row["estimate"]["attention_on_gpus"]["kernel"] == "flash"


def test_without_a_gpu_nothing_is_refused(zsg: Zsg, data: Path) -> None:
    """On CPU nodes memory is the site's affair, and there are no GPU-hours."""
    [row] = json.loads(
        zsg("plan", grid(zsg, data, profile="slurm-minimal"), "--json", code=BY_DISK)
    )

    assert row["estimate"]["need_gb"] > 100
    assert (row["estimate"]["gpu_hours"], row["estimate"]["gpu_memory_gb"]) == (
        None,
        None,
    )


def test_a_plan_loads_no_engine(zsg: Zsg, data: Path) -> None:
    """Estimates come from the config alone: a whole plan of 7B imports no engine."""
    code = (
        "import sys; from launcher import cli; sys.argv = ['zsg', 'plan', sys.argv[1]]\ntry:"
        " cli.main()\n"
    )
    code += (
        "except SystemExit: pass\nprint('loaded', [n for n in ('torch', 'transformers') if n in"
        " sys.modules])"
    )
    profile(zsg)
    command = [sys.executable, "-c", code, str(grid(zsg, data))]
    done = subprocess.run(
        command, cwd=zsg.folder, env=zsg.env, capture_output=True, text=True, check=True
    )

    assert "llama-2-7b" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded []"


@pytest.mark.parametrize(
    ("more", "examples_", "steps", "how"),
    [
        pytest.param("", 40, 3, AT_MOST, id="tasks times cap"),
        pytest.param("  data.train_per_task: 3\n", 6, 1, AT_MOST, id="a lower cap"),
        pytest.param("  data.train_tasks: 1\n", 20, 2, AT_MOST, id="fewer tasks"),
        pytest.param(
            "  data.fraction: 1/3\n", 13, 1, AT_MOST, id="a fraction, rounded down"
        ),
        pytest.param("  train.epochs: 2\n", 80, 5, AT_MOST, id="two epochs"),
        pytest.param("  train.steps: 2\n", 32, 2, AT_MOST, id="a limit of steps"),
        pytest.param("  data.train_per_task: null\n", 8, 1, AT_MOST, id="no cap: rows"),
    ],
)
def test_work_is_bounded_before_the_data_are_prepared(
    zsg: Zsg, data: Path, more: str, examples_: int | None, steps: int | None, how: str
) -> None:
    """From the task lists, the caps and the limits; where there is no cap by the rows."""
    profile(zsg)
    [run], made = estimates(grid(zsg, data, more), zsg.folder)
    work = made.of(run).work

    assert (work.examples, work.steps, work.examples_are, work.tokens_are) == (
        examples_,
        steps,
        how,
        how,
    )
    assert (work.train and work.train.tokens) == (examples_ and examples_ * 1024)
    assert made.of(run).gpu_hours is not None


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """All data are too large to be counted by a plan."""
    monkeypatch.setattr(row_counts, "MOST_BYTES", 0)


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize(
    ("more", "examples_", "steps", "how"),
    [
        pytest.param("", None, None, UNKNOWN, id="nothing bounds it"),
        pytest.param("  train.steps: 2\n", 32, 2, AT_MOST, id="a limit of steps"),
    ],
)
def test_work_on_large_data_without_a_cap_is_unknown(
    zsg: Zsg, data: Path, more: str, examples_: int | None, steps: int | None, how: str
) -> None:
    """Unless a limit of steps bounds it."""
    profile(zsg)
    more = f"  data.train_per_task: null\n{more}"
    [run], made = estimates(grid(zsg, data, more), zsg.folder)
    work = made.of(run).work

    assert (work.examples, work.steps, work.examples_are) == (examples_, steps, how)
    assert (made.of(run).gpu_hours is None) == (examples_ is None)


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize(
    ("more", "kept", "each_gb", "said"),
    [
        pytest.param("", 0, 13.477, None, id="none"),
        pytest.param(
            "  checkpoints.snapshots: 2\n",
            2,
            13.477,
            "13.5 GB each, at most 2 of a run at once, 27.0 GB for all",
            id="all weights in bf16",
        ),
        pytest.param(
            "  checkpoints: {snapshots: 1, keep: last}\n",
            2,
            13.477,
            "at most 2 of",
            id="one comes and goes",
        ),
        pytest.param(
            "  checkpoints.snapshots: 1\n  train.tuning: {method: lora}\n",
            3,
            0.017,
            "0.0168 GB each",
            id="adapters",
        ),
        pytest.param(
            "  checkpoints.snapshots: 1\n  data.train_per_task: null\n",
            None,
            13.477,
            "many is unknown",
            id="no cap",
        ),
    ],
)
def test_a_plan_says_what_snapshots_take(
    zsg: Zsg, data: Path, more: str, kept: int | None, each_gb: float, said: str | None
) -> None:
    """The most that are on disk at once by the schedule and the rule, the size of one,
    and of all runs together."""
    profile(zsg)
    [run], made = estimates(grid(zsg, data, more), zsg.folder)
    one = made.of(run).as_json
    words = " ".join(describe_assumptions([made.of(run)], 1))

    assert (one["snapshots"], one["snapshot_gb"]) == (kept, each_gb)
    assert one["snapshots_gb"] == (
        None if kept is None else pytest.approx(kept * each_gb, rel=0.02)
    )
    assert said in words if said else "snapshots" not in words


def test_in_fp32_there_are_no_gpu_hours(zsg: Zsg, data: Path) -> None:
    """The profile states the peak of bf16, which fp32 is far from."""
    profile(zsg, stage=3, ranks=8)
    [run], made = estimates(grid(zsg, data, "  train.precision: fp32\n"), zsg.folder)

    assert made.of(run).gpu_hours is None
    assert 0 in made.of(run).tensors_gb


def test_a_line_sums_what_would_be_submitted(zsg: Zsg, data: Path) -> None:
    """Runs of one model and size share a line with the span of their steps; only acting
    ones are summed."""
    profile(zsg)
    runs, made = estimates(
        grid(zsg, data, axes="{data.fraction: [1, 1/2], seed: [0, 1]}"), zsg.folder
    )
    [line] = build_lines((made.of(run), number < 3) for number, run in enumerate(runs))

    hours = [made.of(run).gpu_hours for run in runs]
    assert line.steps == (2, 3)
    assert line.acting == 3
    assert line.total_gpu_hours == pytest.approx(
        sum(hour for hour in hours[:3] if hour)
    )


@pytest.mark.soak(part="models")
def test_a_run_counts_what_later_plans_say(zsg: Zsg, tmp_path: Path) -> None:
    """Once a run has started its examples and tokens are exact, for it and for runs like it."""
    data = write_niv2(
        tmp_path / "few",
        {"task001_a": task(5), "task002_b": task(4), "task900_c": task(3)},
    )
    head = (
        f"name: g\nprofile: local\ndefaults:\n  data: {{path: {data}, sampling: first}}\n "
        " model.hidden: 8\n"
    )
    head += "  train: {batch: 2, max_length: 512, precision: fp32}\n  arrangement.order: cluster\n"
    first = zsg.write("first.yaml", head + "grid: {model.layers: [1]}\n")
    zsg("submit", first)
    later = zsg.write(
        "later.yaml",
        head + "grid: [{model.layers: [1]}, {model.layers: [1], train.steps: [2]}]\n",
    )
    opened = workflow.open_grid(later, None, zsg.work)
    made = Estimates(opened.site.workspace, opened.site.profile, opened.runs)
    whole, part = (made.of(run).work for run in opened.runs)

    [told] = (
        row["data"]["tokens"]
        for row in plain_rows(opened.site.workspace.run(opened.runs[0].id))
        if row["data"].get("event") == "start"
    )
    assert (whole.examples, whole.examples_are, whole.tokens_are) == (
        9,
        COUNTED,
        COUNTED,
    )
    assert whole.train and whole.test and part.train
    assert (whole.train.tokens, whole.train.squares) == (
        told["train"]["sum"],
        told["train"]["squares"],
    )
    assert whole.test.tokens == told["test"]["sum"]
    assert 9 * 9 < whole.train.tokens < 9 * 512
    assert whole.train.tokens**2 / 9 <= whole.train.squares < whole.train.tokens**2
    assert (part.examples, part.tokens_are) == (4, MEAN)
    assert part.train.tokens == pytest.approx(whole.train.tokens * 4 / 9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "gpu: {name: A, memory_gb: 80, tflops: 312}",
            "slurm.gpus_per_node is 0",
            id="no GPU asked for",
        ),
        pytest.param(
            "gpu: {name: A, memory_gb: 80, tflops: 312, mfuu: 1}",
            "Did you mean 'mfu'",
            id="a misspelt key",
        ),
        pytest.param(
            "gpu: {name: A, memory_gb: 80}",
            "gpu.tflops is missing",
            id="a missing peak",
        ),
        pytest.param(
            "gpu: {name: A, memory_gb: 80, tflops: 312, mfu: 40}",
            "gpu.mfu",
            id="a share beyond 1",
        ),
        pytest.param(
            "gpu: {name: A, memory_gb: 0, tflops: 312}", "gpu.memory_gb", id="no memory"
        ),
    ],
)
def test_a_mistake_in_the_gpus_is_told_with_its_line(
    text: str, said: str, tmp_path: Path
) -> None:
    """A profile whose `gpu` block is wrong, or is not honoured, is refused with file and line."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: a\nkind: slurm\n{text}\n")

    with pytest.raises(UserError, match=r"mine\.yaml:3: ") as error:
        profiles.load_profile(str(path), tmp_path)
    assert said in str(error.value)
