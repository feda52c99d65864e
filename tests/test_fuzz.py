"""Does every reader meet changed files with the declared error or the right rows, in
bounded memory and time?

A few files of each in the suite, ten thousand in `make soak`. A fault names the file's
number and where it is kept.
"""

import contextlib
import gzip
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute  # so that no child loads it again
import pyarrow.parquet as parquet
import pytest

from jobs.contract import folder as folders
from jobs.contract import journal
from launcher.clusters import accounting, cluster, profiles, sbatch_options, slurm
from launcher.grids import grid, model_folder, overrides
from launcher.planning import accounting_limits
from launcher.workspace.ledger import Ledger
from tests.lib import fuzz
from tests.lib.builders import task, write_niv2
from tests.lib.model_folders import write_llama
from zsg_core.data import instructions, readers
from zsg_core.data.examples import Example
from zsg_core.data.readers import FORMATS, keyed, niv2, tags, wrong_format
from zsg_core.data.readers.intake import Intake
from zsg_core.errors import UserError, ZsgError
from zsg_core.metrics import external_scores, mt_bench

FEW, MANY = 40, 10_000

ALPACA = [
    {
        "instruction": f"q {n}",
        "input": "x" * n,
        "output": f"a {n}",
        "history": [["u", "v"]],
    }
    for n in range(4)
]
TALK = [
    {
        "conversations": [
            {"from": "human", "value": f"q {n}"},
            {"from": "gpt", "value": "a"},
        ],
        "system": "s",
    }
    for n in range(3)
]
FLAN = [
    {"id": n, "source": f"t{n}", "conversations": TALK[0]["conversations"]}
    for n in range(3)
]
MESSAGES = [
    {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "weight": 1},
        ],
        "category": "c",
    },
]
P3 = [
    {
        "inputs_pretokenized": "q",
        "targets_pretokenized": "yes",
        "answer_choices": ["yes", "no"],
        "task": "t",
    }
] * 2
PAIRS = [{"question": "q", "answer": "a #### 1"}, {"query": "q", "response": "a"}]
SEEDS = [
    {"instruction": "i", "instances": [{"input": "x", "output": "y"}, {"output": "z"}]}
]
CODE = [
    {
        "task_id": "H/0",
        "prompt": "p",
        "entry_point": "f",
        "canonical_solution": "s",
        "test": "t",
    }
]
BENCH = [{"question_id": 81, "category": "math", "turns": ["a", "b"]}]
PROMPT = {
    "type": "single",
    "system_prompt": "s",
    "prompt_template": "{question}",
    "description": "d",
    "category": "g",
    "output_format": "[[r]]",
}
SCORES = [
    {
        "schema": 1,
        "run": "r",
        "step": 1,
        "suite": "mt_bench",
        "id": "i",
        "metric": "m",
        "score": 1.5,
    }
]
ROW = {
    "seq": 0,
    "ts": 1,
    "attempt": 1,
    "stage": "1",
    "step": 2,
    "examples": 3,
    "kind": "metric",
    "data": {"loss": 1.0},
}

LEDGER = [
    {
        "event": "intent",
        "submission": "a",
        "ts": 1,
        "scheduler": "slurm",
        "kind": "train",
        "grid": "g",
        "created": 1,
        "items": ["runs/x", "runs/y"],
        "host": "h",
        "chain": 1,
    },
    {"event": "submitted", "submission": "a", "ts": 2, "ids": ["7_0", "7_1"]},
    {"event": "cancelled", "submission": "a", "ts": 3, "items": ["runs/x"]},
]

GRID = """name: g
profile: local
defaults: &all
  model: {name: tiny, hidden: 32, layers: 1, heads: 2, vocab: 400}
  data: {set: niv2, path: tasks, train_per_task: 5, fraction: 1/4}
  train: {batch: 16, lr: 1e-3, max_length: 64, betas: [0.9, 0.95], precision: fp32}
  checkpoints: {every: "1-50:1, 50-:10", metrics: [loss], quick: {items: 3, full_every: 100}}
  stages: [{train: {lr: 1e-5}}, {data: {fraction: 1/2}}]
grid:
  - {arrangement.order: [nft, rt, fft], data.sample_seed: [0, 1]}
  - {zip: {seed: [1, 2], train.epochs: [1, 2]}}
exclude: [{arrangement.order: fft, data.sample_seed: 1}]
claims:
  - {claim: rises, of: area, along: arrangement.order, values: [nft, rt, fft], by: 0.01}
"""
PROFILE = """name: p
kind: slurm
workspace: w
gpu: {name: A100, memory_gb: 80, tflops: 312, mfu: 0.4}
slurm: {partition: a, gpus_per_node: 8, max_continues: 4, mem_gb: 3, sbatch: {comment: x}, srun_args: [--mpi=none]}
train: {nodes: 2, ranks_per_node: 8, time_min: 90}
environment: {keep: [HOME], set: {A: b}}
setup: ["module load x"]
"""


