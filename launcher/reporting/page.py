"""Writes a report as one HTML page that needs nothing else: no network, no library, light and dark.

Every text that comes from a grid or a run is escaped and made showable, and the page
forbids every script but its own, by digest.
"""

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.reporting.figure import FIRST, MARKS, PALETTE, style_of
from zsg_core.shown_text import make_showable
from zsg_core.stats.curves import Interval

MOST_NAMED = 24  # curves in a legend that is not folded
DASHES = ("", "8 3", "3 2", "9 3 3 3")  # as in the figures
SHAPES = {
    "o": '<circle cx="14" cy="6" r="3"/>',
    "s": '<rect x="11.2" y="3.2" width="5.6" height="5.6"/>',
    "^": '<path d="M14 2l4 7h-8z"/>',
    "D": '<path d="M14 2l4 4-4 4-4-4z"/>',
    "v": '<path d="M14 10l4-7h-8z"/>',
    "P": '<path d="M12.5 2h3v2.5H18v3h-2.5V10h-3V7.5H10v-3h2.5z"/>',
    "X": '<path d="M11 1.5l3 3 3-3 1.5 1.5-3 3 3 3-1.5 1.5-3-3-3 3-1.5-1.5 3-3-3-3z"/>',
    "*": '<path d="M14 1l1.3 3.5 3.7.1-2.9 2.3 1 3.6-3.1-2-3.1 2 1-3.6L9 4.6l3.7-.1z"/>',
}
STYLE = """
:root{color-scheme:light dark;--ink:#1a1a1a;--faint:#595959;--paper:#fff;--line:#d8d8d8;--shade:#f5f6f7;--warn:#fff4d6;
--edge:#b97900;%LIGHT}
@media(prefers-color-scheme:dark){:root{--ink:#ececec;--faint:#a9adb2;--paper:#16181b;--line:#3a3e44;--shade:#1f2226;
--warn:#33290f;--edge:#d9a02b;%DARK}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:1.2rem 1rem 4rem;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:.2rem 0}h2{font-size:1.15rem;margin:2.2rem 0 .5rem}
h3{font-size:.95rem;margin:0 0 .2rem;font-weight:600}
p{margin:.4rem 0;max-width:75ch}.faint{color:var(--faint);font-size:.88rem}
.warn{background:var(--warn);border-left:4px solid var(--edge);padding:.5rem .8rem;margin:1rem 0;border-radius:3px}
.warn ul{margin:.2rem 0;padding-left:1.2rem}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:1rem 1.5rem}
.small{grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr))}
figure{margin:0;min-width:0;max-width:640px}figure svg{display:block;width:100%;height:auto}
figure svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif!important}
circle:has(title){fill:transparent;stroke:none}circle:has(title):hover{stroke:var(--ink)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:.5rem 0;padding:0;list-style:none}
.legend svg{width:28px;height:12px;margin-right:.35rem;vertical-align:middle}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums;margin:.4rem 0}
th,td{padding:.25rem .6rem;text-align:left;border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:top}
td.n,th.n{text-align:right}
th{white-space:normal;overflow-wrap:normal;vertical-align:bottom}
th button{font:inherit;font-weight:600;color:inherit;background:none;border:0;padding:0;
cursor:pointer;text-align:inherit}th button:hover{text-decoration:underline}
th[aria-sort=ascending] button::after{content:" ▲"}th[aria-sort=descending] button::after{content:" ▼"}
td i{font-style:normal;color:var(--faint)}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.1rem 1rem;font-size:.86rem}dd{margin:0}
dt{color:var(--faint)}code,dd{font-family:ui-monospace,Consolas,monospace}summary{cursor:pointer}
a{color:inherit}@media print{details{display:block}}
"""
SCRIPT = """
for(const b of document.querySelectorAll('th button'))b.addEventListener('click',()=>{
const h=b.parentElement,t=h.closest('table'),up=h.getAttribute('aria-sort')!=='ascending',n=h.cellIndex;
for(const o of t.tHead.rows[0].cells)o.removeAttribute('aria-sort');
h.setAttribute('aria-sort',up?'ascending':'descending');
const v=r=>{const c=r.cells[n];return c.dataset.v===undefined?c.textContent:c.dataset.v===''?NaN:+c.dataset.v};
const f=(x,y)=>{const p=v(x),q=v(y);if(typeof p==='string')return up?p.localeCompare(q):q.localeCompare(p);
return isNaN(p)?1:isNaN(q)?-1:up?p-q:q-p};
for(const r of [...t.tBodies[0].rows].sort(f))t.tBodies[0].append(r)})
"""


@dataclass(frozen=True)
class Cell:
    """A cell that sorts by a number."""

    value: float | None
    text: str
    interval: Interval | None = None


def number(value: float | None, digits: int = 4) -> Cell:
    """A number of so many digits."""
    return Cell(value, "–" if value is None else f"{value:.{digits}g}")


def interval(bounds: Interval | None) -> Cell:
    """An interval, which sorts by its width; a dash where there is none."""
    width = bounds[1] - bounds[0] if bounds else None
    return Cell(width, "–" if bounds is None else f"{bounds[0]:.4g} to {bounds[1]:.4g}")


