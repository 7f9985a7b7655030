"""matplotlib Figure -> SVG, or PNG where that is much smaller; the same bytes for the same figure."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LARGE = 100_000  # bytes up to which a picture stays one that can be scaled
_KINDS = {"svg": "image/svg+xml", "png": "image/png"}


@dataclass(frozen=True)
class Picture:
    """A figure as a file.

    Attributes:
        caption: What it shows.
        kind: `svg` or `png`.
        data: The file's bytes.
        width: Pixels that it is drawn for.
    """

    caption: str
    kind: str
    data: bytes
    width: int

    @property
    def name(self) -> str:
        """A file name made of the caption."""
        return f"{re.sub(r'[^a-z0-9]+', '-', self.caption.lower()).strip('-')[:60] or 'figure'}.{self.kind}"

    @property
    def uri(self) -> str:
        """The picture inside an address, for a page that loads nothing."""
        return f"data:{_KINDS[self.kind]};base64,{base64.b64encode(self.data).decode()}"


def picture(caption: str, figure: Figure) -> Picture:
    """Returns the figure as SVG, or in the smaller form if that is large."""
    from matplotlib import rc_context

    files = {}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": caption}):  # text stays text; ids do not change from run to run
        for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            out = io.BytesIO()
            figure.savefig(out, format=kind, dpi=100, metadata=metadata)
            files[kind] = out.getvalue()
    kind = "svg" if len(files["svg"]) < _LARGE else min(files, key=lambda k: len(files[k]))
    return Picture(caption, kind, files[kind], round(96 * figure.get_figwidth()))
