"""A module imports only from layers above its own; what lies above the kernels never imports torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "connsearch"
LAYERS = (
    ("errors",),
    ("_lazy", "files", "memory", "text", "registry", "config"),
    ("graph",),
    ("spec",),
    ("cost",),
    ("ir",),
    ("kernels",),
    ("nn",),
    ("data",),
    ("train",),
    ("search",),
    ("plots",),
    ("export",),
    ("report",),
    ("testing",),
    ("catalog", "schemas"),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
TORCH_FREE = {name for name, level in LEVEL.items() if level < LEVEL["kernels"]}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every module that code imports, lazily or not, with the line; imports for types excepted."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                yield from imports(ast.Module([other], []))
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            whole = node.module == "connsearch"
            yield from (
                (f"{node.module}.{a.name}" if whole else node.module or "", node.lineno) for a in node.names
            )
        else:
            yield from imports(node)


def layer(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_come_from_above(module: Path) -> None:
    own = layer(module)
    assert own in LEVEL, f"put {own!r} into LAYERS"
    for name, line in imports(ast.parse(module.read_text())):
        top, _, rest = name.partition(".")
        if top == "connsearch" and rest != "__version__":
            other = rest.partition(".")[0]
            same_package = other == own
            assert same_package or LEVEL[other] < LEVEL[own] or {own, other} <= set(LAYERS[LEVEL[own]]), (
                f"{module}:{line}: {own} imports {name}"
            )
        assert not (own in TORCH_FREE and top == "torch"), f"{module}:{line}: {own} imports torch"


@pytest.mark.parametrize("name", LEVEL)
def test_every_layer_is_there(name: str) -> None:
    assert (PACKAGE / f"{name}.py").is_file() or (PACKAGE / name / "__init__.py").is_file()


def test_the_walk_sees_lazy_imports_and_skips_those_for_types() -> None:
    code = (
        "from typing import TYPE_CHECKING\n"
        "from connsearch import files\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "else:\n    import numpy\n"
        "def f():\n    if True:\n        from connsearch.nn import Network\n"
    )
    assert list(imports(ast.parse(code))) == [
        ("typing", 1), ("connsearch.files", 2), ("numpy", 6), ("connsearch.nn", 9),
    ]  # fmt: skip