@dataclass(frozen=True)
class Target:
    """A reader, what its file is called, good files, and what it may raise."""

    file: str
    corpus: list[bytes]
    read: Callable[[Path], Any]
    declared: tuple[type[BaseException], ...] = (UserError,)
    prepare: Callable[[Path], Any] = field(default=lambda folder: None)


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def array(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, indent=1).encode()


def examples(name: str, count: int = 2000) -> Callable[[Path], str | None]:
    """Reads a file as the reader of a name; says what is wrong with the examples."""

    def read(path: Path) -> str | None:
        seen: set[str] = set()
        for one in itertools.islice(
            FORMATS[name].read(path, Intake(skip=path.stat().st_size % 2 == 0)), count
        ):
            if not isinstance(one, Example) or one.id in seen or not one.turns:
                return f"no example, or one of an id that was there: {one!r}"
            if not all(isinstance(text, str) for turn in one.turns for text in turn):
                return f"a turn that is no text: {one!r}"
            seen.add(one.id)
        return None

    return read


def alpaca(path: Path) -> str | None:
    """As `examples`; and where the standard library reads every line, the answers are
    those that it finds."""
    made = [one.answer for one in FORMATS["alpaca"].read(path, Intake())]
    with contextlib.suppress(ValueError, KeyError, TypeError):
        wanted = [
            json.loads(line)["output"]
            for line in path.read_bytes().split(b"\n")
            if line.strip()
        ]
        if path.read_bytes()[:1] == b"{" and made != wanted:
            return f"other rows than json reads: {made[:3]!r} for {wanted[:3]!r}"
    return None


def hugging_face(path: Path) -> str | None:
    """As `examples`; and where pyarrow reads the table whole, the answers are those of its rows."""
    wrong = examples("huggingface")(path)
    if wrong:
        return wrong
    with contextlib.suppress(Exception):
        table = (
            parquet.ParquetFile(path).read()
            if path.suffix == ".parquet"
            else pa.ipc.open_stream(path).read_all()
        )
        if len(table) > 2000:
            return None
        table.validate(full=True)
        made = [one.answer for one in FORMATS["huggingface"].read(path, Intake())]
        if (
            "output" in table.column_names
            and made != table.column("output").to_pylist()
        ):
            return "other rows than pyarrow reads"
    return None


OWN_FIELDS = {
    "pairs": {"prompt": ("q",), "answer": "a", "task": "of.c", "id": "i"},
    "choices": {"prompt": ("q", "x"), "answer": "a", "choices": "n", "tags": "t"},
    "messages": {"messages": "m", "system": "s", "roles": (("bot", "assistant"),)},
    "text": {"text": "q"},
    "scored": {
        "ask": "{{{q}}} {n}?",
        "answer": "a",
        "choices": "n",
        "choice_scores": "v",
        "task": "s",
        "task_else": "other",
    },
    "entities": {
        "ask": "Name them: {of.w}",
        "words": "of.w",
        "word_tags": "of.t",
        "labels": ("O", "B-X", "I-X"),
        "id": "i",
    },
    "classes": {"prompt": ("q",), "answer": "k", "labels_in_file": True},
}
OWN = [
    {"q": "q", "a": "a", "of": {"c": "sums"}, "i": 1, "n": ["a", "b"], "t": ["x"]},
    {"q": "r", "a": 1, "of": {"c": "words"}, "i": 2, "x": "more", "n": ["a", "b"]},
]
OWN_SCORED = [
    {"q": "q", "a": ["a"], "n": ["a", "b"], "v": [0, 1], "s": "sums"},
    {"q": "r", "a": ["a", "c"], "n": [], "v": [], "s": None},
]
OWN_WORDS = [
    {"of": [{"w": ["Ann", "Lee"], "t": [1, 2]}, {"w": ["a"], "t": ["O"]}], "i": "d"},
    {"of": {"w": ["Ann", "went"], "t": [1, 0]}, "i": "e"},
]
# rows in the layouts of published sets, which are looked at for which they are
OWN_LAYOUTS = [
    {"translation": {"en": "q", "is": "a"}},
    {"id": 1, "sentence_eng": "q", "sentence_isl": "a"},
    {"question": "q", "answer": ["a"]},
]
OWN_TALK = [
    {"m": [{"from": "user", "value": "q"}, {"from": "bot", "value": "a"}], "s": "k"},
    {"m": ["q", "a", "r", "b"], "s": None},
]


