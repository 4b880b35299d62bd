"""matplotlib figures as SVG text that takes its colours and font from the page around it."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Stand-ins that no model has, replaced by what the page says in light and dark.
TEXT, LINE = "#0a0b0c", "#0a0b0d"
WIDTH = 4.4

# Of a file of its own, which has no page around it: readable on any.
_ALONE = {"currentColor": "#1c2430", "var(--line)": "#dde2e8"}
# Of what is drawn as a bitmap.
_DPI = 150

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.linewidth": 0.6,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), TEXT),
    "grid.color": LINE,
    "legend.frameon": False,
}


def new_axes(height: float = 3.4) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes, as wide as a phone shows."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=True)
        axes.set_axisbelow(True)
    return figure, axes


def to_svg(figure: Figure, name: str, description: str) -> str:
    """Return a figure as an ``<svg>`` element.

    Args:
        figure: The figure.
        name: Its name on the page, letters, digits and '-', which keeps its ids apart from those of others.
        description: What a screen reader says.
    """
    stream = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", dpi=_DPI, transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # Of paths a hundredth of a point is enough, and half the bytes; numbers that are read stay whole.
    text = re.sub(r'\sd="[^"]*"', lambda match: re.sub(r"(\d\.\d\d)\d+", r"\1", match[0]), text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font: \1 system-ui, sans-serif", text)
    text = text.replace(TEXT, "currentColor").replace(LINE, "var(--line)")
    used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', text))
    text = re.sub(r'\sid="([\w.-]+)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)([\w-]+)', rf"\g<1>{name}-\g<2>", text)
    text = re.sub(r'^<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'^<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip()


def standalone(svg: str) -> str:
    """Make a file of what `to_svg` returned, on white."""
    for stand_in, colour in _ALONE.items():
        svg = svg.replace(stand_in, colour)
    opening, rest = svg.split(">", 1)
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f'{opening}><rect width="100%" height="100%" fill="#fff"/>{rest}\n'
