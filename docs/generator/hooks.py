"""MkDocs' hooks: pages from the top of the repository, and links as the site needs them.

Pages are written for a reader of the repository: `docs/data.md` in README.md, `../data/toy.yaml` in docs/data.md. A
link is followed there; where it leads to a page or picture of the site it is made relative to the page, and where it
leads to another file of the repository its text stays as code, because the repository has no address yet.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
import reference  # beside this file, which is in no package

ROOT = Path(__file__).parent.parent.parent
# Files at the top of the repository -> their place in the site.
TOP = {"README.md": "index.md"} | {name: name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")}
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]\n]*)\]\((?P<to>[^)\s]+)\)")
# Beside this file: looks, and what makes the search work on pages opened from a disk.
BESIDE = ("site.css", "iframe-worker.js")
WIDE = ("keys.md", "published.md")  # one long table: it gets the room of the table of contents, too
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^ {0,3}```.*?^ {0,3}```|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add what lies outside docs/, and what is written from the code."""
    for name, place in TOP.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / name)))
    for name in BESIDE:
        files.append(File.generated(config, name, abs_src_path=str(Path(__file__).parent / name)))
    for place, text in reference.pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """The page with its links as they are in the site."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    source = next((name for name, place in TOP.items() if place == page.file.src_uri), f"docs/{page.file.src_uri}")
    places = {**{f"docs/{file.src_uri}": file.src_uri for file in files}, **TOP}
    return with_links(DIAGRAM.sub(as_lists, markdown), source, page.file.src_uri, places)


def as_lists(diagram: re.Match[str]) -> str:
    """A diagram's routes as lists: the script that draws it, as git hosts do, would come from elsewhere."""
    routes = re.findall(r"subgraph \w+ \[(.*?)\](.*?)\n  end", diagram[1], re.DOTALL)
    return "\n".join(
        f"**{title}**\n\n"
        + "".join(f"1. {text}: `{file}`\n" for text, file in re.findall(r'\["(.*?): (.*?)"\]', stops))
        for title, stops in routes
    )


def with_links(markdown: str, source: str, place: str, places: dict[str, str]) -> str:
    """The text of the repository's file `source` as the page `place` has it.

    Args:
        markdown: the text.
        source: a path in the repository.
        place: a path in the site.
        places: path in the repository -> in the site.

    Raises:
        FileNotFoundError: a link leads to no file.
    """
    code = [found.span() for found in CODE.finditer(markdown)]

    def renewed(link: re.Match[str]) -> str:
        to, _, anchor = link["to"].partition("#")
        if not to or ":" in to or any(start <= link.start() < end for start, end in code):
            return link[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), to))
        if file in places:
            there = posixpath.relpath(places[file], posixpath.dirname(place) or ".")
            return f"{link['picture']}[{link['text']}]({there}{'#' + anchor if anchor else ''})"
        if not (ROOT / file).exists():
            raise FileNotFoundError(f"{source}: {link[0]}: no such file: {file}")
        return link["text"] if link["text"].startswith("`") else f"`{link['text']}`"

    return LINK.sub(renewed, markdown)
