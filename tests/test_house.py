"""The rules that a program can check: which package may import which, and what loads torch."""

from __future__ import annotations

import ast
import graphlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from thinkprm_jax.cli import PROGRAMS

ROOT = Path(__file__).parents[1]
PACKAGE = "thinkprm_jax"
# The lowest first: a file may import its own package and every package of a lower layer.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "activity", "bundled", "caches"),
    ("storage",),
    ("paths",),
    ("user_files",),
    ("recipe", "program", "progress", "runtime", "seeds", "tables", "distributed", "gguf_header"),
    ("tokenizer", "grading"),
    ("protocol",),
    ("records", "model"),
    ("data",),
    ("arithmetic",),
    ("checkpoint",),
    ("export",),
    ("sampler", "training", "rewards"),
    ("verifier",),
    ("functional",),
    ("collect", "search"),
    ("evaluation",),
    ("miniature",),
    ("report",),
    ("serving", "fleet"),
    ("__init__",),
    ("views",),
    ("train", "infer"),
    ("cli",),
)
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}
# Also forbidden, inside what the layers allow.
FORBIDDEN = {
    "sampler": {"protocol", "records", "data", "arithmetic"},  # the sampler knows nothing of verdicts
    "verifier/script.py": {"distributed", "model", "checkpoint"},  # the script of a verification knows no devices
}
LONGEST_FILE = 450
LONGEST_IN = {"sampler": 650}  # an engine reads best in few places
# What only programs and views use: where each may stand beside train/, infer/ and cli.py.
VIEWS = {"argparse": ("views/",), "rich": ("views/", "progress.py"), "matplotlib": ("views/",)}


def library() -> list[Path]:
    return [path for top in (PACKAGE, "train", "infer") for path in sorted((ROOT / top).rglob("*.py"))]


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    first = parts[1] if parts[0] == PACKAGE else parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """(dotted module or name imported from it, whether inside a function)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where an arrow points"
            yield from ((f"{node.module}.{alias.name}", inside) for alias in node.names)
        else:
            yield from imports(
                node, inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            )


@pytest.mark.parametrize("path", library(), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_down(path: Path) -> None:
    package = package_of(path)
    assert package in LAYER, f"a new package {package}: say in this table in which layer it is"
    forbidden = (
        FORBIDDEN.get(package, set()) | FORBIDDEN.get(path.relative_to(ROOT / PACKAGE).as_posix(), set())
        if (path.is_relative_to(ROOT / PACKAGE))
        else set()
    )
    for name, _ in imports(ast.parse(path.read_text(encoding="utf-8"))):
        if name.split(".")[0] in ("train", "infer", "tests", "benchmarks"):
            pytest.fail(f"imports {name}; programs and tests are nobody's library")
        if name.split(".")[0] != PACKAGE:
            continue
        inner = name.removeprefix(f"{PACKAGE}.").removeprefix(PACKAGE)
        target = inner.split(".")[0]
        if target not in LAYER:  # `from thinkprm_jax import ThinkPRM`
            target = "__init__"
        allowed = target == package or LAYER[target] < LAYER[package]
        assert allowed, f"{package} imports {name}, which is not below it"
        assert not any(inner == one or inner.startswith(f"{one}.") for one in forbidden), f"forbidden: {name}"


@pytest.mark.parametrize("path", library(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_file_loads(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < LONGEST_IN.get(package_of(path), LONGEST_FILE)
    for name, inside in imports(ast.parse(text)):
        top = name.split(".")[0]
        assert top not in ("torch", "tensorflow"), "the oracles are for tests and benchmarks"
        assert inside or top not in ("transformers", "datasets", "sentencepiece"), (
            f"{name}: import it where it is used"
        )
    programs = {module.removeprefix("thinkprm_jax.").replace(".", "/") + ".py" for module, _ in PROGRAMS.values()}
    light = ("cli", "program", "errors", "paths", "__init__")
    if package_of(path) in light or str(path.relative_to(ROOT)) in programs:
        # `thinkprm --help` is quick
        top_level = {name.split(".")[0] for name, inside in imports(ast.parse(text)) if not inside}
        assert not top_level & {"jax", "flax", "numpy", "optax", "orbax", "rich", "tokenizers", "yaml"}


def test_only_the_command_line_names_the_programs() -> None:
    for path in library():
        text = path.read_text(encoding="utf-8")
        named = f"{PACKAGE}.train." in text or f"{PACKAGE}.infer." in text
        assert not named or package_of(path) in ("cli", "train", "infer"), path


@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_files_elsewhere_are_short_too(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert path.read_text(encoding="utf-8").count("\n") < LONGEST_FILE, path


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == PACKAGE else (PACKAGE, *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in library()}


def test_no_circle_of_modules() -> None:
    """Imports within functions and for type checkers count, too."""
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        names = {name for name, _ in imports(ast.parse(path.read_text(encoding="utf-8")))}
        used = {name if name in MODULES else name.rpartition(".")[0] for name in names}
        graph[module] = (used & set(MODULES)) - {module}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_no_private_name_is_imported() -> None:
    for path in library():
        for name, _ in imports(ast.parse(path.read_text(encoding="utf-8"))):
            parts = name.split(".")
            private = [part for part in parts if part.startswith("_") and not part.endswith("__")]
            assert parts[0] != PACKAGE or not private, f"{path}: {name}"


def test_no_class_name_stands_twice() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in library()]
    names = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert not [name for name, count in names.items() if count > 1]


def test_views_stay_out_of_library_packages() -> None:
    for path in library():
        if package_of(path) in ("train", "infer", "cli"):
            continue
        for name, _ in imports(ast.parse(path.read_text(encoding="utf-8"))):
            allowed = VIEWS.get(name.split(".")[0])
            inside = path.relative_to(ROOT / PACKAGE).as_posix()
            assert allowed is None or inside.startswith(allowed), f"{inside} imports {name}"
