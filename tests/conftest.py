"""What the tests of the software share."""

import pytest
import torch


@pytest.fixture
def single_thread():
    """One thread, for networks so small that handing work to a second one takes longer than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
