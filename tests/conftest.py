"""What the tests of the software share."""

import os

# One thread and one code path for every matrix product, so that equal seeds give equal bytes; torch reads these when it
# is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_DYNAMIC", "FALSE")
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

import pytest
import torch


@pytest.fixture
def single_thread():
    """One thread, for networks so small that handing work to a second one takes longer than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
