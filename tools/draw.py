# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws docs/pipeline.svg from docs/pipeline.yml."""

from __future__ import annotations

from html import escape
from pathlib import Path

import yaml

SOURCE = Path(__file__).resolve().parents[1] / "docs" / "pipeline.yml"

FONT, LINE_HEIGHT = 12, 17
COLOURS = {
    # Fill and border.
    "white": ("#ffffff", "#57606a"),
    "grey": ("#f0f2f5", "#57606a"),
    "green": ("#dcf3e1", "#1a7f37"),
    "orange": ("#ffe8cc", "#bc4c00"),
    "blue": ("#d8ebff", "#0969da"),
}
# The background is part of the picture, so that it can be read on a dark page.
FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img"
 font-family="Helvetica, Arial, sans-serif" font-size="{font}" fill="#1f2328">
<title>{title}</title>
<defs>
<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto-start-reverse">
<path d="M0 0L10 5L0 10z" fill="#57606a"/>
</marker>
</defs>
<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>
{body}
</svg>
"""


def label(at: list[float], text: str, anchor: str = "start", size: int = FONT, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{at[0]:g}" y="{at[1]:g}" text-anchor="{anchor}" font-size="{size}"{weight}>{escape(text, quote=False)}</text>'


def box(at: list[float], colour: str, lines: str) -> str:
    """Return a box with its lines, the first of them bold."""
    x, y, width, height = at
    fill, border = COLOURS[colour]
    drawn = [f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" stroke="{border}"/>']
    for number, line in enumerate(lines.split("/")):
        if line.strip():
            drawn.append(label([x + width / 2, y + 20 + number * LINE_HEIGHT], line.strip(), "middle", bold=number == 0))
    return "\n".join(drawn)


def arrow(path: list[list[float]], heads: str = "end") -> str:
    """Return a line with a head at its start, at its end or at both."""
    points = " ".join(f"{x:g},{y:g}" for x, y in path)
    markers = "".join(f' marker-{end}="url(#head)"' for end in ("start", "end") if heads in (end, "both"))
    return f'<polyline points="{points}" fill="none" stroke="#57606a" stroke-width="1.5"{markers}/>'


def chain(at: list[float], stages: dict[str, str]) -> list[str]:
    """Return the stages, left to right, with an arrow between two."""
    gap = 16
    x, y, width, height = at
    step = (width + gap) / len(stages)
    drawn = []
    for number, (name, about) in enumerate(stages.items()):
        left = x + number * step
        drawn.append(box([left, y, step - gap, height], "green", f"{name} / {about}"))
        if number:
            drawn.append(arrow([[left - gap, y + height / 2], [left, y + height / 2]]))
    return drawn


def draw(source: dict) -> str:
    """Return the SVG of a description such as docs/pipeline.yml."""
    width, height = source["size"]
    body = [
        *chain(source["stages"]["at"], source["stages"]["list"]),
        *(box(**item) for item in source["boxes"]),
        *(arrow(**item) for item in source["arrows"]),
        *(label(**item) for item in source["texts"]),
    ]
    return FRAME.format(width=width, height=height, font=FONT, title=escape(source["title"]), body="\n".join(body))


if __name__ == "__main__":
    SOURCE.with_suffix(".svg").write_text(draw(yaml.safe_load(SOURCE.read_text(encoding="utf-8"))), encoding="utf-8")
