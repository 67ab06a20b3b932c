"""What all tests on the virtual clock share."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(scope="package", autouse=True)
def _small_heap() -> None:
    """Every schedule ends with a full collection: it looks only at what the schedules have made."""
    gc.collect()
    gc.freeze()
