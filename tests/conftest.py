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


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """The report on every claim as if all passed: its text, its folder, and the audit. Not to be changed."""
    import synthetic_report

    import theory
    from experiments.report import page

    out = tmp_path_factory.mktemp("report") / "run"
    result = synthetic_report.write(out, theory.CLAIMS)
    written = page.write_report(out)
    assert [path.name for path in written] == ["report.html", "report.md", "claims.csv"]
    return written[0].read_text(encoding="utf-8"), out, result
