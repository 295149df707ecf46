"""What the real network's records say about the hypotheses of the theorems: pairs of states, and the steps of one
frame's round trip."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from theory.claim import Outcome
from theory.evidence import Evidence, HypothesisRecord, PracticeRecord, RoundTripRecord
from theory.inversion import instances
from theory.inversion.ddim import RoundTrip, recorded_round_trip
from theory.inversion.schedule import noise_levels
from theory.rounding import relative_budget

_PER_FRAME = ("inversion", "sampling", "inversion_predictions", "sampling_predictions", "predictions_at_inversion")


class Quotients(NamedTuple):
    """What the recorded pairs of one level show, h the step, rho = sigma_k / sigma_{k+1}, v = y - z and c = e(y) -
    e(z).

    Attributes:
        step: k, the step down from this level to the next.
        ratio: rho.
        squeezed, stretched: least and largest ||v - h c|| / ||v||, what the sampling step makes of a distance.
        steepest: largest ||h c|| / ||v||.
        falling, rising: least and largest <v, h c> / ||v||^2.
    """

    step: int
    ratio: float
    squeezed: float
    stretched: float
    steepest: float
    falling: float
    rising: float


def quotients(record: HypothesisRecord) -> Quotients:
    """The extreme quotients among the recorded pairs of a level."""
    sigmas = noise_levels(np.asarray(record.alphas_cumprod, dtype=np.float64))
    moved = (sigmas[1] - sigmas[0]) * record.changes
    lengths = np.linalg.norm(record.displacements, axis=1)
    kept = np.linalg.norm(record.displacements - moved, axis=1) / lengths
    along = np.sum(record.displacements * moved, axis=1) / lengths**2
    return Quotients(
        record.level - 1,
        float(sigmas[0] / sigmas[1]),
        float(kept.min()),
        float(kept.max()),
        float((np.linalg.norm(moved, axis=1) / lengths).max()),
        float(along.min()),
        float(along.max()),
    )


def first_frame(record: RoundTripRecord) -> RoundTrip:
    """The round trip of a record's first frame, in the variables y."""
    return recorded_round_trip(
        dataclasses.replace(record, **{name: getattr(record, name)[:, :1] for name in _PER_FRAME})
    )


def trip_of(evidence: Evidence, record: HypothesisRecord) -> RoundTrip:
    """The first frame's round trip that a hypothesis record belongs to.

    Raises:
        ValueError: the evidence holds no trip of that label.
    """
    for trip in evidence.round_trips:
        if trip.label == record.trip:
            return first_frame(trip)
    raise ValueError(
        f"{record.label}: its trip {record.trip!r} is none of {[trip.label for trip in evidence.round_trips]}"
    )


def levels(evidence: Evidence) -> Iterator[tuple[HypothesisRecord, Quotients, RoundTrip]]:
    """Every hypothesis record, its quotients and its trip."""
    trips: dict[str, RoundTrip] = {}
    for record in evidence.hypotheses:
        if record.trip not in trips:
            trips[record.trip] = trip_of(evidence, record)
        yield record, quotients(record), trips[record.trip]


def stretches_without_adapter(evidence: Evidence) -> dict[int, float]:
    """Level -> the largest stretch among the pairs recorded at that level with the adapter off, of the first trip.

    Raises:
        ValueError: no pairs were recorded.
    """
    if not evidence.hypotheses:
        raise ValueError("0 hypothesis records; at least 1 is needed: record evidence again with this version")
    first = evidence.round_trips[0].label
    return {record.level: quotients(record).stretched for record in evidence.hypotheses if record.trip == first}


def recorded_budget(size: int) -> float:
    """Relative rounding of a quotient of two norms of recorded vectors of this size."""
    return relative_budget(size + instances.OPERATIONS_PER_STEP)


def at_every_level(
    sides: Callable[[HypothesisRecord, Quotients, RoundTrip], tuple[float, float] | None],
) -> Callable[[Evidence], Sequence[Outcome]]:
    """A comparison made once a hypothesis record: its two sides, or None where the level has nothing to compare."""

    def compare(evidence: Evidence) -> list[Outcome]:
        outcomes = []
        for record, found, trip in levels(evidence):
            pair = sides(record, found, trip)
            if pair is not None:
                outcomes.append(
                    Outcome(record.label, float(pair[0]), float(pair[1]), recorded_budget(record.state.size))
                )
        return outcomes

    return compare


def growth_of_error(trip: RoundTrip, step: int) -> float | None:
    """||E_k + d_k|| / ||E_{k+1}||, what a recorded sampling step made of the error it was given; None where there was
    none."""
    before = float(np.linalg.norm(trip.errors[step + 1]))
    return float(np.linalg.norm(trip.errors[step + 1] - trip.feedback[step])) / before if before > 0 else None


class Practice(NamedTuple):
    """A practice record in the variables y: arrays (N, dimension) unless stated.

    Attributes:
        sigmas: (N + 1,) noise levels of the sampling.
        states, sampling: (N + 1, dimension).
        sampling_predictions: the guided predictions used.
        predictions_at_states: the guided predictions at z_{k+1}.
        ladder, guidance, adapter: the three parts of the defect d_k, which they sum to.
    """

    sigmas: np.ndarray
    states: np.ndarray
    sampling: np.ndarray
    sampling_predictions: np.ndarray
    predictions_at_states: np.ndarray
    ladder: np.ndarray
    guidance: np.ndarray
    adapter: np.ndarray

    @property
    def trip(self) -> RoundTrip:
        """As a round trip, whose inversion used the averages of the fine predictions."""
        steps = np.diff(self.sigmas)[:, None]
        means = np.diff(self.states, axis=0) / steps
        return RoundTrip(
            self.sigmas, self.states, self.sampling, means, self.sampling_predictions, self.predictions_at_states
        )


def practice_parts(record: PracticeRecord) -> Practice:
    """Take the defects of a practice record apart.

    Raises:
        ValueError: a level of the sampling that the inversion's ladder has not.
    """
    sigmas = noise_levels(np.asarray(record.alphas_cumprod, dtype=np.float64))
    fine = np.asarray(record.fine_alphas_cumprod, dtype=np.float64)
    places = np.searchsorted(-fine, -np.asarray(record.alphas_cumprod, dtype=np.float64))
    if not np.array_equal(fine[np.minimum(places, len(fine) - 1)], record.alphas_cumprod):
        raise ValueError(f"{record.label}: the sampling has levels that the inversion's ladder has not")
    fine_steps, steps, num_steps = np.diff(noise_levels(fine)), np.diff(sigmas)[:, None], len(sigmas) - 1
    scale = np.sqrt(1 + sigmas**2)[:, None]

    def flat(values: np.ndarray) -> np.ndarray:
        return np.asarray(values, dtype=np.float64).reshape(len(values), -1)

    moves = fine_steps[:, None] * flat(record.fine_predictions)
    means = np.stack([moves[places[step] : places[step + 1]].sum(axis=0) for step in range(num_steps)]) / steps
    conditional, unconditional = flat(record.conditional), flat(record.unconditional)
    weight = record.guidance_scale
    plain = weight * conditional + (1 - weight) * unconditional
    guided = weight * flat(record.adapted_conditional) + (1 - weight) * flat(record.adapted_unconditional)
    return Practice(
        sigmas,
        scale * flat(record.states),
        scale * flat(record.sampling),
        flat(record.sampling_predictions),
        guided,
        steps * (conditional - means),
        steps * (weight - 1) * (conditional - unconditional),
        steps * (guided - plain),
    )
