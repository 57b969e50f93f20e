"""The public names are what they say, whatever was imported before."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

import connsearch as cs
from connsearch import errors

PACKAGES = {path.name for path in Path(cs.__file__).parent.iterdir() if (path / "__init__.py").is_file()}
NAMES = sorted(cs._HOMES)


def test_no_public_name_is_a_package() -> None:
    """Importing a package sets an attribute of its parent, which would hide the name."""
    assert PACKAGES
    assert not PACKAGES & set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_no_module_and_knows_its_home(name: str) -> None:
    value = getattr(cs, name)
    assert not isinstance(value, ModuleType)
    assert value is getattr(importlib.import_module(cs._HOMES[name]), name)


def test_all_public_names_are_listed() -> None:
    assert set(NAMES) <= set(dir(cs))


def test_a_star_gives_all_public_names_and_nothing_else() -> None:
    given: dict[str, object] = {}
    exec("from connsearch import *", given)
    assert given.keys() - {"__builtins__"} == {*NAMES, "__version__"}
    assert sorted(cs.__all__) == sorted([*NAMES, "__version__"])


def test_every_error_of_ours_is_public() -> None:
    kinds = {name for name in vars(errors) if name.endswith("Error")}
    assert len(kinds) >= 8
    assert kinds <= set(NAMES)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'connsearch' has no attribute 'tarin'"):
        _ = cs.tarin
