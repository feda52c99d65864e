"""Does any text from outside reach a terminal, a page or a CSV as it is?

A text that escapes, turns, hides, forges, links and computes is planted into every
field that grids, profiles, data, model folders, judges, logs and Slurm can fill.
Commands are driven in this process, and all they print and write is read for what must
not be there.
"""

import ast
import csv
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet as pq

from benchmarks.report import listed_run, record_run, write_grid
from jobs.contract import attempt as attempts
from jobs.contract.folder import NOTES, Workspace, write_json
from jobs.contract.journal import Journal
from jobs.contract.journal_rows import AnswersKept
from jobs.runtime import log_marks
from launcher import cli
from launcher.grids import json_schema
from launcher.views import asking, show
from launcher.workspace.ledger import Ledger
from tests.lib import model_folders
from tests.lib.builders import write_niv2
from tests.lib.command_line import Zsg

FORGED = "error: all is well"
POISON = (
    "\x1b[8mhidden\x1b]0;title\x07\x9b8m\x00\r\x08\x7f\u202e\u2066\u200b\u3164\U000e0041"
    " </script><script>alert(1)</script> [bold]m[/bold] [link=http://x]y[/link] :smile: =1+1;=2+2"
    f" $x_1$ \u2028\x85\n{FORGED}\n"
)
SEEN = r"\x1b[8mhidden\x1b]0;title\x07\x9b8m\x00"  # how it begins where it is shown
BLANKS = "\u00a0\u202f\u3000"
COMPUTED = re.compile(r"\s*[=+\-@](?!\d+\.?\d*(e-?\d+)?$)")
REPOSITORY = Path(__file__).resolve().parents[1]

Command = Callable[..., str]


def unsafe(text: str) -> set[str]:
    """The characters of a text that a terminal or a page would obey, or that nobody sees."""
    return {
        one for one in text if not (one.isprintable() or one in f"\n\t{BLANKS}")
    } | {"\u3164"} & set(text)


@pytest.fixture
def zsg_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """`zsg …` in this process: all that it prints, after a look that nothing of it is
    obeyed or forged."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def call(*argv: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["zsg", *map(str, argv)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed, said = capfd.readouterr()
        assert ended.value.code in (None, 0, 2, 3), said
        for text in (printed, said):
            assert not unsafe(text), (argv, unsafe(text), text)
            assert "😄" not in text
            assert argv[0] == "logs" or not re.search(
                rf"^{FORGED}", text, flags=re.M
            ), text
        return printed + said

    return call


def fields(
    schema: Mapping[str, Any],
    node: Mapping[str, Any],
    place: tuple[str | int, ...] = (),
) -> Iterator[Any]:
    """The places of a JSON Schema where a text may stand."""
    if "$ref" in node:
        target: Any = schema
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        yield from fields(schema, target, place)
    for kind in ("anyOf", "oneOf", "allOf"):
        for one in node.get(kind, ()):
            yield from fields(schema, one, place)
    if node.get("type") == "string" or "enum" in node or "const" in node:
        yield place
    for key, value in node.get("properties", {}).items():
        yield from fields(schema, value, (*place, key))
    for name, more in (
        ("NAME", node.get("additionalProperties")),
        (0, node.get("items")),
    ):
        if isinstance(more, dict):
            yield from fields(schema, more, (*place, name))


def nested(place: tuple[str | int, ...], value: Any) -> Any:
    """A value at a place of mappings and lists that hold nothing else."""
    for part in reversed(place):
        value = [value] if part == 0 else {part: value}
    return value


def merged(one: Any, other: Any) -> Any:
    """A mapping with the values of another laid over it."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return other
    return {**one, **{key: merged(one.get(key), value) for key, value in other.items()}}


GRID = {
    "name": "g",
    "profile": "local",
    "defaults": {"data": {"path": "tasks"}, "train": {"steps": 2}},
}
OF_GRID = [
    place
    for place in dict.fromkeys(
        fields(json_schema.make_grid_schema(), json_schema.make_grid_schema())
    )
    if place[0] != "grid"
]
OF_PROFILE = list(
    dict.fromkeys(
        fields(json_schema.make_profile_schema(), json_schema.make_profile_schema())
    )
)


