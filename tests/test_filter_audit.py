"""The audit of filtering along the batch axis: both faults are found where they are, and nowhere else."""

import numpy as np
import pytest
import torch
from tiny_pipelines import clip, pixel_pipeline

from experiments.editor.bilateral import bilateral_filtering
from experiments.editor.editor import Editor
from experiments.editor.filter_audit import audit_batch_filter
from theory.bilateral import bilateral_filter, chunked_difference_bound, chunked_filter

pytestmark = pytest.mark.usefixtures("single_thread")

COUNT = 6


@pytest.fixture(scope="module")
def frames():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(COUNT, 40)))


def public(batch):
    return bilateral_filter(batch, sigma_range=1.0)


def test_both_faults_of_the_public_way_are_found(frames):
    seam, size = audit_batch_filter(public, frames, frames_at_once=3)
    assert (seam.rule, seam.frames) == ("guidance-seam", (4, 5))
    assert (size.rule, size.frames) == ("batch-size", (1, 2, 3, 4))
    # Either result is off the right one by at most the bound, so two wrong ones differ by at most twice it.
    assert 0.05 < seam.measured <= 2 * chunked_difference_bound(1.0)
    assert 0.05 < size.measured <= chunked_difference_bound(1.0)
    assert "num_frames" in seam.mend and "either side" in size.mend
    assert str(size).startswith("batch-size: frames 1, 2, 3, 4 are off by up to 0.")


def test_nothing_is_found_against_what_is_right(frames):
    halves = lambda batch: torch.cat([public(part) for part in batch.split(COUNT)])  # noqa: E731
    assert audit_batch_filter(halves, frames) == ()
    assert audit_batch_filter(lambda batch: batch**2, frames, frames_at_once=2) == ()
    overlapping = lambda batch: torch.cat(  # noqa: E731
        [chunked_filter(part, 3, overlap=2, sigma_range=1.0) for part in batch.split(COUNT)]
    )
    assert audit_batch_filter(overlapping, frames) == ()
    assert torch.equal(overlapping(frames), public(frames))


def test_one_batch_leaves_the_rule_on_its_size_out(frames):
    assert [fault.rule for fault in audit_batch_filter(public, frames)] == ["guidance-seam"]
    assert [fault.rule for fault in audit_batch_filter(public, frames, frames_at_once=COUNT)] == ["guidance-seam"]


def test_a_network_is_audited_with_its_filter():
    """The editor's filter keeps the halves apart when it is told the number of frames, and mixes them when told
    wrongly."""
    editor = Editor(pixel_pipeline(), dtype=torch.float64)
    latents = editor.to_latents(clip(4))

    def network(num_frames):
        def run(batch):
            with bilateral_filtering(editor.pipeline.unet, sigma_range=0.3, num_frames=num_frames):
                return editor.predict_noise(batch, 500, "a plain video")

        return run

    assert audit_batch_filter(network(4), latents) == ()
    faults = audit_batch_filter(network(8), latents)
    assert [fault.rule for fault in faults] == ["guidance-seam"]


@pytest.mark.parametrize(
    ("run", "count", "keywords", "message"),
    [
        (public, 1, {}, "1 frames were given; at least 2"),
        (public, 4, {"frames_at_once": 0}, "frames_at_once = 0; at least 1"),
        (lambda batch: batch[1:], 4, {}, "8 frames went in and 7 came out"),
        (public, 5, {"frames_at_once": 3}, "2 frames were given; reflect padding of a window of 5 needs at least 3"),
    ],
)
def test_faults_are_named(frames, run, count, keywords, message):
    with pytest.raises(ValueError, match=message):
        audit_batch_filter(run, frames[:count], **keywords)
