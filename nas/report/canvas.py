"""What all reports are drawn with: figures without the global state of pyplot, in the house colours, and HTML pages."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.errors import UserError
from nas.files import write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from plotly import graph_objects

_STYLE = """
:root{color-scheme:light dark;--ink:#1b2a41;--paper:#fff;--line:#dde3e8;--quiet:#5c677d}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf0;--paper:#14181d;--line:#39424c;--quiet:#a5b1bd}}
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:var(--ink);background:var(--paper)}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin-top:2rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px}
td,th{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:right}td:first-child,th:first-child{text-align:left}
.note{color:var(--quiet)}code{overflow-wrap:anywhere}img{max-width:100%}.plotly-graph-div{background:#fff}
"""
INK, ACCENT, PALE, WARM = "#1b2a41", "#0b7285", "#c9d6df", "#d9480f"
#: Colour of an operation by what bounds its latency.
BOUND_COLOURS = {"compute": ACCENT, "memory": WARM, "launch": PALE}


class Shown:
    """A result as people meet it: one line in a terminal, that line and a picture in a notebook.

    A class that says `__repr__`, `plot` and `to_dict` gets the rest.
    """

    __slots__ = ()

    def plot(self) -> Figure:
        """The picture of it, as a matplotlib figure (`.savefig`)."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        raise NotImplementedError

    def save(self, path: str | Path) -> Path:
        """Write it by the ending of `path`: the data as .json, else the picture (.png, .pdf, .svg)."""
        path = Path(path)
        if path.suffix.lower() == ".json":
            return write_json(path, self.to_dict())
        if path.suffix.lower() not in (".png", ".pdf", ".svg"):
            raise UserError(f"{path}: give a name that ends in .json, .png, .pdf or .svg")
        return save_png(self.plot(), path)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        stream = io.BytesIO()
        try:
            self.plot().savefig(stream, format="png")
        except UserError:  # there is no picture of this one
            return f"<p>{html.escape(repr(self))}</p>"
        return picture_html(repr(self), stream.getvalue())


def picture_html(text: str, png: bytes) -> str:
    """A line and a picture as an HTML fragment that needs no other file."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<p>{html.escape(text)}</p><img style="max-width:100%" alt="{html.escape(text)}" src="{source}">'


def canvas(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure of `width` x `height` inches and its (rows, columns) axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Title and axis names, small, with the upper and right edges open."""
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def save_png(figure: Figure, path: Path) -> Path:
    """Write the picture, making its folder; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def page(title: str, body: Iterable[str]) -> str:
    """A whole HTML document around ready fragments; the first figure in it must inline plotly."""
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width,initial-scale=1'><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>{''.join(body)}</body></html>"
    )


def html_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """An HTML table of dictionaries that share their keys."""
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(str(key))}</th>" for key in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row.values()) + "</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))


def figure_html(figure: graph_objects.Figure, inline: bool) -> str:
    """A plotly figure as wide as the page as a fragment; `inline` carries the library itself, once a page."""
    figure.update_layout(autosize=True, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    config = {"responsive": True, "displayModeBar": False}
    return str(figure.to_html(full_html=False, include_plotlyjs="inline" if inline else False, config=config))
