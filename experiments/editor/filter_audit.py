"""Whether something that filters across frames along the batch axis mixes what it should not, and depends on how the
clip is cut.

Two faults of filtering along the batch axis, each found by running the filter and not by reading it:

    guidance-seam   under guidance the batch holds the unconditional frames and then the conditional ones; a filter
    along the batch takes
                    the last of the former and the first of the latter for neighbours
    batch-size      a clip that goes through in several batches is cut where the batches end, and the result depends on
    their size

What each can change in a filtered value is bounded by theorem C4.chunks (`theory.bilateral.chunked_difference_bound`).
"""

import dataclasses
from collections.abc import Callable

import torch

from theory.rounding import relative_budget

EVALUATION_OPERATIONS = 10_000
"""Roundings that tell two evaluations of a network on one frame apart when it lies at different places of a batch."""

Run = Callable[[torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class FilterFault:
    """One thing that filtering along the batch axis gets wrong.

    Attributes:
        rule: "guidance-seam" or "batch-size".
        frames: the frames whose result is wrong, from 0; under "guidance-seam" those of the unconditional half.
        measured: the largest wrong difference on the probe, in units of the result.
        mend: what to do about it.
    """

    rule: str
    frames: tuple[int, ...]
    measured: float
    mend: str

    def __str__(self) -> str:
        return (
            f"{self.rule}: frames {', '.join(map(str, self.frames))} are off by up to {self.measured:.3g}; {self.mend}"
        )


def audit_batch_filter(run: Run, frames: torch.Tensor, *, frames_at_once: int | None = None) -> tuple[FilterFault, ...]:
    """Run a filter, or a network that holds one, on a batch as guidance makes it and on a clip cut into batches.

    Args:
        run: batch (frames, ...) to results (frames, ...); a filter of features, or a prediction with a filter inside.
        frames: (frames, ...) a clip to probe with; real frames or features, so that what is measured is what happens
            there.
        frames_at_once: the batch size that the clip is cut into; None leaves that rule out.

    Returns:
        The faults found, "guidance-seam" first; empty where there is none.

    Raises:
        ValueError: fewer than 2 frames; frames_at_once below 1; results of another number of frames; what `run` raises.
    """
    count = len(frames)
    if count < 2:
        raise ValueError(f"{count} frames were given; at least 2 are needed to see whether they are mixed")
    if frames_at_once is not None and frames_at_once < 1:
        raise ValueError(f"frames_at_once = {frames_at_once}; at least 1 is needed, or None for one batch")
    found = []
    with torch.no_grad():
        # What the conditional half holds must not matter to the unconditional one.
        halves = [_checked(run, torch.cat([frames, other]))[:count] for other in (frames, frames.flip(0))]
        found += _fault(
            "guidance-seam",
            *halves,
            "filter each half of the batch by itself (bilateral_filtering with num_frames does)",
        )
        if frames_at_once is not None and frames_at_once < count:
            whole = _checked(run, frames)
            cut = torch.cat([_checked(run, part) for part in frames.split(frames_at_once)])
            found += _fault(
                "batch-size",
                whole,
                cut,
                (
                    "send the whole clip through at once, or let every batch see kernel_size // 2 frames more on "
                    "either side"
                ),
            )
    return tuple(found)


def _checked(run: Run, batch: torch.Tensor) -> torch.Tensor:
    result = run(batch)
    if len(result) != len(batch):
        raise ValueError(f"{len(batch)} frames went in and {len(result)} came out; one result a frame is needed")
    return result


def _fault(rule: str, first: torch.Tensor, second: torch.Tensor, mend: str) -> list[FilterFault]:
    apart = (first - second).abs().flatten(1).amax(dim=1)
    unit_roundoff = torch.finfo(first.dtype).eps / 2
    rounding = relative_budget(EVALUATION_OPERATIONS, unit_roundoff) * float(first.abs().max())
    wrong = [index for index, size in enumerate(apart.tolist()) if size > rounding]
    return [FilterFault(rule, tuple(wrong), float(apart.max()), mend)] if wrong else []
