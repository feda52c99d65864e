"""Small text sources whose ids at e79a027 are known: what was read well keeps them,
what was not has others."""

import json
from pathlib import Path
from typing import Any

P3 = [
    {"inputs_pretokenized": f"q {n}", "targets_pretokenized": f"a {n}"}
    for n in range(3)
]
ALPACA = [{"instruction": f"q {n}", "input": "", "output": f"a {n}"} for n in range(3)]
TALK = [
    {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": f"a {n}"},
        ]
    }
    for n in range(3)
]
FILES = {
    "templates/x_a.jsonl": P3,
    "templates/x_b.jsonl": P3,
    "one/train.jsonl": P3,
    "shards/x_a-00000-of-00002.jsonl": P3,
    "shards/x_a-00001-of-00002.jsonl": P3,
    "folders/x_a/train.jsonl": P3,
    "folders/x_b/train.jsonl": P3,
    "alpaca/train.jsonl": ALPACA,
    "talk/train.jsonl": TALK,
    "test/test.jsonl": ALPACA,
}
TEST = {"test_set": "alpaca", "test_path": "test/test.jsonl"}
# The settings of a source, its paths within the folder of FILES.
SOURCES: dict[str, dict[str, Any]] = {
    "templates in files": {"set": "p3", "path": "templates", **TEST},
    "one template": {"set": "p3", "path": "one/train.jsonl", **TEST},
    "instructions": {"set": "alpaca", "path": "alpaca", **TEST},
    "dialogues": {"set": "messages", "path": "talk", **TEST},
    "a template in shards": {"set": "p3", "path": "shards", **TEST},
    "templates in folders": {"set": "p3", "path": "folders/*/train*.jsonl", **TEST},
    "tests in folders": {
        "set": "alpaca",
        "path": "alpaca",
        "test_set": "p3",
        "test_path": "folders/*/train*.jsonl",
    },
}


def write(folder: Path) -> None:
    """Writes FILES."""
    for name, rows in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
