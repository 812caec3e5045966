"""matplotlib's figures without a display or global state, and their PNG files."""

from __future__ import annotations

import io
import logging
from typing import Any

# The first time that matplotlib looks for fonts it would report so among the run's own lines. This
# has to stand before the imports: they look for the fonts.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402


def create(width: float, height: float, dpi: int, **options: Any) -> Figure:
    """A figure of a size in inches; options: those of matplotlib's `Figure`."""
    figure = Figure((width, height), dpi, **options)
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """A PNG file of a figure that `create` made. The same figure gives the same bytes."""
    buffer = io.BytesIO()
    # Not savefig, which draws everything twice. Software would name matplotlib's version.
    figure.canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
