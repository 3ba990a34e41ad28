from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from support import bound

import elufast
from elufast import _dispatch

settings.register_profile(
    "fixed",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fixed")


@pytest.fixture(params=_dispatch.built_levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction-set level that this CPU can run, in use during the test."""
    with bound(request.param):
        yield request.param


@pytest.fixture
def threads() -> Iterator[int]:
    """The thread limit, put back after the test."""
    before = elufast.get_num_threads()
    yield before
    elufast.set_num_threads(before)
