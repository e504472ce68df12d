"""The pages: built without a warning and without a network, and opened without one as well."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FETCHED = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
    "embed": "src",
    "use": "href",
}
"""Attributes from which a browser loads something by itself; a link in the text is none."""


# The build in a process of its own, in which every connection to anywhere is an error.
OFFLINE = """
import socket, sys
def refuse(*address):
    raise PermissionError(f"the build tried to reach {address[1:]}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """The pages, built as `make docs` builds them."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    (flags,) = re.findall(r"-m sphinx (.*) docs site$", makefile, re.MULTILINE)
    assert "-W" in flags.split()
    command = [sys.executable, "-c", OFFLINE, *flags.split(), "-E", str(source), str(out)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT / "docs", out)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out


class Loaded(HTMLParser):
    """The addresses that opening a page loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == FETCHED.get(tag) and value:
                self.addresses.append(value)


def is_elsewhere(address: str) -> bool:
    return bool(re.match(r"(?:[a-z][a-z0-9+.-]*:)?//|https?:", address, re.IGNORECASE))


def test_every_page_is_built(site: Path) -> None:
    sources = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert len(sources) > 10
    for source in sources:
        assert (site / source.with_suffix(".html")).exists()


def test_opening_a_page_loads_nothing_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    loaded = {page: Loaded(page.read_text("utf-8")).addresses for page in pages}
    assert all(loaded.values()), "the pages load their own style sheets at least"
    assert [a for addresses in loaded.values() for a in addresses if is_elsewhere(a)] == []
    for sheet in site.rglob("*.css"):
        text = sheet.read_text("utf-8")
        imported = re.findall(r"(?:@import\s+|url\()\s*[\"']?([^\"')\s]+)", text)
        assert [address for address in imported if is_elsewhere(address)] == [], sheet


def test_what_loads_from_another_host_is_found() -> None:
    page = '<script src="https://cdn.example/x.js"></script><a href="https://example.org">x</a>'
    assert [*filter(is_elsewhere, Loaded(page).addresses)] == ["https://cdn.example/x.js"]
    assert is_elsewhere("//cdn.example/x.css")
    assert not is_elsewhere("../_static/x.css")


def test_formulas_are_mathml_and_need_no_script(site: Path) -> None:
    page = (site / "explanation" / "prefix-sharing.html").read_text("utf-8")
    assert "<math" in page
    assert "$" not in re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    assert not any("mathjax" in address.casefold() for address in Loaded(page).addresses)


def test_a_broken_link_stops_the_build(tmp_path: Path) -> None:
    settings = (ROOT / "docs" / "conf.py").read_text("utf-8")
    settings = re.sub(r"(?m)^release = .*$", 'release = "0"', settings)
    (tmp_path / "conf.py").write_text(settings.replace('["_static"]', "[]"), "utf-8")
    (tmp_path / "index.md").write_text("# Title\n\n[gone](gone.md)\n", "utf-8")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode != 0
    assert "gone.md" in done.stderr
