"""What the site adds to docs/: pages at the top of the repository, the notebook, and links that work there too.

Links are written for GitHub: relative to the file that they stand in. On the site those to another page lead to
that page. Those to a file that is no page (a recipe, a program) lead to the repository where its address is known
(GITHUB_REPOSITORY, as in a workflow), and are plain text where it is not.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

_ROOT = Path(__file__).resolve().parent.parent
_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/verify.ipynb": "notebook.md",
    "findings/README.md": "findings.md",
}
_SOURCES = {page: source for source, page in _PAGES.items()}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        config.repo_url = f"https://github.com/{repository}"
        config.repo_name = repository
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in _PAGES.items():
        text = (_ROOT / source).read_text(encoding="utf-8")
        if source.endswith(".ipynb"):
            text, resources = MarkdownExporter().from_notebook_node(nbformat.reads(text, as_version=4))
            for name, picture in resources["outputs"].items():
                files.append(File.generated(config, name, content=picture))
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    here = page.file.src_uri
    if here == "notebook.md":  # its pictures stand beside it
        return markdown
    source = _SOURCES.get(here, f"docs/{here}")

    def turned(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        path, _, anchor = target.partition("#")
        if "://" in target or not path:
            return match.group()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        inside = _PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if inside is not None:
            target = posixpath.relpath(inside, posixpath.dirname(here) or ".")
            return f"{picture}[{text}]({target}{'#' if anchor else ''}{anchor})"
        return f"[{text}]({config.repo_url}/blob/main/{path})" if config.repo_url else text

    return _LINK.sub(turned, markdown)
