"""Makes the texts of a table fit for CSV, which people open in spreadsheets.

A spreadsheet computes a cell that begins with = + - or @, and what it computes may
start programs or fetch addresses. Such a text gets an apostrophe before it, which
spreadsheets show as a text's mark; so does the rest of a cell behind a sign by which a
spreadsheet of another country would part cells (OWASP, CSV Injection). Line ends and
what does not print are written as escapes. Columns of numbers are left alone. Parquet
and JSON have every text as it is.
"""

import re

import pyarrow as pa

from zsg_core.shown_text import make_showable

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
# Beginnings of a cell: of the text, or behind what parts or quotes cells; but a number
# alone may begin with its sign.
_COMPUTED = re.compile(
    rf"""(^|[,;|\t"'])(\s*)(?=[=+\-@＝＋－＠])(?!{_NUMBER}\s*(?:$|[,;|"'\])}}]))"""
)


def make_cell(text: str) -> str:
    """A text as a cell that no spreadsheet computes, on one line."""
    return _COMPUTED.sub(r"\1\2'", make_showable(text, keep=""))


def make_cells(table: pa.Table) -> pa.Table:
    """A table whose names and texts are fit for CSV; each different text is looked at once."""
    columns = [
        _made(column) if pa.types.is_string(column.type) else column
        for column in table.columns
    ]
    return pa.table(columns, names=list(map(make_cell, table.column_names)))


def _made(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of texts as cells, piece by piece as it is kept."""
    return pa.chunked_array(
        [_made_of_chunk(chunk) for chunk in column.chunks], type=column.type
    )


def _made_of_chunk(chunk: pa.Array) -> pa.Array:
    """One piece of a column: each text that differs is made once."""
    coded = chunk.dictionary_encode()
    texts = coded.dictionary.to_pylist()
    cells = [None if text is None else make_cell(text) for text in texts]
    if cells == texts:
        return chunk
    return pa.DictionaryArray.from_arrays(
        coded.indices, pa.array(cells, chunk.type)
    ).dictionary_decode()
