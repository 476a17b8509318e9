"""Writes docs/reference/ from signatures and docstrings: a page for each public package, and their index.

    python -m tests.documents.reference

Griffe reads the source, the library that the generators of sites read it with. Nothing is written here by hand but the map of the
packages: what is missing on a page is missing in a docstring.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

from griffe import Class, Function, ModulesCollection, Object, Parser, load

from tests.documents.entries import wrap, write_entry, write_table, write_text
from tests.documents.objects import get_summary, list_arguments, list_attributes, list_unknown, resolve

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "docs" / "reference"

PACKAGES: Final = {
    "dcaf": "what most programs need, from the packages below",
    "dcaf.core": "sessions, keys, and every error but the client's",
    "dcaf.tools": "tools, and the calls of one turn",
    "dcaf.asgi": "the middleware, and what its settings take",
    "dcaf.agent": "an agent, its service, and what a service of your own is made of (extra `agent`)",
    "dcaf.client": "a client of such a service (extra `client`)",
    "dcaf.demo": "the demo's agent and its service, which the examples serve (extra `demo`)",
    "dcaf.engines": "where a server keeps rows: in memory, in SQLite, or in an engine of your own",
    "dcaf.ledger": "which token of a session is the newest, who holds it, what was used up, and what has ended",
    "dcaf.service": "sessions that are kept on the server: state, history, and what the sessions of a user share",
    "dcaf.integrations.fastapi": "what an endpoint of FastAPI declares",
    "dcaf.integrations.starlette": "a drop-in for Starlette's own SessionMiddleware",
    "dcaf.testing": "for your tests (extra `testing`)",
}
"""Package or module -> what it is for. A name has its entry in the first package after ``dcaf`` that has it."""

SETTINGS: Final = (
    "dcaf.asgi.SessionMiddleware",
    "dcaf.agent.create_app",
    "dcaf.client.Client",
    "dcaf.client.AsyncClient",
    "dcaf.agent.Agent",
)
"""What most programs set."""

QUIET: Final[Any] = {"warnings": False}
"""Griffe would warn of a line that describes several arguments; ``list_undescribed`` tells what it would."""

READ: Final = ModulesCollection()
"""What griffe has read."""

HEAD: Final = """\
# Reference

Every public name and every setting, from signatures and docstrings: `python -m tests.documents.reference` writes these pages. The
guides show them in use.
"""

NAMED: Final = re.compile(r"(?<!\[)`([A-Z]\w+)`")
"""A class in prose."""

TAIL: Final = "What most programs set: {settings}."


@dataclass(frozen=True, slots=True)
class Public:
    """A public name.

    Attributes:
        package: The package that gives it.
        name: What it is called there.
        item: What griffe has read of it.
    """

    package: str
    name: str
    item: Object

    @property
    def heading(self) -> str:
        """Of its entry; a function with the name of a class, but for the capital, says what it is: anchors have no capitals."""
        is_second = isinstance(self.item, Function) and self.name.capitalize() in list_names(self.package)
        return f"{self.name} (function)" if is_second else self.name

    @property
    def link(self) -> str:
        """Where its entry is."""
        return f"{get_page(self.package)}#{get_anchor(self.heading)}"


def names_of(module: ModuleType) -> list[str]:
    """The public names of a package, or those that a module defines itself."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = (name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__)
    return sorted((name for name in own if not name.startswith("_")), key=lambda key: (not key[0].isupper(), key))


def get_page(package: str) -> str:
    """The file name of a package's page."""
    return f"{package.removeprefix('dcaf.').replace('.', '-')}.md"