def own_rows(fields: str) -> Callable[[Path], str | None]:
    """As `examples`, by the fields of a name; where the standard library reads every
    line, and each is an example, what is asked is what it finds. Data that are of no
    format are described without any error."""
    recipe = OWN_FIELDS[fields]

    def read(path: Path) -> str | None:
        wrong_format.describe("records", path, recipe)
        wrong_format.describe("alpaca", path)
        intake = Intake(skip=path.stat().st_size % 2 == 0)
        found = list(itertools.islice(_read_own(path, recipe, intake), 2000))
        if len({one.id for one in found}) < len(found):
            return "an id stands twice"
        texts = [text for one in found for turn in one.turns for text in turn]
        if not all(isinstance(text, str) for text in texts):
            return f"a turn that is no text: {texts!r}"
        asked = [one.input for one in found]
        if fields == "pairs" and path.suffix == ".jsonl" and not intake.skipped:
            return _compare_with_json(path, asked)
        return None

    return read


def described(path: Path) -> None:
    """Data of whatever layout are told what they are without any error."""
    wrong_format.describe("alpaca", path)


def _read_own(path: Path, recipe: dict[str, Any], intake: Intake) -> Iterator[Example]:
    return readers.choose_format("records", recipe).read(path, intake)


def _compare_with_json(path: Path, asked: list[str]) -> str | None:
    """What is wrong with the questions that were read of JSON lines."""
    rows = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    with contextlib.suppress(ValueError, KeyError, TypeError):
        wanted = [json.loads(row)["q"] for row in rows]
        if all(isinstance(text, str) for text in wanted) and wanted != asked:
            return f"other rows than json reads: {asked[:3]!r} for {wanted[:3]!r}"
    return None


def own_tables() -> list[bytes]:
    """Parquet files of rows of somebody's own."""
    found = []
    for codec in ("zstd", "none"):
        held = io.BytesIO()
        table = pa.Table.from_pylist([OWN[0]] * 5)
        parquet.write_table(table, held, compression=codec)
        found.append(held.getvalue())
    return found


def class_tables() -> list[bytes]:
    """A Parquet file of classes whose names stand in it."""
    feature = {"feature": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    told = {"info": {"features": {"k": {**feature, "_type": "List"}}}}
    table = pa.Table.from_pylist([{"q": "q", "k": 1}, {"q": "r", "k": 0}])
    metadata = {b"huggingface": json.dumps(told).encode()}
    held = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata(metadata), held)
    return [held.getvalue()]


def zstandard(text: bytes) -> bytes:
    return pa.compress(text, codec="zstd", asbytes=True)


def parquets() -> list[bytes]:
    found = []
    talk = pa.Table.from_pylist(TALK * 5)
    flat = pa.Table.from_pylist(
        [{"instruction": "q", "output": "a" * n} for n in range(30)]
    )
    coded = pa.table(
        {
            "instruction": ["q"] * 9,
            "output": pa.array(["a", "b", "c"] * 3).dictionary_encode(),
        }
    )
    for table in (talk, flat, coded):
        for options in (
            {"compression": "zstd"},
            {"compression": "none", "use_dictionary": False},
            {"compression": "snappy", "data_page_version": "2.0", "row_group_size": 4},
        ):
            held = io.BytesIO()
            parquet.write_table(table, held, **options)
            found.append(held.getvalue())
    return found


def streams() -> list[bytes]:
    found = []
    talk, coded = (
        pa.Table.from_pylist(TALK),
        pa.array(["a", "b", "a"]).dictionary_encode(),
    )
    for table in (talk, pa.table({"instruction": ["q"] * 3, "output": coded})):
        for compression in (None, "zstd", "lz4"):
            held = io.BytesIO()
            options = pa.ipc.IpcWriteOptions(compression=compression)
            with pa.ipc.new_stream(held, table.schema, options=options) as to:
                to.write_table(table, max_chunksize=2)
            found.append(held.getvalue())
    return found


def llama(name: str) -> Target:
    """A file of a model's folder that is whole but for it."""

    def read(path: Path) -> None:
        model_folder.check_decoder(path.parent)
        model_folder.check_length("train.max_length", 64, path.parent)
        model_folder.find_notes(path.parent)

    return Target(name, [], read, prepare=lambda folder: write_llama(folder))


