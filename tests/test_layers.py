"""The layering rule: data flows one way, and the core knows no Python."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "reluflow"

# A module may import those of its own line and of the lines before it.
LAYERS = [
    ["_core"],
    ["_validation", "_results", "_threads", "reference"],
    ["_dispatch"],
    ["_provenance", "_progress"],
    ["certificates"],
    ["_assumption", "_conflicts", "_covariance", "_digits", "_loading"],
    ["data"],
    ["_targets"],
    ["network", "deep_network"],
    ["problem", "_span"],
    ["reduction", "adversarial"],
    ["flow"],
    ["kkt"],
    ["robustness"],
    ["generalization"],
    ["_robust_price", "theory"],
    ["experiments"],
    ["report"],
    ["_cli_sweep", "_cli_verify", "cli", "__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# An import inside a function that hands a finished object on to a later layer.
HANDED_ON = {("experiments", "report")}


def imports(path):
    """(imported package part, whether at module level) of every import of reluflow in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "reluflow":
                names = [f"reluflow.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("reluflow."):
                yield name.split(".")[1], node in tree.body


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_every_module_has_its_place():
    assert {part(path) for path in modules()} <= set(RANK)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_before_it(path):
    here = part(path)
    for name, at_module_level in imports(path):
        handed_on = not at_module_level and (here, name) in HANDED_ON
        assert handed_on or RANK[name] <= RANK[here], f"{here} imports {name}"


def test_only_dispatch_imports_compiled_modules():
    for path in modules():
        if part(path) != "_dispatch":
            assert not any(name.startswith("_core") for name, _ in imports(path)), path


def test_the_core_knows_no_python():
    sources = [*(ROOT / "cpp/include").rglob("*.hpp"), *(ROOT / "cpp/src").rglob("*.?pp")]
    assert sources
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert "Python.h" not in text, path
        assert "pybind11" not in text, path


def test_core_headers_include_only_what_stands_before_them():
    order = (ROOT / "cpp/README.md").read_text(encoding="utf-8")
    topics = order.split("topics before it:")[1].split(".")[0].replace("\n", " ").split(",")
    rank = {topic.strip(): position for position, topic in enumerate(topics)}
    for path in (ROOT / "cpp/include/reluflow").glob("*.hpp"):
        assert path.stem in rank, f"cpp/README.md does not list {path.stem}"
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith('#include "reluflow/'):
                included = line.split("/")[1].split(".")[0]
                assert rank[included] < rank[path.stem], f"{path.name} includes {included}"
