"""Acquisition functions: which image should be labeled next. Pure numpy, `f(pool, rng) -> (n,)`, higher = sooner.

A new strategy is one decorated function in a module of this folder. The modules are found by themselves.
"""

from __future__ import annotations

import importlib
import pkgutil

from backend.acquisition.registry import Acquisition, acquisition, get, names

__all__ = ["Acquisition", "acquisition", "get", "names"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")  # registers its functions
