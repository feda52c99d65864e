"""Has what is read otherwise than by earlier versions another id, and everything else
the id that it had?"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from jobs.model import content
from launcher.grids.inputs import Inputs
from tests.lib import made_sources
from zsg_core.errors import UserError
from zsg_core.recipe import InputDigests, SourceDigests, make_recipe, records_id, run_id
from zsg_core.settings.run import Settings

# Run and records as e79a027 named them.
BEFORE = {
    "templates in files": ("fb4082111fb4", "d39cc7ac4d15"),
    "one template": ("b8f930351092", "7e7b904c9ca1"),
    "instructions": ("d70410830275", "27bfa3572823"),
    "dialogues": ("de106015d07f", "3b0dbec1e34b"),
    "a template in shards": ("d70a9f946461", "d3b99ba1bf78"),
    "templates in folders": ("d0632333c47c", "71e7e4109e05"),
    "tests in folders": ("0998d3ce353b", "27bfa3572823"),
}
READ_OTHERWISE = {"a template in shards", "templates in folders"}


def settings_of(folder: Path, data: dict[str, str]) -> Settings:
    """A run on a source below a folder."""
    placed = {
        key: str(folder / value) if key.endswith("path") else value
        for key, value in data.items()
    }
    return Settings.model_validate({"data": placed})


@pytest.mark.parametrize("name", made_sources.SOURCES)
def test_what_was_read_well_keeps_the_ids_of_e79a027(tmp_path: Path, name: str) -> None:
    """And what was not has others, so that nothing made of it then is taken for what is
    made of it now."""
    made_sources.write(tmp_path)
    wanted = settings_of(tmp_path, made_sources.SOURCES[name])
    made = make_recipe(wanted, Inputs(tmp_path / "digests.json").digest_inputs(wanted))
    run, records = BEFORE[name]

    assert (run_id(made) != run) == (name in READ_OTHERWISE | {"tests in folders"})
    assert (records_id(made["stages"][0]["data"], False) != records) == (
        name in READ_OTHERWISE
    )


JSON_FIELD = pa.field(
    "content", pa.string(), metadata={"ARROW:extension:name": "arrow.json"}
)


def table(content_field: pa.Field) -> pa.Table:
    """Two dialogues, as text in a column of some type."""
    message = pa.struct([("role", pa.string()), content_field])
    rows = [
        [{"role": "user", "content": '"q"'}, {"role": "assistant", "content": '"a"'}]
    ] * 2
    return pa.table(
        {"messages": pa.array(rows, pa.list_(message))},
        pa.schema([("messages", pa.list_(message))]),
    )


SHAPES = {
    "texts": (table(pa.field("content", pa.string())), {}),
    "values as JSON": (table(JSON_FIELD), {"json": "decoded"}),
    "a column of JSON that is not read": (
        pa.table(
            {"question": ["q"], "answer": ["a"], "meta": ["{}"]},
            pa.schema(
                [
                    ("question", pa.string()),
                    ("answer", pa.string()),
                    JSON_FIELD.with_name("meta"),
                ]
            ),
        ),
        {},
    ),
    "a template": (
        pa.table({"prompt": ["q"], "completion": ["a"]}),
        {"tasks": "templates", "template": "x_a"},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_mark_of_parquet_files_is_there_only_where_it_bites(
    tmp_path: Path, name: str
) -> None:
    """The schema tells it, which is kept beside the digest: unmarked sources have the
    recipe that they had."""
    rows, marks = SHAPES[name]
    file = tmp_path / "x_a/train-00000-of-00001.parquet"
    file.parent.mkdir()
    parquet.write_table(rows, file)
    made_sources.write(tmp_path)
    wanted = settings_of(
        tmp_path, {"set": "huggingface", "path": "x_a", **made_sources.TEST}
    )
    digests = Inputs(tmp_path / "digests.json").digest_inputs(wanted).sources[""]
    before = SourceDigests(data=digests.data, test=digests.test)

    assert digests.marks == marks
    ids = [
        run_id(make_recipe(wanted, InputDigests(sources={"": one})))
        for one in (digests, before)
    ]
    assert (ids[0] == ids[1]) == (not marks)


def test_a_schema_is_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it told is kept as long as the file stays as it is; a changed file is looked
    at again."""
    from zsg_core.data.readers import columns

    looked: list[Path] = []
    take = columns.read_schema
    monkeypatch.setattr(
        columns, "read_schema", lambda file: looked.append(file) or take(file)
    )
    file = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"question": ["q"], "answer": ["a"]}), file)
    made_sources.write(tmp_path)
    wanted = settings_of(
        tmp_path, {"set": "huggingface", "path": "x.parquet", **made_sources.TEST}
    )

    def plan() -> int:
        inputs = Inputs(tmp_path / "digests.json")
        inputs.digest_inputs(wanted)
        inputs.save()
        return len(looked)

    first, again = plan(), plan()
    parquet.write_table(pa.table({"question": ["q2"], "answer": ["a2"]}), file)
    assert (first > 0, again, plan() > first) == (True, first, True)


def test_a_recipe_of_an_older_zsg_is_not_read_in_a_new_way(tmp_path: Path) -> None:
    """Days may lie between plan and prepare, and another version."""
    made_sources.write(tmp_path)

    content.refuse_other_reading("p3", tmp_path / "templates", {"reader": "p3"})
    content.refuse_other_reading(
        "p3", tmp_path / "shards", {"reader": "p3", "read": {"tasks": "templates"}}
    )
    with pytest.raises(
        UserError, match="reads it otherwise than the one that planned this"
    ):
        content.refuse_other_reading("p3", tmp_path / "shards", {"reader": "p3"})
    assert json.loads((tmp_path / "templates/x_a.jsonl").read_text().splitlines()[0])
