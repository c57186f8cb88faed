"""The site builds without a warning and without a network, has all that it should, and every link leads somewhere."""

import ast
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import clreplay
from clreplay.command.main import COMMANDS
from clreplay.command.run import SCRIPTS
from clreplay.recipes.recipe import recipe_names

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


class Page(HTMLParser):
    """What a built page names: ids, links, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.add(given.get("id"))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif given.get("src") or (tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon")):
            self.loaded.append(given.get("src") or given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, by the path of its pages."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_link_leads_somewhere(site, pages):
    wrong = []
    for name, page in pages.items():
        for link in page.links:
            if "://" in link or link.startswith("mailto:"):
                continue
            path, _, anchor = unquote(link).partition("#")
            target = (site / name).parent / path if path else site / name
            target = target / "index.html" if target.is_dir() else target
            there = target.is_file()
            if there and anchor and target.suffix == ".html":
                there = anchor in pages[target.resolve().relative_to(site.resolve()).as_posix()].ids
            if not there:
                wrong.append((name, link))
    assert wrong == [] and sum(len(page.links) for page in pages.values()) > 500


def test_nothing_is_loaded_from_elsewhere(site, pages):
    loaded = [(name, one) for name, page in pages.items() for one in page.loaded]
    assert len(loaded) > 100 and [one for one in loaded if "://" in one[1] or one[1].startswith("//")] == []
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert styles and not [text for text in styles if re.search(r"(@import|url\()\s*['\"]?(https?:)?//", text)]


def test_pages_of_the_whole_repository_are_there(pages):
    own = {f"{page.stem}.html" for page in DOCS.glob("*.md")}
    results = {f"results/{page.stem}.html" for page in (ROOT / "results").glob("*.md") if page.stem != "README"}
    alone = {"index.html", "results/index.html", "ARCHITECTURE.html", "CONTRIBUTING.html", "SECURITY.html"}
    assert own | results | alone <= set(pages)


def test_commands_and_names_are_complete(site, pages):
    text = (site / "command_line.html").read_text(encoding="utf-8")
    shown = {re.sub(r"<[^>]*>", "", title).rstrip("¶ ") for title in re.findall(r"<h3[^>]*>(.*?)</h3>", text)}
    shown = {title.replace("&para;", "") for title in shown}
    scripts = {f"clreplay run {name}" for name in SCRIPTS if name != "static-tables"}
    assert shown == {"clreplay"} | {f"clreplay {name}" for name in COMMANDS} | scripts
    assert "--images-per-class N" in text and "--shards N" in text and text.count("-h, --help") >= len(shown)
    listed = (site / "recipes.html").read_text(encoding="utf-8")
    assert all(re.search(rf"^{re.escape(name)} +\S", listed, re.MULTILINE) for name in recipe_names())
    names = {one.rsplit(".", 1)[-1] for one in pages["api.html"].ids if one and one.startswith("clreplay.")}
    assert set(clreplay.__all__) - {"__version__"} <= names
    assert ":class:" not in (site / "api.html").read_text(encoding="utf-8")


def test_a_link_to_nothing_stops_the_build():
    pytest.importorskip("mkdocs")
    sys.path.insert(0, str(DOCS))
    try:
        import site_pages
    finally:
        sys.path.remove(str(DOCS))
    text = "[a](../results/README.md#x) [b](../results/analysis) ![c](../results/rate_accuracy/bytes.png) `[d](no)`"
    pictures = set()
    turned = site_pages.turned(text, "docs/start.md", pictures)
    assert turned == "[a](results/README.md#x) b (`results/analysis`) ![c](results/rate_accuracy/bytes.png) `[d](no)`"
    assert pictures == {"results/rate_accuracy/bytes.png"}
    with pytest.raises(ValueError, match=r"docs/start\.md: gone\.md leads to nothing"):
        site_pages.turned("[e](gone.md)", "docs/start.md")


# ---------------------------------------------------------------- messages

GAP = "…"


def said(node):
    """The text of an expression, with gaps for what is filled in; None where it is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[-+.\d]*[sdgif]", GAP, node.value).replace("%%", "%")
    if isinstance(node, ast.JoinedStr):
        return "".join(said(part) if isinstance(part, ast.Constant) else GAP for part in node.values)
    return None


def all_texts():
    """Every text of the code, one a line."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "clreplay").rglob("*.py"))
    return {text for tree in trees for node in ast.walk(tree) if (text := said(node)) and len(text) > 12}


def occurs(message, texts):
    """Whether one text of the code says all of a message, in its order."""
    parts = [re.escape(part) for part in message.split(GAP) if part.strip()]
    pattern = re.compile(".*?".join(parts), re.DOTALL)
    return any(pattern.search(text) for text in texts)


def quoted():
    """Every message of the page on errors."""
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    entries = [line for line in page.splitlines() if line.startswith("- ")]
    return [message for line in entries for message in re.findall(r"`([^`]+)`", re.split(r"`(?::| \()", line)[0] + "`")]


@pytest.fixture(scope="module")
def texts():
    return all_texts()


@pytest.mark.parametrize("message", quoted())
def test_a_message_that_is_explained_is_still_said(message, texts):
    assert occurs(message, texts)


def test_messages_are_looked_for_as_a_whole(texts):
    assert len(quoted()) >= 45
    assert not occurs("mem_size must be at least the number of classes seen (…), got …; lower it", texts)
