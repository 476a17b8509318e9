"""The plots of the page, as SVG with a background of its own: they can be read on a white page and on a dark one.

>>> marks = Scale(1, 1_000, 0, 300)
>>> marks(10), marks.powers()
(100.0, [1, 10, 100, 1000])
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 800
STYLE: Final = """\
svg { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif }
.ground { fill: #ffffff } text { fill: #24292f } .faint { fill: #57606a } .grid { stroke: #d8dee4 }
.title { font-size: 15px; font-weight: 600 } .end { text-anchor: end } .middle { text-anchor: middle }
path { fill: none; stroke-width: 2.2 }
@media (prefers-color-scheme: dark) {
  .ground { fill: #161b22 } text { fill: #e6edf3 } .faint { fill: #9198a1 } .grid { stroke: #3d444d }
}"""
COLOURS: Final = ("#2f81f7", "#2da44e", "#a371f7", "#e5534b", "#d4772c", "#8b949e")
"""Each has enough contrast on both grounds."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic scale from values to places on the picture."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value."""
        part = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return round(self.start + part * (self.end - self.start), 1)

    def powers(self) -> list[int]:
        """The powers of ten on the scale."""
        return [10**power for power in range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)]


def lines(title: str, unit: str, series: Mapping[str, Mapping[str, float]], sizes: Mapping[str, int]) -> str:
    """Several curves over the size of the state, both axes logarithmic; each has its name at its end."""
    height, left, right, top, bottom = 430, 72, 526, 60, 385
    values = [value for found in series.values() for value in found.values()]
    low, high = 10 ** math.floor(math.log10(min(values))), max(values) * 1.3
    x, y = Scale(min(sizes.values()), max(sizes.values()), left, right), Scale(low, high, bottom, top)
    parts = [_text(left, 26, title, "title"), _text(left, 46, unit, "faint")]
    for power in y.powers():
        parts += [_line(left, y(power), right, y(power)), _text(left - 8, y(power) + 4, f"{power:,}", "faint end")]
    for name, size in sizes.items():
        parts += [_line(x(size), top, x(size), bottom), _text(x(size), bottom + 20, name, "faint middle")]
    heights = _apart({name: y(list(found.values())[-1]) for name, found in series.items()}, 17)
    for (name, found), colour in zip(series.items(), COLOURS, strict=False):
        points = [(x(sizes[size]), y(value)) for size, value in found.items()]
        parts += [_curve(points, colour), *(_dot(*point, colour) for point in points)]
        parts.append(_text(right + 12, heights[name] + 4, name, colour=colour))
    return _svg(height, title, parts)


def bars(title: str, unit: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Bars in groups, on a logarithmic scale that starts at 1; each has its value at its end."""
    rows = sum(len(found) for found in groups.values())
    left, right, top, row = 262, 690, 96, 17
    height = top + rows * row + len(groups) * 10 + 30
    x = Scale(1, max(value for found in groups.values() for value in found.values()) * 1.05, left, right)
    colours = dict(zip(next(iter(groups.values())), COLOURS, strict=False))
    parts = [_text(16, 26, title, "title"), _text(16, 46, unit, "faint"), *_legend(colours, 16, 66)]
    for power in x.powers():
        parts += [_line(x(power), top - 8, x(power), height - 26), _text(x(power), height - 8, f"{power:,}", "faint middle")]
    at = float(top)
    for group, found in groups.items():
        parts.append(_text(left - 10, at + row * len(found) / 2 + 4, group, "end"))
        for name, value in found.items():
            parts += [
                _bar(left, at + 2, x(value) - left, row - 4, colours[name]),
                _text(x(value) + 5, at + 13, _ratio(value), "faint"),
            ]
            at += row
        at += 10
    return _svg(height, title, parts)


def _svg(height: float, title: str, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" role="img">'
    )
    ground = f'<rect class="ground" width="{WIDTH}" height="{height:g}" rx="8"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", ground, *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, kind: str = "", *, colour: str | None = None) -> str:
    style = f' style="fill: {colour}"' if colour else f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{style}>{escape(text)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line class="grid" x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}"/>'


def _curve(points: Iterable[tuple[float, float]], colour: str) -> str:
    return f'<path stroke="{colour}" d="M{" L".join(f"{x:g} {y:g}" for x, y in points)}"/>'


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="3.2" fill="{colour}"/>'


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{max(1, width):g}" height="{height:g}" rx="2" fill="{colour}"/>'


def _legend(colours: Mapping[str, str], x: float, y: float) -> list[str]:
    parts = []
    for name, colour in colours.items():
        parts += [_bar(x, y, 12, 12, colour), _text(x + 18, y + 11, name)]
        x += 40 + 7 * len(name)
    return parts


def _apart(heights: Mapping[str, float], distance: float) -> dict[str, float]:
    """The same heights, moved down as far as names need that they do not overlap."""
    placed: dict[str, float] = {}
    last = -math.inf
    for name in sorted(heights, key=lambda name: heights[name]):
        last = max(heights[name], last + distance)
        placed[name] = last
    return placed


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