def some(places: list[tuple[str | int, ...]]) -> list[tuple[str | int, ...]]:
    """One place of each name, within the defaults, of those outside at the top."""
    near = [place for place in places if place[0] == "defaults" or len(place) <= 3]
    return list(
        {place[-2:] if place[-1] == 0 else place[-1]: place for place in near}.values()
    )


def plan_of(zsg: Command, folder: Path, place: tuple[str | int, ...]) -> str:
    """What plan says to a grid, or of a profile, with the poison at a place."""
    if place[0] == "profile of":
        profile = merged({"name": "p", "kind": "slurm"}, nested(place[1:], POISON))
        (folder / "p.yaml").write_text(json.dumps(profile))
        return zsg("plan", "grid.yaml", "--profile", "p.yaml")
    (folder / "odd.yaml").write_text(json.dumps(merged(GRID, nested(place, POISON))))
    return zsg("plan", "odd.yaml")


PROFILE_FIELDS = [
    ("profile of", *place)
    for place in (*OF_PROFILE, ("environment", "set", "X"), ("slurm", "sbatch", "x"))
]


@pytest.mark.parametrize(
    "places", [some(OF_GRID), PROFILE_FIELDS], ids=["grid", "profile"]
)
def test_no_text_of_a_grid_or_a_profile_is_obeyed(
    zsg_here: Command, tmp_path: Path, places: list[Any]
) -> None:
    """The poison at every place where a text may stand, as a key, and as the file's
    name: shown, or refused."""
    write_niv2(tmp_path / "tasks")
    (tmp_path / "grid.yaml").write_text(json.dumps(GRID))
    told = [
        plan_of(zsg_here, tmp_path, place) for place in places[:: 1 + len(places) // 40]
    ]

    assert sum(SEEN in one for one in told) > len(told) / 2
    for odd in (
        {POISON: 1},
        {**GRID, POISON: 1},
        {**GRID, "grid": {POISON: [1]}},
        {**GRID, "grid": {"seed": [POISON]}},
    ):
        (tmp_path / "odd.yaml").write_text(json.dumps(odd))
        assert SEEN in zsg_here("plan", "odd.yaml")


@pytest.mark.soak(part="users")
def test_no_text_at_any_depth_of_a_grid_is_obeyed(
    zsg_here: Command, tmp_path: Path
) -> None:
    """All of the places, those within axes and stages too."""
    write_niv2(tmp_path / "tasks")
    for place in dict.fromkeys(
        fields(json_schema.make_grid_schema(), json_schema.make_grid_schema())
    ):
        plan_of(zsg_here, tmp_path, place)


def test_a_terminal_gets_no_colour_and_no_order_but_the_consoles_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In tables, lines and cells that forget it, with colours on: nothing of a text is
    markup, escape or picture."""
    console = show.ShowingConsole(
        file=io.StringIO(), force_terminal=True, width=400, _environ={"TERM": "xterm"}
    )
    monkeypatch.setattr(show, "_out", console)
    monkeypatch.setattr(show, "_err", console)
    row = {
        "run": POISON,
        "grid": POISON,
        "state": "failed",
        "axes": {POISON: POISON},
        "slurm": POISON,
        "wanted": True,
    }
    row |= {
        "step": 3,
        "steps": 9,
        "attempt": 1,
        "loss": 1.0,
        "cause": POISON,
        "evidence": POISON,
        "reason": POISON,
    }
    row |= {"eta_s": None, "gpus": None, "heartbeat_s": 3.0, "tokens_per_s": None}
    row |= {
        "rank": 0,
        "file": POISON,
        "line": 1,
        "silent": None,
        "signature": POISON,
        "next": POISON,
        "flag": None,
    }
    show.print_status([row, {**row, "axes": {POISON: ":smile:"}}], whole=True)
    show.print_status([row] * 300)
    show.print_why(row)
    show.print_causes([{**row, "count": 1, "runs": [POISON]}])
    show.print_message(POISON)
    console.file.write(show._render_line([(POISON, "")], 9999))
    assert not re.search(rf"^{FORGED}", console.file.getvalue(), flags=re.M)  # type: ignore[attr-defined]
    console.print(POISON)  # by whoever forgets

    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert not unsafe(re.sub(r"\x1b\[(\d+(;\d+)*)?[mHJ]", "", text))
    assert "\x1b[8m" not in text and "😄" not in text and "\x1b]8" not in text
    assert "[bold]m[/bold] [link=http://x]y[/link] :smile:" in text


def test_a_question_shows_what_is_agreed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked before a submit or a removal is showable as well."""
    asked: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(
        asking.typer, "confirm", lambda text, **_: bool(asked.append(text))
    )

    assert asking.make_consent(False)("remove \x1b[8mall\u202e?") is False
    assert asked == [r"remove \x1b[8mall\u202e?"]


PRINT = {
    "print",
    "sys.stdout.write",
    "sys.stderr.write",
    "typer.echo",
    "typer.secho",
    "typer.confirm",
    "typer.prompt",
}
MAY_PRINT = {
    "launcher/views/show.py",
    "launcher/views/asking.py",
    "jobs/runtime/job_log.py",
}
# They print JSON for the process that has started them; two counts of a data set that
# is made here; a sentence where nothing else can be imported.
PRINT_JSON = {
    "jobs/preparing/proof.py",
    "jobs/evaluating/sandbox_worker.py",
    "jobs/tracking/mlflow_sync.py",
    "jobs/training/merge_snapshot.py",
}
PRINT_OWN = {"zsg_core/linux.py", "zsg_core/skills/__main__.py"}
MAY_DRAW = {
    "launcher/views/show.py",
    "launcher/views/columns.py",
    "launcher/views/tables.py",
    "launcher/views/fitting.py",
}


def test_nothing_is_printed_but_by_the_modules_that_make_it_showable() -> None:
    """Whoever printed elsewhere, or drew with rich, would go past the function."""
    printing, drawing = set(), set()
    for package in ("zsg", "launcher", "jobs", "zsg_core"):
        for path in (REPOSITORY / package).rglob("*.py"):
            name = str(path.relative_to(REPOSITORY))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in PRINT:
                    printing.add(name)
                if (
                    isinstance(node, ast.ImportFrom)
                    and (node.module or "").split(".")[0] == "rich"
                ):
                    drawing.add(name)

    assert printing == MAY_PRINT | PRINT_JSON | PRINT_OWN
    assert drawing == MAY_DRAW


def test_what_a_setup_line_runs_is_shown(zsg_here: Command, tmp_path: Path) -> None:
    """No escape hides a command of it, and no line end in it begins a line of zsg's own."""
    write_niv2(tmp_path / "tasks")
    (tmp_path / "grid.yaml").write_text(json.dumps(GRID))
    line = f"module load x\x1b[8m; touch RAN #\x1b[28m\n{FORGED}"
    (tmp_path / "p.yaml").write_text(
        json.dumps({"name": "p", "inherits": "slurm-minimal", "setup": [line]})
    )

    assert r"module load x\x1b[8m; touch RAN #\x1b[28m" in zsg_here(
        "plan", "grid.yaml", "--profile", "p.yaml"
    )


@pytest.mark.parametrize(
    "argv",
    [
        [POISON],
        ["plan", POISON],
        ["submit", "grid.yaml", "--profile", POISON],
        ["plan", f"--{POISON}"],
        ["plan", "grid.yaml", "--set", POISON],
        ["plan", "grid.yaml", "--set", f"data.path={POISON}"],
        ["plan", "grid.yaml", "--only", POISON],
        ["plan", "grid.yaml", "--only", f"{POISON}=1"],
        ["status", POISON],
        ["status", "--state", POISON],
        ["logs", POISON],
        ["logs", "x", "--lines", POISON],
        ["why", POISON],
        ["report", POISON],
        ["export", POISON, "--out", "x"],
        ["cancel", POISON],
        ["retry", POISON],
        ["retry", "g", "--cause", POISON],
        ["gc", POISON],
        ["verify", POISON],
        ["arrange", POISON],
        ["arrange", "show", POISON],
        ["arrange", "draw", POISON, "--out", POISON],
        ["answers", "export", POISON],
        ["score", POISON],
        ["doctor", "--profile", POISON],
        ["schema", POISON],
        ["init", f"{POISON}/x"],
        ["server", "--backend", POISON],
        ["status", "--workspace", POISON],
    ],
    ids=lambda argv: " ".join(argv).replace(POISON, "POISON"),
)
def test_what_is_written_on_the_command_line_is_shown_not_obeyed(
    zsg_here: Command, tmp_path: Path, argv: list[str]
) -> None:
    """Unknown commands, options, names and values in refusals, typer's as well as zsg's."""
    argv = [one.replace("\x00", "") for one in argv]  # which no command line can hold
    (tmp_path / "grid.yaml").write_text(json.dumps(GRID))
    zsg_here(*argv)


@pytest.fixture
def odd(tmp_path: Path) -> Workspace:
    """A workspace of a grid whose values, tasks, failures, flags and logs are poison."""
    place = Workspace(tmp_path / "zsg-work")
    listed = [
        listed_run(
            f"{n:x}" * 12, {"arrangement.order": f"{POISON}{n}", "data.path": POISON}
        )
        for n in range(3)
    ]
    tasks = [POISON, POISON, f"=1{POISON}"]
    losses = np.array([[3.0, 2.0, 1.0], [2.0, 3.0, 0.5], [1.0, 1.0, 0.1]])
    ended = {"cause": POISON, "evidence": POISON, "signature": POISON}
    record_run(place, listed[0], [0, 5, 9], tasks, losses)
    record_run(place, listed[1], [0, 5, 9], tasks, losses, outcome="failed", **ended)
    write_grid(place, "g", listed, file=POISON, corpora=["c"], overrides=[POISON])
    write_json(place.corpus("c") / NOTES, [POISON])
    ledger = Ledger(place)
    here = ledger.intend(
        scheduler="local", kind="train", grid="g", items=[f"runs/{'1' * 12}"]
    )
    ledger.submitted(here, ())
    queued = ledger.intend(
        scheduler="slurm", kind="train", grid="g", items=[f"runs/{'2' * 12}"]
    )
    ledger.submitted(queued, ("7",))
    folder = place.run("1" * 12)
    journal = Journal(
        folder, attempts.begin_attempt(folder, "submission"), "evaluate", "1"
    )
    journal.add_row("metric", step=9, examples=144, data={"rouge1": 1.0})
    told = AnswersKept(
        suite=POISON, how={}, keys=[], file=POISON, at=0, bytes=0, flags=[POISON]
    )
    journal.add_event(told, step=9, examples=144)
    journal.close()
    attempt = attempts.begin_attempt(folder, here.id)
    attempts.end_attempt(folder, attempt, "failed", step=9, **ended)
    (folder / "log.txt").write_text(
        f"{log_marks.format_attempt_mark(attempt, 0, 1, 'n1')}\n{POISON}\nValueError: {POISON}\n"
    )
    return place


def assert_a_table_computes_nothing(path: Path) -> None:
    """No cell of a CSV begins a formula, and each row is one line."""
    text = path.read_text(encoding="utf-8")
    assert not unsafe(text), (path, unsafe(text))
    rows = list(csv.reader(text.splitlines()))
    assert len({len(row) for row in rows}) <= 1  # a table without rows is empty
    assert [cell for row in rows for cell in row if COMPUTED.match(cell)] == []


def test_no_text_of_a_workspace_is_obeyed(
    zsg_here: Command, odd: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs, logs and records hold is shown by every command that tells of them,
    and JSON keeps it exactly."""
    bin = tmp_path / "bin"
    bin.mkdir()
    ours = Ledger(odd).submissions
    name = next(job.name for one in ours.values() for job in one.jobs)
    line = f"7|PENDING|{POISON}|N/A|0:00|{POISON}|{os.getuid()}|{name}".replace(
        "\0", ""
    )
    (bin / "answer").write_text(line)
    for program in ("squeue", "sacct", "scontrol", "sinfo"):
        (bin / program).write_text(f"#!/bin/sh\ncat {bin}/answer\n")
        (bin / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")

    told = zsg_here("status") + zsg_here("status", "g", "--all")
    assert SEEN in told
    rows = json.loads(zsg_here("status", "g", "--json"))
    assert [row["axes"]["data.path"] for row in rows] == [POISON] * 3
    assert rows[1]["evidence"] == POISON
    assert SEEN in zsg_here("why", "1" * 12)
    assert json.loads(zsg_here("why", "1" * 12, "--json"))["evidence"] == POISON
    assert SEEN in zsg_here("why", "g")
    assert json.loads(zsg_here("why", "g", "--json"))
    assert r"\x1b]0;title\x07" in zsg_here("logs", "1" * 12, "--all")
    for argv in (
        ["why", "2" * 12],
        ["retry", "g"],
        ["retry", "g", "--only", "state=failed"],
        ["verify", "1" * 12, "--steps", "0"],
        ["verify", "0" * 12, "--steps", "0"],
        ["cancel", "g", "--yes"],
        ["answers", "export", "g"],
        ["arrange", "show", "1" * 12],
        ["doctor", "--profile", "slurm-minimal"],
    ):
        zsg_here(*argv)


@pytest.mark.engine  # needs matplotlib
def test_no_text_of_a_workspace_is_obeyed_by_a_page_or_a_spreadsheet(
    zsg_here: Command, odd: Workspace, tmp_path: Path
) -> None:
    """The report's page with its drawings has one script; its tables and those of
    export have no formula."""
    zsg_here("report", "g")
    zsg_here("export", "g", "--out", "all.csv")
    zsg_here("export", "g", "--items", "--out", "items.csv")

    page = (odd.grid("g") / "report" / "report.html").read_text(encoding="utf-8")
    assert not unsafe(page), unsafe(page)
    assert SEEN in page and page.count("<script") == 1 and "<svg" in page
    tables = sorted((odd.grid("g") / "report").glob("*.csv"))
    assert [path.name for path in tables] == ["curves.csv", "drops.csv", "finals.csv"]
    for path in (*tables, tmp_path / "all.csv", tmp_path / "items.csv"):
        assert_a_table_computes_nothing(path)


@pytest.mark.parametrize(
    "place",
    [
        "model_type",
        "architectures",
        "torch_dtype",
        "rope_scaling",
        "hidden_act",
        "index",
    ],
)
def test_no_text_of_a_model_folder_is_obeyed(
    zsg_here: Command, tmp_path: Path, place: str
) -> None:
    """Its config, the files that its index names, and tensors of an odd name."""
    write_niv2(tmp_path / "tasks")
    told = {
        "architectures": [POISON],
        "rope_scaling": {"rope_type": POISON, "factor": 2.0},
    }
    folder = tmp_path / "model"
    model_folders.write_llama(
        folder, **({} if place == "index" else {place: told.get(place, POISON)})
    )
    if place == "index":
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {POISON: POISON}})
        )
        (folder / "model.safetensors").unlink()
    grid = {
        **GRID,
        "defaults": {**GRID["defaults"], "model": {"name": "own", "path": "model"}},
    }
    (tmp_path / "grid.yaml").write_text(json.dumps(grid))

    assert SEEN in zsg_here("plan", "grid.yaml")


ODD_TASKS = [
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
    "[bold]m[/bold] :smile:",
    "-1+1\u3164",
    "$x_1$;=2+2",
]


@pytest.mark.soak(part="users")
def test_a_run_on_odd_data_is_obeyed_nowhere(zsg: Zsg) -> None:
    """Trained, reported and delivered: terminal, page, tables and MLflow show odd
    names; Parquet and JSON keep them."""
    turns = [
        {"role": "user", "content": POISON},
        {"role": "assistant", "content": f"a {POISON}"},
    ]
    rows = [
        {"messages": turns, "category": task} for task in ODD_TASKS for _ in range(4)
    ]
    (zsg.folder / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    (zsg.folder / "bad\x1b]0;T\x07\u202e\udcff.jsonl").write_text("{broken")
    defaults = {
        "model": {"name": "tiny", "hidden": 32, "layers": 1, "heads": 2, "vocab": 400},
        "data": {
            "set": "messages",
            "path": "rows.jsonl",
            "held_out": {"by": "seed", "tasks": 3},
        },
        "train": {
            "batch": 16,
            "lr": 1e-3,
            "max_length": 64,
            "precision": "fp32",
            "steps": 2,
        },
        "checkpoints": {"every": 2},
    }
    odd = [f"run {name}" for name in ODD_TASKS[:2]]
    for name in odd:
        (zsg.folder / f"{name.replace('/', '_')}.jsonl").write_text(
            (zsg.folder / "rows.jsonl").read_text()
        )
    paths = [f"{name.replace('/', '_')}.jsonl" for name in odd]
    zsg.write(
        "g.yaml",
        json.dumps({"name": "g", "defaults": defaults, "grid": {"data.path": paths}}),
    )
    bad = merged(defaults, {"data": {"path": "bad*.jsonl"}})
    zsg.write("b.yaml", json.dumps({"name": "b", "defaults": bad}))

    told = zsg("submit", "g.yaml", "--yes") + zsg.said
    told += zsg("submit", "b.yaml", "--yes", code=(2, 3)) + zsg.said
    for argv in (
        ["status"],
        ["status", "--json"],
        ["why", "g"],
        ["report", "g"],
        ["sync"],
        ["arrange", "make", "g.yaml"],
    ):
        told += zsg(*argv) + zsg.said
    runs = [row["run"] for row in zsg.status()]
    for run in runs[:2]:
        told += (
            zsg("logs", run, "--all")
            + zsg("arrange", "show", run)
            + zsg("verify", run, "--steps", "0")
            + zsg.said
        )
    zsg("export", "g", "--items", "--out", "items.csv")
    zsg("export", "g", "--items", "--out", "items.parquet")

    assert not unsafe(told), unsafe(told)
    report = zsg.work / "grids" / "g" / "report"
    page = (report / "report.html").read_text()
    assert not unsafe(page) and page.count("<script") == 1
    for path in (zsg.folder / "items.csv", *report.glob("*.csv")):
        assert_a_table_computes_nothing(path)
    tested = set(pq.read_table(zsg.folder / "items.parquet")["task"].to_pylist())
    assert len(tested) == 3 and tested <= set(ODD_TASKS)
    from tests.lib.mlflow_contents import mlflow_runs  # which takes seconds to import

    for row in mlflow_runs(zsg.work, "g"):
        assert not unsafe(
            json.dumps([row["name"], row["tags"], row["params"]], ensure_ascii=False)
        )


@pytest.mark.parametrize(
    "show_something",
    [
        lambda: show.print_block(["a", "b"]),
        lambda: show.print_result("a"),
        lambda: show.print_line("a"),
        lambda: show.print_log(["a", "b"]),
        lambda: show.print_message("a"),
        lambda: show.print_error("a"),
        lambda: show.print_bug(ValueError("a")),
        lambda: show.as_json({"a": 1}),
        lambda: show.as_json([{"a": 1}]),
        lambda: show.library_warning("a", UserWarning, "a.py", 1),
    ],
)
def test_a_program_that_calls_zsg_prints_for_itself(
    show_something: Callable[[], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """Whichever way a text is printed, it is not while a call of a program lasts."""
    show_something()
    printed = capfd.readouterr()
    assert printed.out or printed.err

    with show.silenced():
        show_something()

    assert capfd.readouterr() == ("", "")
