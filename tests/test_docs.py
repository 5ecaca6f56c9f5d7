"""Links and paths in the pages for people lead somewhere, as GitHub reads them."""

import re
import tomllib
from pathlib import Path

import pytest

import thinkprm_jax
from support import row_tables
from thinkprm_jax import records
from thinkprm_jax.records.schema import Record, Row

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "findings" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|yaml|yml|sh|jsonl|ipynb|cff))`")


def heading_anchors(text: str) -> set[str]:
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        if anchor:
            assert anchor in heading_anchors(place.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_of_the_repository_exist(page: Path) -> None:
    tops = {"train", "infer", "tests", "docs", "configs", "examples", "benchmarks", "findings", "thinkprm_jax"}
    rooms = {path.name for path in (ROOT / "thinkprm_jax").iterdir() if path.is_dir()}
    for path in PATH.findall(page.read_text(encoding="utf-8")):
        top = path.split("/")[0]
        if top in tops or top in rooms:
            assert (ROOT / path).exists() or (ROOT / "thinkprm_jax" / path).exists(), path


def test_every_public_name_is_on_one_page_of_the_api() -> None:
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md")]
    shown = [name for page in pages for name in re.findall(r"^::: thinkprm_jax\.(\w+)$", page, flags=re.MULTILINE)]
    assert sorted(shown) == sorted(name for name in thinkprm_jax.__all__ if name != "__version__")


def test_every_setting_of_every_kind_is_in_the_tables() -> None:
    from thinkprm_jax.verifier.registry import kinds, settings_class
    from thinkprm_jax.verifier.settings import settings_of, settings_table

    page = (ROOT / "docs" / "verifiers.md").read_text(encoding="utf-8")
    for kind in kinds():
        assert f"`{kind}`" in page
        if settings_of(settings_class(kind)):
            assert settings_table(settings_class(kind)) in page, kind


@pytest.mark.parametrize("kind", row_tables.CLASSES, ids=lambda kind: kind.__name__)
def test_every_field_of_every_row_is_in_the_tables(kind: type[Record]) -> None:
    page = row_tables.PAGE.read_text(encoding="utf-8")
    assert f"\n### {kind.__name__}\n" in page
    assert row_tables.fields_table(kind) in page, "python tests/support/row_tables.py writes it"


def test_every_row_class_is_documented() -> None:
    found = {value for value in vars(records).values() if isinstance(value, type) and issubclass(value, Record)}
    assert found - {Record, Row} == set(row_tables.CLASSES)


def test_every_file_is_named() -> None:
    page = row_tables.PAGE.read_text(encoding="utf-8")
    names = re.compile(r"[/ (=]f?\"(?:\{\w+\})?([a-z_]+\.(?:jsonl?|png|svg|html|md|yaml))\"")
    written: set[str] = set()
    for room in ("collect", "evaluation", "miniature", "records", "report", "search", "training", "views"):
        for file in (ROOT / "thinkprm_jax" / room).rglob("*.py"):
            written |= set(names.findall(file.read_text(encoding="utf-8")))
    for program in (*(ROOT / "infer").glob("*.py"), *(ROOT / "train").glob("*.py")):
        written |= set(names.findall(program.read_text(encoding="utf-8")))
    read_only = {"config.json", "state.json", "dataset_dict.json", "examples.jsonl", "page.html"}
    assert len(written) > 15
    assert not {name for name in written - read_only if f"`{name}`" not in page}


def test_every_finding_is_in_the_list() -> None:
    page = (ROOT / "findings" / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+\.sh)`", page, flags=re.MULTILINE)) == sorted(
        path.name for path in (ROOT / "findings").glob("*.sh")
    )


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project
    assert project["dynamic"] == ["version"]
    from importlib.metadata import version

    assert version("thinkprm-jax") == thinkprm_jax.__version__
