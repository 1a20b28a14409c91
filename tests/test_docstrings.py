"""The examples in the docstrings run, and every public name has a docstring."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import captum_attattr

MODULES = [module.name for module in pkgutil.walk_packages(captum_attattr.__path__, "captum_attattr.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_there_are_examples():
    found = [test for name in MODULES for test in doctest.DocTestFinder().find(_module(name)) if test.examples]
    assert len(found) >= 12


@pytest.mark.parametrize("name", captum_attattr.__all__)
def test_public_names_say_what_they_are(name):
    public = getattr(captum_attattr, name)
    text = inspect.getdoc(public) or ""
    assert len(text) > 40
    if inspect.isfunction(public):
        assert "Args:" in text
        assert (
            "Returns:" in text
            or "Yields:" in text
            or inspect.signature(public).return_annotation in ("None", "Iterator[None]")
        )
        assert "Raises:" in text or name == "tree_text"


def _module(name):
    return importlib.import_module(name)