def get_anchor(heading: str) -> str:
    """What a heading is called in a link, on a code host and on the site."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


@cache
def list_public() -> Mapping[str, list[Public]]:
    """Package -> its public names."""
    load("dcaf", search_paths=[ROOT], docstring_parser=Parser.google, docstring_options=QUIET, modules_collection=READ)
    return {package: [Public(package, name, find(package, name)) for name in list_names(package)] for package in PACKAGES}


@cache
def list_names(package: str) -> list[str]:
    """The public names, and the documented constants and aliases of a module that has no list of its own."""
    module = import_module(package)
    if hasattr(module, "__all__"):
        return names_of(module)
    members = READ[package].members.items()
    documented = [name for name, member in members if not member.is_alias and member.is_attribute and member.docstring]
    own = [name for name in names_of(module) if not isinstance(getattr(module, name), TypeVar)]
    return sorted(
        {*own, *(name for name in documented if not name.startswith("_"))}, key=lambda name: (not name[0].isupper(), name)
    )


def find(package: str, name: str) -> Object:
    """What a package imports under a name, or defines; a module of that name is not meant."""
    module = READ[package]
    where, _, original = module.imports.get(name, f"{package}.{name}").rpartition(".")
    return find(where, original) if where != package else resolve(module.members[name])


@cache
def list_entries() -> Mapping[str, Public]:
    """Canonical path -> the public name under which it has its entry."""
    entries: dict[str, Public] = {}
    for package, names in list_public().items():
        for public in names if package != "dcaf" else ():
            entries.setdefault(public.item.canonical_path, public)
    return entries


def render_pages() -> dict[str, str]:
    """File name -> text of a page."""
    pages = {"README.md": _render_index()}
    for package in PACKAGES:
        pages[get_page(package)] = "\n".join(_link_names(_write_page(package), package))
    return pages


def list_undescribed() -> list[str]:
    """What has an entry without words: public names, arguments where a table lists them, and attributes."""
    found = []
    for public in list_entries().values():
        where = f"{public.package}.{public.name}"
        found += [] if get_summary(public.item) else [where]
        if isinstance(public.item, Class):
            found += [f"{where}.{row.name}" for row in list_attributes(public.item, list_entries()) if not row.description]
        if isinstance(public.item, Class | Function):
            rows = list_arguments(public.item)
            found += [f"{where}({row.name})" for row in rows if not row.description and any(other.description for other in rows)]
            found += [f"{where}({name}), which it does not take" for name in list_unknown(public.item)]
    return found


def _render_index() -> str:
    links = {f"{public.package}.{public.name}": public.link for public in list_entries().values()}
    settings = [f"[`{path.rpartition('.')[2]}`]({links[path]})" for path in SETTINGS]
    rows = ([f"[`{name}`]({get_page(name)})", purpose] for name, purpose in PACKAGES.items())
    tail = wrap(TAIL.format(settings=", ".join(settings)))
    return "\n".join([HEAD, *write_table(["import from", "what is there"], rows), *tail, ""])


def _write_page(package: str) -> Iterator[str]:
    links = {path: public.link for path, public in list_entries().items()}
    links |= {public.name: public.link for public in list_entries().values() if _is_error(public.item)}
    names = list_public()[package]
    own = [public for public in names if list_entries()[public.item.canonical_path] is public]
    errors = [public for public in own if _is_error(public.item)]
    yield from [f"# {package}", ""]
    yield from write_text(_read_about(package))
    yield from write_table(["name", "what it is"], (_list_name(public) for public in names if public not in errors))
    yield from write_table(["error", "code", "status", "when"], (_list_error(public) for public in errors))
    for public in sorted(own, key=errors.__contains__):
        yield from write_entry(public.heading, public.item, links)


def _link_names(lines: Iterator[str], package: str) -> Iterator[str]:
    """The lines with a link wherever prose names a public class."""
    links = _list_links(package)
    is_code = False
    for line in lines:
        is_code ^= line.startswith("```")
        start, bar, prose = line.removesuffix(" |").rpartition(" | ") if line.startswith("| ") else ("", "", line)
        linked = (
            prose
            if is_code
            else NAMED.sub(lambda found: f"[{found[0]}]({links[found[1]]})" if found[1] in links else found[0], prose)
        )
        yield from (
            [line] if linked == prose else [f"{start} | {linked} |"] if bar else wrap(linked, "  " if line.startswith("-") else "")
        )


def _list_links(package: str) -> dict[str, str]:
    """Name -> its entry: that of the package itself, or of ``dcaf``, or the only one."""
    entries = list_entries()
    count = Counter(public.name for public in entries.values())
    found = {public.name: public.link for public in entries.values() if count[public.name] == 1}
    near = [*list_public()["dcaf"], *list_public()[package]]
    return found | {public.name: entries[public.item.canonical_path].link for public in near}


def _read_about(package: str) -> str:
    return inspect.cleandoc(import_module(package).__doc__ or "")


def _list_name(public: Public) -> list[str]:
    return [f"[`{public.name}`]({list_entries()[public.item.canonical_path].link})", get_summary(public.item)]


def _list_error(public: Public) -> list[str]:
    error = getattr(import_module(public.package), public.name)
    return [f"[`{public.name}`]({public.link})", f"`{error.code}`", str(error.http_status), get_summary(public.item)]


def _is_error(item: Object) -> bool:
    return isinstance(item, Class) and any(base.name == "DcafError" for base in [item, *item.mro()])


def write_pages(folder: Path) -> None:
    """Write the pages, and take out those of packages that are no longer public."""
    pages = render_pages()
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    write_pages(FOLDER)
    sys.stdout.write(f"wrote {FOLDER.relative_to(ROOT)}\n")