def ledger(path: Path) -> None:
    Ledger(folders.Workspace(path.parent)).by_item()


def told_by_slurm(path: Path) -> None:
    text = path.read_bytes().decode(errors="replace")
    slurm.parse_squeue(text), slurm.parse_sacct(text), slurm.parse_nodes(text, 0.0)
    (
        cluster.parse_config(text),
        cluster.parse_partitions(text),
        cluster.parse_nodes(text),
        accounting.split_records(text),
        accounting.parse_qos_usage(text),
        accounting.parse_table(text, accounting.USER_COLUMNS),
        sbatch_options.parse_help(text),
    )
    for line in text.splitlines()[:50]:
        (
            slurm._tasks(line),
            cluster.parse_minutes(line),
            cluster.parse_tres(line),
            accounting_limits.read_wall(line),
            cluster.parse_gpus(line),
        )


SLURM = [
    b"12_3|RUNNING|None|1-02:03:04|n1|n[1-3]|0|zsg-g-train-a\n12_[4-9%2]|PENDING|Priority|0:00|||0|x\n",
    b"12|COMPLETED|0:0|2026-01-31T10:00:00|0|x\n12_[0-2,5-9:2%3]\nn[01-03,7],m3\n",
    (
        b"MaxArraySize = 1001\nMaxJobCount=10000\nPartitionName=a Default=YES MaxTime=1-00:00:00"
        b" TRES=cpu=4,gres/gpu:a=8\n"
    ),
]

