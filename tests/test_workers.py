"""Tests that share compiled programs and fixtures go to one worker; apart, each worker makes them again, in thrice the
time."""

import os

import pytest


@pytest.mark.xdist_group("workers")
def test_groups_are_kept(request):
    """pytest-xdist groups by a suffix of the test's name, which not every version of pytest lets it write."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one process: there is nothing to group")
    assert request.node.nodeid.endswith("@workers")