def page(title: str, parts: Iterable[str]) -> str:
    """The whole page. `title` is a text, the parts are HTML."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    allowed = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src"
        " data:"
    )
    colours = [
        ";".join(
            f"--z{FIRST + place}:{pair[which]}" for place, pair in enumerate(PALETTE)
        )
        for which in (0, 1)
    ]
    style = STYLE.replace("%LIGHT", f"--z0:#333;--z1:#d4d4d4;{colours[0]}")
    style = style.replace("%DARK", f"--z0:#d6d6d6;--z1:#43474d;{colours[1]}")
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{allowed}">'
    head += '<meta name="viewport" content="width=device-width,initial-scale=1">'
    head += f'<title>{text(title)}</title><link rel="icon" href="data:,"><style>{style}</style>'
    body = "\n".join(parts)
    whole = (
        "<html"
        f' lang="en"><head>{head}</head>\n<body>\n{body}\n<script>{SCRIPT}</script></body></html>'
    )
    # its texts are so by now; here none is forgotten
    return make_showable(f"<!doctype html>\n{whole}\n")


def text(value: object) -> str:
    """A text as HTML; what could turn the direction of writing or end a line is shown
    by its name."""
    return html.escape(make_showable(str(value).replace("\t", " ")), quote=True)


def paragraph(value: str, css: str = "") -> str:
    """A paragraph."""
    return f'<p class="{css}">{text(value)}</p>' if css else f"<p>{text(value)}</p>"


def heading(value: str) -> str:
    """A section's heading."""
    return f"<h2>{text(value)}</h2>"


def warning(title: str, lines: Sequence[str]) -> str:
    """What a reader must know first."""
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f'<div class="warn" role="note"><strong>{text(title)}</strong><ul>{items}</ul></div>'


def legend(title: str, labels: Mapping[str, int]) -> str:
    """Which curve is whose: a piece of its line with its mark. Above the panels, so
    that it covers nothing."""
    items = []
    for label, colour in labels.items():
        paint = f"var(--z{FIRST + colour % len(PALETTE)})"
        mark = f'<g fill="{paint}">{SHAPES[MARKS[colour % len(MARKS)]]}</g>'
        items.append(_legend_item(label, paint, style_of(colour), mark))
    return _legend(title, items)


def styles_legend(title: str, styles: Mapping[str, int]) -> str:
    """Which style of line is whose."""
    return _legend(
        title,
        [
            _legend_item(label, "var(--z0)", style_of(0, style), "")
            for label, style in styles.items()
        ],
    )


def marks_legend(title: str, marks: Mapping[str, tuple[int, str]]) -> str:
    """Which mark is whose: the number of its colour, and its shape."""
    return _legend(
        title,
        [
            '<li><svg viewBox="8 0 12 12" style="width:12px" aria-hidden="true"><g'
            f' fill="var(--z{FIRST + colour})">{SHAPES[mark]}</g></svg>{text(label)}</li>'
            for label, (colour, mark) in marks.items()
        ],
    )


def _legend_item(label: str, paint: str, style: int, mark: str) -> str:
    line = f'<path d="M0 6H28" stroke="{paint}" stroke-width="2" stroke-dasharray="{DASHES[style]}"/>'
    return f'<li><svg viewBox="0 0 28 12" aria-hidden="true">{line}{mark}</svg>{text(label)}</li>'


def _legend(title: str, items: Sequence[str]) -> str:
    name = f'<li class="faint">{text(title)}</li>' if title else ""
    drawn = f'<ul class="legend">{name}{"".join(items)}</ul>'
    return (
        drawn
        if len(items) <= MOST_NAMED
        else folded(f"The names of {len(items)} curves", drawn)
    )


def panels(drawn: Iterable[tuple[str, str]], small: bool = False) -> str:
    """Figures side by side, one below the other where it is narrow: title and SVG of each."""
    figures = "".join(
        f"<figure>{f'<h3>{text(title)}</h3>' if title else ''}{svg}</figure>"
        for title, svg in drawn
    )
    return f'<div class="panels{" small" if small else ""}">{figures}</div>'


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table that is sorted by a click on a heading."""
    body, numeric = [], [True] * len(headings)
    for row in rows:
        cells = []
        for place, cell in enumerate(row):
            if isinstance(cell, Cell):
                value = (
                    ""
                    if cell.value is None or cell.value != cell.value
                    else repr(float(cell.value))
                )
                cells.append(f'<td class="n" data-v="{value}">{text(cell.text)}</td>')
            else:
                numeric[place] = False
                cells.append(f"<td>{text(cell)}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    numbers = numeric if body else [False] * len(headings)
    head = "".join(
        f'<th scope="col"{" class=n" if is_number else ""}><button'
        f' type="button">{text(name)}</button></th>'
        for name, is_number in zip(headings, numbers, strict=True)
    )
    whole = (
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )
    return f'<div class="scroll" tabindex="0">{whole}</div>'


def facts(pairs: Mapping[str, str]) -> str:
    """Names and values, one beside the other."""
    return f"<dl>{''.join(f'<dt>{text(name)}</dt><dd>{text(value)}</dd>' for name, value in pairs.items())}</dl>"


def folded(summary: str, inside: str) -> str:
    """What is shown when asked for."""
    return f"<details><summary>{text(summary)}</summary>{inside}</details>"