TARGETS: dict[str, Target] = {
    "alpaca lines": Target("x.jsonl", [lines(ALPACA)], alpaca),
    "alpaca array": Target(
        "x.json", [array(ALPACA), lines(ALPACA)], examples("alpaca")
    ),
    "alpaca gzipped": Target(
        "x.jsonl.gz", [gzip.compress(lines(ALPACA), 1, mtime=0)], examples("alpaca")
    ),
    "records lines": Target("x.jsonl", [lines(OWN)], own_rows("pairs")),
    "records array": Target("x.json", [array(OWN)], own_rows("choices")),
    "records messages": Target("x.jsonl", [lines(OWN_TALK)], own_rows("messages")),
    "records text": Target("x.tsv", [b"q\ti\nq1\t1\nq2\t2\n"], own_rows("text")),
    "records table": Target(
        "x.csv", [b'q,a,x,t,n\n"a ""b""\nc",d,e,f,\n'], own_rows("text")
    ),
    "records scored": Target("x.jsonl", [lines(OWN_SCORED)], own_rows("scored")),
    "records entities": Target("x.json", [array(OWN_WORDS)], own_rows("entities")),
    "records layouts": Target("x.jsonl", [lines(OWN_LAYOUTS)], described),
    "records classes": Target("x.parquet", class_tables(), own_rows("classes")),
    "records parquet": Target("x.parquet", own_tables(), own_rows("choices")),
    "records gzipped": Target(
        "x.jsonl.gz", [gzip.compress(lines(OWN), 1, mtime=0)], own_rows("pairs")
    ),
    "records by zstandard": Target(
        "x.jsonl.zst", [zstandard(lines(OWN))], own_rows("pairs")
    ),
    "self_instruct": Target("x.jsonl", [lines(SEEDS)], examples("self_instruct")),
    "sharegpt": Target("x.json", [array(TALK), lines(TALK)], examples("sharegpt")),
    "flan_mini": Target("x.json", [array(FLAN)], examples("flan_mini")),
    "messages": Target("x.jsonl", [lines(MESSAGES)], examples("messages")),
    "delia": Target("x.jsonl", [lines(MESSAGES)], examples("delia")),
    "p3": Target("x.jsonl", [lines(P3)], examples("p3")),
    "gsm8k": Target("x.jsonl", [lines(PAIRS)], examples("gsm8k")),
    "tell": Target("x.jsonl", [lines(PAIRS[1:])], examples("tell")),
    "humaneval": Target("x.jsonl", [lines(CODE)], examples("humaneval")),
    "mt_bench": Target("x.jsonl", [lines(BENCH)], examples("mt_bench")),
    "niv2": Target("x.json", [json.dumps(task(3)).encode()], examples("niv2")),
    "niv2_csv": Target(
        "x.csv", [b'input,output\n"a ""b""\nc",d\ne,f\n'], examples("niv2_csv")
    ),
    "cot_tsv": Target(
        "x_train.tsv", [b"q\ta\tr\nq2\ta2\tr\\n2\n"], examples("cot_tsv")
    ),
    "parquet": Target("x.parquet", parquets(), hugging_face),
    "arrow": Target("x.arrow", streams(), hugging_face),
    "state of save_to_disk": Target(
        "state.json",
        [b'{"_data_files": [{"filename": "a.arrow"}], "_split": "train"}'],
        lambda path: list(FORMATS["huggingface"].files(path.parent)),
        prepare=lambda folder: (folder / "a.arrow").write_bytes(b""),
    ),
    "tasks of niv2": Target(
        niv2.SPLITS["train"],
        [b"task1\ntask2\n"],
        lambda path: niv2.read_lists(path.parents[2]),
        prepare=lambda folder: (folder / "tasks").is_dir() or write_niv2(folder),
    ),
    "list of keys": Target(
        keyed.KEY_LIST,
        [b'{"train_key_list": ["a", "b"], "eval_key_list": ["c"]}'],
        lambda path: keyed.read_lists(path.parent),
    ),
    "tags": Target(
        "x.jsonl",
        [b'{"id": "a", "tags": ["x", {"tag": "y"}]}\n{"id": "b", "tags": []}\n'],
        lambda path: tags.read_tags(path, ["a", "b"]),
    ),
    "wordings": Target(
        "x.json", [b'["Say it.", "Tell it."]'], instructions.read_wordings
    ),
    "scores": Target("x.jsonl", [lines(SCORES)], external_scores.read_scores),
    "judge prompts": Target(
        "x.jsonl",
        [lines([PROMPT | {"name": name} for name in mt_bench.NAMES.values()])],
        mt_bench.read_judge_prompts,
    ),
    "grid": Target("grid.yaml", [GRID.encode()], grid.load_grid),
    "profile": Target(
        "p.yaml",
        [PROFILE.encode()],
        lambda path: profiles.load_profile(str(path), path.parent),
    ),
    "settings of the command line": Target(
        "x",
        [b"train.lr=1e-3", b"data={path: x, fraction: 1/4}", b"seed=2"],
        lambda path: overrides.parse_overrides(
            [path.read_bytes().decode(errors="replace")]
        ),
    ),
    **{
        name: llama(name)
        for name in (
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "model.safetensors",
        )
    },
    "record of a job": Target(
        "exit.json",
        [json.dumps({"attempt": 1, "outcome": "done", "step": 3}).encode()],
        folders.read_json,
        (ZsgError,),
    ),
    "journal": Target(
        "1-train-0.jsonl",
        [lines([ROW, ROW])],
        lambda path: list(journal.read_file(path)),
        (ZsgError,),
    ),
    "ledger": Target(
        "ledger.jsonl",
        [lines(LEDGER)],
        ledger,
        (ZsgError,),
    ),
    "what Slurm says": Target("x", SLURM, told_by_slurm, (ZsgError,)),
}
SLOW = {"grid": 4, "profile": 2}  # times slower: so many times fewer in the suite


def told(folder: Path, name: str, numbers: range) -> str:
    """The faults of a reader, in words; empty without any."""
    target = TARGETS[name]
    target.prepare(folder)
    (folder / target.file).parent.mkdir(parents=True, exist_ok=True)
    corpus = target.corpus or [(folder / target.file).read_bytes()]
    found = fuzz.faults(
        folder, target.file, corpus, target.read, target.declared, numbers
    )
    return "\n".join(
        f"file {one.number} of {name}, kept as {one.kept}: {one.what}" for one in found
    )


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_changed_files_of_each_reader(tmp_path: Path, name: str) -> None:
    """The declared error or the right rows; the good files themselves are read."""
    target = TARGETS[name]
    target.prepare(tmp_path)
    (tmp_path / target.file).parent.mkdir(parents=True, exist_ok=True)
    for good in target.corpus:
        (tmp_path / target.file).write_bytes(good)
        assert not isinstance(target.read(tmp_path / target.file), str)

    assert told(tmp_path, name, range(FEW // SLOW.get(name, 1))) == ""


@pytest.mark.soak(part="trials")
@pytest.mark.parametrize("name", TARGETS)
def test_ten_thousand_changed_files_of_each_reader(tmp_path: Path, name: str) -> None:
    """The declared error or the right rows, each within three gigabytes and twenty seconds."""
    assert (
        told(tmp_path, name, range(FEW, FEW + int(os.environ.get("ZSG_FUZZED", MANY))))
        == ""
    )
