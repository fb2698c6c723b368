"""What all reports are drawn with: figures without the global state of pyplot, in the house colours."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.errors import UserError
from nas.files import write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, ACCENT, PALE, WARM = "#1b2a41", "#0072b2", "#c9d6df", "#d55e00"
GREEN = "#009e73"
#: A grey that shows on light and on dark pages.
QUIET = "#7a8794"
#: Colours for series, told apart by colour-blind eyes (Okabe and Ito, 2008), on light and on dark.
SERIES = (ACCENT, WARM, GREEN, "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#a6761d")
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

    def to_dict(self) -> dict[str, object]:
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
