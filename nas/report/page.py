"""The HTML pages of all reports: one style for light, dark, phone and paper; tables, folds, texts to copy, plotly figures."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly import graph_objects

_STYLE = """
:root{color-scheme:light dark;--ink:#1b2a41;--paper:#fff;--card:#f3f6f9;--line:#d5dce3;--quiet:#5c677d;--accent:#0072b2}
@media screen and (prefers-color-scheme:dark){
:root{--ink:#e6ebf0;--paper:#14181d;--card:#1f262e;--line:#3a444f;--quiet:#a5b1bd;--accent:#56b4e9}}
*{box-sizing:border-box}
body{font:16px/1.55 system-ui,sans-serif;max-width:1100px;margin:0 auto;padding:1.5rem 1rem 4rem;color:var(--ink);
background:var(--paper);overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0 1rem}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}p{margin:.5rem 0}
.verdict{background:var(--card);border-left:4px solid var(--accent);border-radius:4px;padding:.6rem 1.1rem;margin:1rem 0}
.verdict p:first-child{font-size:1.1rem;font-weight:600}
.note{color:var(--quiet);font-size:.9rem}
code,pre{font:.87em ui-monospace,monospace}pre{background:var(--card);border-radius:4px;padding:.8rem;overflow-x:auto;
overflow-wrap:normal;max-height:24rem}
.scroll{overflow-x:auto;max-width:100%}table{border-collapse:collapse;font-size:.85rem;overflow-wrap:normal}
td,th{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:right;font-variant-numeric:tabular-nums}
th{color:var(--quiet);font-weight:600;vertical-align:bottom}
td:first-child,th:first-child{text-align:left;padding-left:0;white-space:nowrap}
details{border-bottom:1px solid var(--line);padding:.2rem 0}summary{cursor:pointer;padding:.35rem 0;font-weight:600}
select,button{font:inherit;font-size:.9rem;color:inherit;background:var(--card);border:1px solid var(--line);
border-radius:4px;padding:.2rem .5rem;max-width:100%}
.bars{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.35rem .8rem;align-items:center;font-size:.9rem}
.bars small{display:block;color:var(--quiet)}.bars div{display:flex;align-items:center;gap:.5rem}
.bars i{height:1.1rem;background:var(--accent);border-radius:2px;min-width:1px;print-color-adjust:exact}
.bars b{font-weight:400;font-variant-numeric:tabular-nums;white-space:nowrap}
.shot img{display:block;max-width:100%;border-radius:4px;background:#fff}figure{margin:1rem 0}
.shots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem}.shots figure{margin:0}
.js-plotly-plot .main-svg text:not(.hoverlayer text,.heatmap-label text){fill:var(--ink)!important}
.js-plotly-plot .gridlayer path,.js-plotly-plot .zerolinelayer path{stroke:var(--line)!important}
@media print{body{max-width:none;padding:0;font-size:12px}button,select{display:none}pre{max-height:none}
table,figure,.figure,.bars{break-inside:avoid}h2{break-after:avoid}}
"""

#: Folded parts open on paper, and a figure takes the width of its place when it appears.
_SCRIPT = """
const fit=place=>place.querySelectorAll('.js-plotly-plot').forEach(plot=>Plotly.Plots.resize(plot));
document.querySelectorAll('select[data-plot]').forEach(choice=>{choice.onchange=()=>{
const plot=document.getElementById(choice.dataset.plot),[change,layout]=JSON.parse(choice.value);
const moved=trace=>trace.customdata.map(row=>row[change.column]);
Plotly.update(plot,'column' in change?{x:plot.data.map(moved)}:change,layout)}});
document.querySelectorAll('details').forEach(fold=>{fold.ontoggle=()=>fit(fold)});
document.querySelectorAll('button.copy').forEach(button=>{button.onclick=()=>{
const text=button.nextElementSibling;navigator.clipboard.writeText(text.textContent).then(
()=>{button.textContent='copied'},()=>getSelection().selectAllChildren(text))}});
addEventListener('beforeprint',()=>{document.querySelectorAll('details').forEach(fold=>{fold.open=true});
document.body.style.width='185mm';fit(document)});
addEventListener('afterprint',()=>{document.body.style.width='';fit(document)});
"""


class Ready(str):
    """Text that is HTML already."""


def page(title: str, body: Iterable[str]) -> str:
    """A whole HTML document around ready fragments, that needs no other file."""
    inside = "".join(body)
    library = ""
    if "plotly-graph-div" in inside:
        from plotly.offline import get_plotlyjs

        library = f"<script>{get_plotlyjs()}</script>"
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width,initial-scale=1'><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style>{library}</head><body><h1>{html.escape(title)}</h1>{inside}"
        f"<script>{_SCRIPT}</script></body></html>"
    )


def escaped(value: object) -> str:
    """The text of a value as HTML: numbers to four digits, None as nothing; what is Ready as it stands."""
    if isinstance(value, Ready):
        return value
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else html.escape(str(value))


def verdict(lines: Iterable[str]) -> str:
    """What came out, in sentences, the first one large."""
    return f"<section class='verdict'>{''.join(f'<p>{escaped(line)}</p>' for line in lines)}</section>"


def note(text: str) -> str:
    """A small line."""
    return f"<p class='note'>{escaped(text)}</p>"


def fold(title: str, *inside: str) -> str:
    """Fragments behind a title that opens them; nothing without any."""
    return f"<details><summary>{escaped(title)}</summary>{''.join(inside)}</details>" if any(inside) else ""


def copyable(text: str) -> str:
    """A text with a button that copies it."""
    return f"<button class='copy'>copy</button><pre>{html.escape(text)}</pre>"


def html_table(rows: Sequence[Mapping[str, object]]) -> str:
    """An HTML table of dictionaries that share their keys."""
    if not rows:
        return ""
    head = "".join(f"<th>{escaped(key)}</th>" for key in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escaped(value)}</td>" for value in row.values()) + "</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def bars(rows: Sequence[tuple[str, str, float, str]]) -> str:
    """Rows of (name, small print, value, value as text), each with a bar as long as its value."""
    most = max((value for *_, value, _ in rows), default=0.0) or 1.0
    cells = (
        f"<span>{escaped(name)}<small>{escaped(small)}</small></span>"
        f"<div><i style='width:{75 * max(value, 0.0) / most:.2f}%'></i><b>{escaped(text)}</b></div>"
        for name, small, value, text in rows
    )
    return f"<div class='bars'>{''.join(cells)}</div>"


def picture(title: str, data: bytes, kind: str = "png") -> str:
    """A picture with the line that says what it is, inside the page; kind: png or jpeg."""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    caption = f"<figcaption class='note'>{escaped(title)}</figcaption>"
    return f"<figure class='shot'><img alt='{escaped(title)}' src='{source}'>{caption}</figure>"


def plot(height: int = 420, x: str = "", y: str = "", **layout: object) -> graph_objects.Figure:
    """An empty plotly figure in the style of the pages, with its axes named."""
    import plotly.graph_objects as go

    axis = {"automargin": True, "zeroline": False}
    style = {
        "template": "plotly_white",
        "height": height,
        "margin": {"l": 50, "r": 12, "t": 12, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 13},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "xaxis": axis | {"title": {"text": x}},
        "yaxis": axis | {"title": {"text": y}},
    }
    return go.Figure(layout=style | layout)


def figure_html(
    figure: graph_objects.Figure,
    name: str,
    choices: Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]] | None = None,
) -> str:
    """A plotly figure as wide as the page, called `name` there.

    choices: what each entry of a menu changes of the traces and of the layout; {"column": 2} puts that column of every
    trace's customdata on the horizontal axis.
    """
    config = {"responsive": True, "displayModeBar": False}
    drawn = figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=config)
    menu = ""
    if choices is not None and len(choices) > 1:
        options = "".join(
            f"<option value='{html.escape(json.dumps(change), quote=True)}'>{escaped(title)}</option>"
            for title, change in choices.items()
        )
        menu = f"<p><label>across: <select data-plot='{name}'>{options}</select></label></p>"
    return f"{menu}<div class='figure'>{drawn}</div>"
