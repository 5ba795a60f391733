"""What pytest needs for the examples in docstrings, which it collects from `backend` as well as from `tests`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def numpy_print_options(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run examples with numpy's own print options: importing ultralytics without our guard changes them for good."""
    if isinstance(request.node, pytest.DoctestItem):
        with np.printoptions(linewidth=75, precision=8, suppress=False, threshold=1000, formatter=None):
            yield
    else:
        yield
