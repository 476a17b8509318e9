"""How the chat page looks: pictures of it, what overlaps, and what a screen reader could not use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from axe_playwright_python.sync_playwright import Axe

from tests.browser.visitor import Visitor

WIDTHS: Final = (360, 414, 800, 1400)
PHONE_PX: Final = 720
LEAST: Final = 25
"""Things that are seen in every state of the page."""

SHOTS: Final = Path(__file__).parents[2] / "build" / "screenshots"
OVERLAPS: Final = Path(__file__).with_name("overlaps.js").read_text()
UNFOLD: Final = "isOpen => document.querySelectorAll('details').forEach(details => { details.open = isOpen })"
AXE_TAGS: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CONTRAST: Final = "color-contrast"


def checked(visitor: Visitor, name: str) -> None:
    """Nothing overlaps at any width, and axe-core finds nothing in any scheme; boxes are the same in both."""
    for width in WIDTHS:
        assert looked_at(visitor, name, width=width) == [], f"{name} at {width}"
        if width < PHONE_PX:
            visitor.page.evaluate(UNFOLD, True)
            assert problems(visitor) == [], f"{name} at {width}, unfolded"
            visitor.page.evaluate(UNFOLD, False)
    assert violations(visitor) == [], name
    for width in WIDTHS:
        picture(visitor, name, width=width, scheme="dark")
    assert violations(visitor, scheme="dark") == [], f"{name}, dark"


def looked_at(visitor: Visitor, name: str, *, width: int) -> list[Any]:
    """Keep a picture; whatever overlaps or is cut off in it."""
    picture(visitor, name, width=width, scheme="light")
    return problems(visitor)


def picture(visitor: Visitor, name: str, *, width: int, scheme: str) -> None:
    """Keep one."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    visitor.page.set_viewport_size({"width": width, "height": 900})
    visitor.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    visitor.page.screenshot(path=SHOTS / f"{name}-{width}-{scheme}.png", full_page=True)


def problems(visitor: Visitor) -> list[Any]:
    """Whatever overlaps or is cut off now."""
    found = visitor.page.evaluate(OVERLAPS)
    assert found["count"] > LEAST, "there is much to be seen"
    return list(found["problems"])


def violations(visitor: Visitor, *, scheme: str = "light") -> list[str]:
    """What axe-core has against the page; of the rules only that for contrasts depends on the scheme."""
    tried: dict[str, Any] = {"type": "tag", "values": AXE_TAGS} if scheme == "light" else {"type": "rule", "values": [CONTRAST]}
    found = Axe().run(visitor.page, options={"runOnly": tried}).response
    assert len(found["passes"]) >= (20 if scheme == "light" else 1), "the rules were really tried"
    return [f"{item['id']}: {node['html']}" for item in found["violations"] for node in item["nodes"]]
