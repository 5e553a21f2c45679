"""`.. connection-states::` draws the states of a connection from the code's own table."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from conpool._values.states import TRANSITIONS, ConnectionState

# Only the places are ours; a state without one, or an arrow without a state, fails the build.
PLACES = {
    ConnectionState.CONNECTING: (80, 120),
    ConnectionState.IDLE: (290, 50),
    ConnectionState.ACTIVE: (290, 190),
    ConnectionState.CLOSING: (500, 120),
    ConnectionState.CLOSED: (680, 120),
}
HALF_WIDTH, HALF_HEIGHT = 58, 19
DIRECT = (ConnectionState.CONNECTING, ConnectionState.CLOSED)  # has to go around the others


def box(state: ConnectionState) -> str:
    x, y = PLACES[state]
    counted = "" if state is not ConnectionState.CLOSED else ' stroke-dasharray="5 4"'
    return (
        f'<rect x="{x - HALF_WIDTH}" y="{y - HALF_HEIGHT}" width="{2 * HALF_WIDTH}"'
        f' height="{2 * HALF_HEIGHT}" rx="8" fill="none" stroke="currentColor"{counted}/>'
        f'<text x="{x}" y="{y + 5}" text-anchor="middle">{state.value}</text>'
    )


def arrow(start: ConnectionState, end: ConnectionState) -> str:
    (x1, y1), (x2, y2) = PLACES[start], PLACES[end]
    if (start, end) == DIRECT:
        path = f"M{x1},{y1 + HALF_HEIGHT} C{x1},270 {x2},270 {x2},{y2 + HALF_HEIGHT}"
    elif x1 == x2:
        # One of two that lead there and back: each a little to its own side.
        side = 14 if y1 < y2 else -14
        way = HALF_HEIGHT if y1 < y2 else -HALF_HEIGHT
        path = f"M{x1 + side},{y1 + way} L{x2 + side},{y2 - way}"
    else:
        path = f"M{x1 + HALF_WIDTH},{y1} L{x2 - HALF_WIDTH},{y2}"
    return f'<path d="{path}" fill="none" stroke="currentColor" marker-end="url(#head)"/>'


class ConnectionStates(Directive):
    def run(self) -> list[nodes.Node]:
        arrows = sorted(TRANSITIONS, key=lambda pair: (pair[0].value, pair[1].value))
        svg = (
            '<svg viewBox="0 0 760 270" role="img" aria-label="states of a connection"'
            ' style="max-width: 100%; color: inherit" font-size="15" font-family="inherit">'
            '<style>text { fill: currentColor }</style><defs><marker id="head" viewBox="0 0 8 8"'
            ' refX="8" refY="4" markerWidth="9" markerHeight="9" orient="auto">'
            '<path d="M0,0 L8,4 L0,8 z" fill="currentColor"/></marker></defs>'
            + "".join(map(box, ConnectionState))
            + "".join(arrow(start, end) for start, end in arrows)
            + "</svg>"
        )
        picture = nodes.raw("", svg, format="html")
        words = nodes.bullet_list()
        for start, end in arrows:
            text = nodes.paragraph(text=f"{start.value} → {end.value}")
            words += nodes.list_item("", text)
        only_without_picture = nodes.container("", words, classes=["visually-hidden"])
        return [picture] if self.is_html else [only_without_picture]

    @property
    def is_html(self) -> bool:
        return bool(self.state.document.settings.env.app.builder.format == "html")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("connection-states", ConnectionStates)
    return {"parallel_read_safe": True}
