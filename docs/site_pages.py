"""MkDocs hook: pages of the repository outside docs/ become part of the site, and links work in both places.

Nothing is copied: README.md, ARCHITECTURE.md and results/*.md are read where they lie. A link of any page is written
as the repository needs it; here it is turned to the page of the site. A link to a file that is no page (a folder of
results, an example, a source file) becomes its path in the repository, unless it is a picture, which is taken along.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
ALONE = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
PICTURES = (".png", ".svg", ".gif")
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data): ?(?=<code|<a)")  # of docstrings


def brought_in() -> dict[str, Path]:
    """The pages outside docs/, by their place on the site."""
    results = {f"results/{page.name}": page for page in sorted((ROOT / "results").glob("*.md"))}
    return {"index.md": ROOT / "README.md", **{name: ROOT / name for name in ALONE}, **results}


def places() -> dict[str, str]:
    """Every page's path in the repository, to its place on the site."""
    own = {f"docs/{page.name}": page.name for page in (ROOT / "docs").glob("*.md")}
    return {**own, **{page.relative_to(ROOT).as_posix(): place for place, page in brought_in().items()}}


def turned(markdown: str, page: str, pictures: set[str] | None = None) -> str:
    """A page's text with its links as the site needs them.

    Args:
        markdown: the text.
        page: the page's path in the repository.
        pictures: the pictures that it shows are added here, by their paths in the repository.

    Raises:
        ValueError: a link leads to nothing in the repository.
    """
    to = places()
    here = os.path.dirname(to[page])

    def turn(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        address, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:") or not address:
            return match[0]
        path = os.path.normpath(os.path.join(os.path.dirname(page), address))
        if not (ROOT / path).exists():
            raise ValueError(f"{page}: {target} leads to nothing")
        if path in to:
            return f"{mark}[{text}]({os.path.relpath(to[path], here or '.')}{'#' + anchor if anchor else ''})"
        if path.endswith(PICTURES):
            if pictures is not None:
                pictures.add(path)
            return f"{mark}[{text}]({os.path.relpath(path, here or '.')})"
        return f"`{path}`" if text.strip("`") in (path, os.path.basename(path)) else f"{text} (`{path}`)"

    parts = re.split(r"(^```.*?^```\s*$|`[^`\n]*`)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if number % 2 else LINK.sub(turn, part) for number, part in enumerate(parts))


def helps() -> str:
    """What ``--help`` prints, of every command and script."""
    import click

    from clreplay.command.main import COMMANDS, command
    from clreplay.command.run import SCRIPTS

    def block(title: str, text: str) -> str:
        return f"### {title}\n\n```text\n{text.strip()}\n```\n"

    width = {"terminal_width": 100, "max_content_width": 100}
    with click.Context(command, info_name="clreplay", **{**command.context_settings, **width}) as top:
        blocks = [block("clreplay", command.get_help(top))]
        for name in COMMANDS:
            if name == "tables":
                continue  # the same flags as `clreplay run static-tables`
            sub = command.get_command(top, name)
            with click.Context(sub, info_name=name, parent=top, **width) as context:
                blocks.append(block(f"clreplay {name}", sub.get_help(context)))
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"  # argparse's width
    try:
        for name, (load, _) in SCRIPTS.items():
            title = "clreplay tables" if name == "static-tables" else f"clreplay run {name}"
            blocks.append(block(title, load().parser(title).format_help()))
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return "\n".join(blocks)


def recipes() -> str:
    """What ``clreplay memories`` prints."""
    from clreplay.command.main import command

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        command.main(["memories"], standalone_mode=False)
    return f"```text\n{out.getvalue().strip()}\n```"


GENERATED = {"<!-- every --help -->": helps, "<!-- clreplay memories -->": recipes}
"""Comments in pages of docs/, and what the site has in their place."""


def on_files(files: Files, config: Any) -> Files:
    """Take the pages outside docs/ along, and the pictures that any page shows."""
    pictures: set[str] = set()
    for page in places():
        turned((ROOT / page).read_text(encoding="utf-8"), page, pictures)
    for place, page in brought_in().items():
        files.append(File.generated(config, place, abs_src_path=str(page)))
    for picture in sorted(pictures):
        files.append(File.generated(config, picture, abs_src_path=str(ROOT / picture)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn the links, and fill in what is generated."""
    path = next(path for path, place in places().items() if place == page.file.src_uri)
    text = turned(markdown, path)
    for comment, make in GENERATED.items():
        if comment in text:
            text = text.replace(comment, make())
    return text


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Take the roles of docstrings away, which Markdown does not know."""
    return ROLE.sub("", html)
