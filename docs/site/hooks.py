"""What `make docs` does beside rendering: pages of the repository's top folder, and links that leave docs."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
TOP = {
    name: f"{name.removesuffix('.md').lower()}.md"
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
}
REPOSITORY = "https://github.com/pynas/pynas/blob/main/"
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the top folder, with links as seen from docs."""
    for name, page in TOP.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=relocated(text, "")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links that leave docs lead to the page made of their target, or to the repository."""
    if page.file.generated_by is not None:
        return markdown
    return relocated(markdown, posixpath.join("docs", posixpath.dirname(page.file.src_uri)))


def relocated(markdown: str, folder: str) -> str:
    """``markdown`` of a page in ``folder`` of the repository, with its links as the site has them."""
    here = folder.removeprefix("docs").strip("/")

    def link(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[2]))
        if path in TOP:
            target = posixpath.relpath(TOP[path], here or ".")
        elif path.startswith("docs/") and (ROOT / path).is_file():
            target = posixpath.relpath(path.removeprefix("docs/"), here or ".")
        else:
            target = REPOSITORY + path
        return f"{match[1]}{target}{match[3]}"

    return LINK.sub(link, markdown)
