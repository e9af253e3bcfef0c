"""matplotlib's SVG as an element of a page, in the page's colours."""

import io
import re
from collections.abc import Callable

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from glfa_jax.report.html import Markup, escape

# Drawn by matplotlib in colours that no figure would use, then replaced by the page's variables:
# one SVG serves the light and the dark scheme.
INK, MUTED, RULE, ACCENT = "#010101", "#020202", "#030303", "#040404"
EXTRA = ("#050505", "#060606", "#070707", "#080808")
CORTEX, SULCI = "#090909", "#0a0a0a"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    ACCENT: "var(--accent)",
    CORTEX: "var(--cortex)",
    SULCI: "var(--sulci)",
    **{colour: f"var(--extra-{i})" for i, colour in enumerate(EXTRA)},
}


def inline(
    draw: Callable[[Axes], None], *, size: tuple[float, float], salt: str, label: str
) -> Markup:
    """What `draw` puts on bare axes, as an HTML element: no prologue, no addresses, no global
    style, and ids that are no other figure's.

    size: in inches. salt: differs between the figures of a page. label: what is to be seen.
    """
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes)
        axes.tick_params(which="both", colors=MUTED, length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for part in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->"):
        svg = re.sub(part, "", svg, flags=re.DOTALL)
    # Paths to a hundredth of a pixel: outlines of a cortex have thousands of corners.
    svg = re.sub(r' d="[^"]*"', lambda d: re.sub(r"(\.\d\d)\d+", r"\1", d[0]), svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{salt}-", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    head = f'<svg class="plot" role="img" aria-label="{escape(label)}" {box[0]}>'
    svg = re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return Markup(svg.strip())
