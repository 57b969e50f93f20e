"""The look of all pictures, in one place: colours, markers, axes, fonts, and how a figure is saved.

Colours tell aggregations apart, markers tell topologies apart, and both stay the same in every picture.
The colours are those of Okabe and Ito, which people with the usual colour blindnesses can tell apart.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from connsearch.errors import ConnsearchError, did_you_mean
from connsearch.files import write_whole

T = TypeVar("T")

TIMES = "\N{MULTIPLICATION SIGN}"
SMALL = 7.0  # points, the smallest text
MIXED = "mixed"
INK, QUIET, FAINT = "#333333", "#666666", "#9A9A9A"
BAND_COLORS = ("#F3F4F6", "#E6E9EE")
BOX_COLOR = "#EDEFF3"

AGGREGATION_COLORS = {
    "sum": "#0072B2",
    "mean": "#56B4E9",
    "concat": "#D55E00",
    "depthwise": "#009E73",
    "gated": "#CC79A7",
    "routed": "#E69F00",
    MIXED: "#7F7F7F",
}
_MORE_COLORS = ("#332288", "#882255", "#999933", "#44AA99", "#AA4499", "#661100", "#117733", "#DDCC77")

EDGE_COLORS = {"chain": "#333333", "skip": "#0072B2", "resolution": "#D55E00", "output": "#009E73"}
EDGE_WORDS = {
    "chain": "previous layer",
    "skip": "earlier layer",
    "resolution": "change of resolution",
    "output": "read by the head",
}
NODE_LOOKS = {  # marker, colour
    "stem": ("s", "#333333"),
    "unit": ("o", "#56B4E9"),
    "transition": ("D", "#D55E00"),
    "carry": ("o", "#F2B48A"),
    "join": ("o", "#999999"),
    "head": ("s", "#009E73"),
}


@dataclass(frozen=True)
class Marker:
    """One marker in matplotlib's words; thin shapes are drawn on a larger area."""

    matplotlib: Any
    area: float = 1.0


TOPOLOGY_MARKERS = {
    "chain": Marker("o"),
    "dense": Marker("s"),
    "log_dense": Marker("^"),
    "sparse": Marker("D"),
    "nearest": Marker("v"),
    "evenly_spaced": Marker("P", 1.3),
    "half": Marker("<"),
    "every_other": Marker(">"),
    "harmonic": Marker("X", 1.3),
    "loglog_dense": Marker("p"),
    "random_dag": Marker("h"),
    MIXED: Marker("*", 2.0),
}
_MORE_MARKERS = (
    Marker("d"),
    Marker("8"),
    Marker((4, 1, 0), 1.8),
    Marker((3, 1, 0), 1.8),
    Marker((6, 1, 0), 1.6),
    Marker((3, 1, 180), 1.8),
)

_RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.labelsize": 8.0,
    "axes.titlesize": 9.0,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "path",  # looks the same where the font is missing
    "svg.hashsalt": "connsearch",
}


@contextmanager
def look() -> Iterator[None]:
    """Set our look while figures are made and saved; the caller's settings come back after it."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)  # type: ignore[arg-type]  # its keys are a Literal of hundreds of names
        yield


class Picture(Figure):
    """A matplotlib Figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with look():
            self.savefig(buffer, format="png", dpi=150)
        return buffer.getvalue()


# ---- what a label looks like ---------------------------------------------------------------------------


def base_name(label: object) -> str:
    """Return the registered name in a label; several names at once are "mixed", none is "".

    >>> base_name("sparse(base=3)"), base_name("dense + chain"), base_name(None)
    ('sparse', 'mixed', '')
    """
    if not isinstance(label, str) or not label.strip():
        return ""
    match = re.fullmatch(r"\s*([\w-]+)\s*(\([^()]*\))?\s*", label)
    return match[1] if match else MIXED


def colors_of(names: Iterable[str]) -> dict[str, str]:
    """Return a colour per aggregation, the known ones first; the same names give the same colours."""
    return _assign(names, AGGREGATION_COLORS, _MORE_COLORS, INK)


def markers_of(names: Iterable[str]) -> dict[str, Marker]:
    """Return a marker per topology, the known ones first; the same names give the same markers."""
    return _assign(names, TOPOLOGY_MARKERS, _MORE_MARKERS, TOPOLOGY_MARKERS["chain"])


def _assign(names: Iterable[str], known: Mapping[str, T], more: tuple[T, ...], nameless: T) -> dict[str, T]:
    occurring = set(names)
    found = {name: known[name] for name in known if name in occurring}
    unknown = sorted(occurring - known.keys() - {""})
    found |= {name: more[i % len(more)] for i, name in enumerate(unknown)}
    return found | ({"": nameless} if "" in occurring else {})


# ---- measures ------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def text_width(text: str, size: float = SMALL) -> float:
    """Return the width of one line of text in inches, without drawing it."""
    font = FontProperties(family="DejaVu Sans")
    return float(TextPath((0, 0), text or " ", size=size, prop=font, usetex=False).get_extents().width) / 72


# ---- files ---------------------------------------------------------------------------------------------

_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}
SUFFIXES = tuple(_METADATA)


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as .png (200 dots per inch), .svg or .pdf and return the path.

    The same figure gives the same bytes; a file is either whole or not touched.

    Raises:
        ConnsearchError: if the suffix is another, or the file cannot be written.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in _METADATA:
        raise ConnsearchError(
            f"{target}: cannot draw to a file ending in {suffix!r}. {did_you_mean(suffix, _METADATA)}"
        )
    buffer = io.BytesIO()
    with look():
        figure.savefig(buffer, format=suffix[1:], dpi=200, metadata=_METADATA[suffix])
    return write_whole(target, buffer.getvalue())
