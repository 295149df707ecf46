"""What an audit answers: questions, one sentence each, and numbers that say how they are known.

Answers are functions of the stored results alone, so that wording can change without anything being measured again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from experiments.audit.answer import (
    CERTIFIED,
    ESTIMATED,
    INVISIBLE,
    KINDS,
    MEASURED,
    NO,
    PARTLY,
    PROVED,
    UNKNOWN,
    USUAL_WEIGHT,
    YES,
    Answer,
)
from experiments.audit.measure import largest_contributions
from experiments.audit.scheduler_answer import schedulers_answer
from experiments.audit.settings import AuditSettings
from experiments.report.numbers import short_number
from experiments.studies import Number

__all__ = ["INVISIBLE", "KINDS", "answer_all", "failures"]


def answer_all(settings: AuditSettings, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All answers, as JSON values.

    Args:
        values: the JSON values of every stored result, by name.
    """
    answers = [
        _well_posed(values["features"], values["clip"]),
        _step_size(values["features"], values["clip"]),
        _adapter_step(settings, values["sharpness"], values["clip"]),
        schedulers_answer(values["schedulers"]),
        _round_trip(settings, values["round_trip"], values["clip"]),
        _fixed_point(values),
        *([_adapter_mismatch(values)] if "round_trip_mismatch" in values else []),
        _guidance(settings, values),
        *([_edit(settings, values["edit"])] if "edit" in values else []),
    ]
    return [asdict(answer) for answer in answers]


def failures(values: Mapping[str, Any]) -> list[str]:
    """Measured errors above their certified bound: a defect of this program, not of the pipeline."""
    found = []
    for name in ("round_trip", "round_trip_off", "round_trip_mismatch", "round_trip_guided"):
        trip = values.get(name)
        if trip is None:
            continue
        for bound in ("bound", "two_point_bound", "mismatch_bound"):
            if bound in trip and trip["error"] > trip[bound] * (1 + trip["budget"]):
                found.append(f"{name}: the error {trip['error']!r} exceeds its {bound} {trip[bound]!r}")
    return found


def _where(record: Mapping[str, Any]) -> str:
    return f"{record['layer']}, timestep {record['timestep']}"


STILL = "The clip is still: no frame differs from the next by more than half a step of 8 bits."


def _well_posed(records: Sequence[Mapping[str, Any]], clip: Mapping[str, Any]) -> Answer:
    broken = [record for record in records if record["problem"]]
    flat = [record for record in records if record["flat"] and not record["problem"]]
    dead = [record for record in records if record["pixels"]["dead"]]
    flat_pixels = [record for record in records if record["pixels"]["flat"]]
    numbers = []
    alive = [record for record in records if not record["problem"]]
    if alive:
        least = min(alive, key=lambda record: min(record["norms"]))
        numbers.append(Number(f"smallest norm of a frame ({_where(least)})", min(least["norms"]), MEASURED, "C1"))
        closest = max(alive, key=lambda record: max(abs(value) for value in record["similarities"]))
        magnitude = max(abs(value) for value in closest["similarities"])
        numbers.append(
            Number(f"least distance of a similarity from +-1 ({_where(closest)})", 1 - magnitude, MEASURED, "C1")
        )
        largest = max(alive, key=lambda record: record["loss"])
        numbers.append(Number(f"largest temporal loss ({_where(largest)})", largest["loss"], MEASURED, "C1"))
    numbers.append(
        Number(
            "dead pixels, all layers and timesteps",
            sum(record["pixels"]["dead"] for record in records),
            MEASURED,
            "C1",
        )
    )
    living = [record["pixels"]["least_living_norm"] for record in records]
    if any(norm is not None for norm in living):
        value = min(norm for norm in living if norm is not None)
        numbers.append(Number("smallest norm of a pixel that is not dead", value, MEASURED, "C1"))
    details = [f"{_where(record)}: {record['problem']}" for record in broken]
    details += [f"{_where(record)}: {record['flat']}" for record in flat]
    details += [
        f"{_where(record)}: {record['pixels']['dead']} of {record['pixels']['count']} pixels are dead, the first is"
        f" frame {record['pixels']['first_dead'][0]}, row {record['pixels']['first_dead'][1]}, column"
        f" {record['pixels']['first_dead'][2]}"
        for record in dead
    ]
    details += [f"{_where(record)}, per pixel: {record['pixels']['flat']}" for record in flat_pixels]
    details += [warning[0].upper() + warning[1:] + "." for warning in clip["warnings"]]
    count = len(records)
    if clip["still"]:
        verdict, mend = NO, "give a clip in which something moves"
        answer = f"{STILL} What temporal loss there is measures rounding and coding noise."
    elif broken or flat:
        verdict = NO if len(broken) + len(flat) == count else PARTLY
        answer = f"{len(broken) + len(flat)} of {count} layers and timesteps have no temporal loss to train on."
        mend = "leave those layers out with --layers, drop the frames named, or regularise the norms (C1.regularised)"
    elif dead or flat_pixels:
        verdict, answer = PARTLY, "With cosines over whole frames it is; with cosines per pixel it is not everywhere."
        mend = "compare whole frames, or regularise the norms (C1.regularised)"
    elif clip["equal"]:
        verdict, mend = PARTLY, "drop the repeated frames"
        answer = (
            f"It is, but {len(clip['equal'])} of {clip['shape'][0] - 1} neighbouring pairs of frames are equal to"
            f" half a step of 8 bits, the first frames {clip['equal'][0]} and {clip['equal'][0] + 1}: the loss measures the"
            " repetition."
        )
    else:
        verdict, mend = YES, ""
        answer = f"In all {count} layers and timesteps it is, with cosines over frames and per pixel."
    return Answer(
        "well-posed",
        "Is the temporal loss well posed on these features?",
        answer,
        verdict,
        tuple(numbers),
        ("C1.stated", "C1.companion", "C1.hessian"),
        tuple(details),
        mend,
    )


def _step_size(records: Sequence[Mapping[str, Any]], clip: Mapping[str, Any]) -> Answer:
    alive = [record for record in records if not record["problem"]]
    question = "Which step size is safe for gradient descent on the features?"
    if clip["still"]:
        return Answer("step-size", question, f"None. {STILL}", NO, (), ("C1.stated",))
    if not alive:
        return Answer("step-size", question, "None: no layer has a temporal loss.", NO, (), ("C1.stated",))
    proved = min(alive, key=lambda record: record["proved_step"])
    curved = [record for record in alive if record["certificate"]["upper"] > 0]
    numbers = [
        Number(
            f"below it every step lowers the loss, for ever ({_where(proved)})", proved["proved_step"], PROVED, "C2"
        )
    ]
    answer = f"Any below {short_number(proved['proved_step'])}, in every layer."
    if curved:
        worst = max(curved, key=lambda record: record["certificate"]["upper"])
        top = worst["certificate"]["upper"]
        numbers += [
            Number(f"largest curvature at the features is at most ({_where(worst)})", top, CERTIFIED, "C1"),
            Number("2 over that curvature, the limit for short steps from here", 2 / top, CERTIFIED, "C2"),
        ]
        steepest = max(curved, key=lambda record: record["certificate"]["gauss_newton"])
        numbers.append(
            Number(
                f"norm of its Gauss-Newton part ({_where(steepest)})",
                steepest["certificate"]["gauss_newton"],
                CERTIFIED,
                "C1",
            )
        )
    return Answer(
        "step-size",
        question,
        answer,
        "",
        tuple(numbers),
        ("C1.certificate", "C2.descent"),
        (
            "The first number holds for the whole descent, the second is the curvature at these features alone: a step "
            "of that size may leave the region where it holds.",
        ),
    )


def _adapter_step(settings: AuditSettings, found: Mapping[str, Any], clip: Mapping[str, Any]) -> Answer:
    question = "Which learning rate is safe for the adapter's parameters?"
    if found["not_measured"] or clip["still"]:
        reason = found["not_measured"] or STILL
        return Answer("adapter-step", question, f"Not answered. {reason}", UNKNOWN, (), ("C2.gauss-newton",))
    levels = found["levels"]
    sharpest = max(levels, key=lambda level: level["sharpness"])
    safe = [level["largest_safe_step"] for level in levels if level["tried"]]
    whose = "a fresh adapter, as training would start" if found["fresh"] else "this adapter"
    numbers = [
        Number(
            f"Gauss-Newton sharpness of the temporal loss (timestep {sharpest['timestep']})",
            sharpest["sharpness"],
            MEASURED,
            "C2",
        ),
    ]
    if sharpest["sharpness"] > 0:
        numbers.append(Number("2 over the sharpness", 2 / sharpest["sharpness"], ESTIMATED, "C2"))
    if safe:
        numbers.append(
            Number("largest single step that was seen to lower the loss, at every timestep", min(safe), MEASURED, "C2")
        )
    verdict, answer = "", f"For {whose}, steps of plain gradient descent up to "
    if safe and min(safe) > 0:
        answer += f"{short_number(min(safe))} lowered the temporal loss."
    else:
        answer = f"For {whose} no step was seen to lower the temporal loss: its gradient is lost in the rounding."
    if settings.learning_rate is not None:
        limit = 2 / settings.learning_rate
        numbers.append(
            Number("sharpness over 2 / eta, below 1 where eta is safe", sharpest["sharpness"] / limit, MEASURED, "C2")
        )
        verdict = YES if sharpest["sharpness"] < limit else NO
        answer += (
            f" The sharpness {short_number(sharpest['sharpness'])} is {'below' if verdict == YES else 'above'}"
            f" 2 / eta = {short_number(limit)}."
        )
    return Answer(
        "adapter-step",
        question,
        answer,
        verdict,
        tuple(numbers),
        ("C2.gauss-newton",),
        (
            "The loss is the mean over the layers, unweighted, the optimiser plain gradient descent. A weight w on the "
            f"temporal term (usually {USUAL_WEIGHT:g}) divides its steps' limit by w; the noise term has a sharpness "
            "of its own; Adam rescales both.",
            f"{found['parameters']} parameters, {len(levels)} noise levels.",
        ),
        ""
        if verdict != NO
        else f"lower the learning rate below {short_number(2 / sharpest['sharpness'])} divided by the loss's weight",
    )


def _steps(trip: Mapping[str, Any], contributions: Sequence[float]) -> str:
    order, share = largest_contributions(contributions)
    # Steps are numbered from the data end, as in the figures.
    named = ", ".join(f"{step + 1} (timestep {trip['timesteps'][step]})" for step in order)
    return f"steps {named} make up {100 * share:.0f}% of the bound"


def _share(error: float) -> str:
    return f"{100 * error:.3g}% of the latents" if error < 1 else f"{error:.3g} times the latents' own norm"


def _trip_numbers(trip: Mapping[str, Any]) -> list[Number]:
    return [
        Number("relative error of the latents", trip["error"], MEASURED, "C3"),
        Number("bound on it from the growth along the path", trip["bound"], CERTIFIED, "C3"),
        Number("bound A with two-point constants", trip["two_point_bound"], CERTIFIED, "C3"),
        Number("root mean square error of the pixels, in steps of 8 bits", trip["pixel_error"]["rms"], MEASURED, "C3"),
        Number("largest error of a pixel, in steps of 8 bits", trip["pixel_error"]["largest"], MEASURED, "C3"),
    ]


def _round_trip(settings: AuditSettings, trip: Mapping[str, Any], clip: Mapping[str, Any]) -> Answer:
    numbers = _trip_numbers(trip)
    numbers += [
        Number("part of the bound that is rounding", trip["rounding_share"], MEASURED, "C3"),
        Number("root mean square of the inverted latents (1 is noise)", trip["noise_rms"], MEASURED, "C3"),
    ]
    if clip["has_autoencoder"]:
        numbers.append(
            Number(
                "the autoencoder's own error, in steps of 8 bits", clip["decoding_error"]["rms"], MEASURED, "C3"
            )
        )
    rms = trip["pixel_error"]["rms"]
    return Answer(
        "round-trip",
        f"What does inversion and sampling in {settings.num_steps} steps lose of the clip?",
        f"{_share(trip['error'])}, at most {_share(trip['bound'])} by the bound; {rms:.3g} of 255 levels in a pixel."
        f" {_steps(trip, trip['contributions']).capitalize()}.",
        YES if trip["pixel_error"]["largest"] <= INVISIBLE else "",
        tuple(numbers),
        ("C3.round-trip",),
        ("The bound is computed after the fact: it explains this round trip and promises nothing about another.",),
        "" if trip["pixel_error"]["largest"] <= INVISIBLE else "more steps, or fixed-point iterations (below)",
    )


def _fixed_point(values: Mapping[str, Any]) -> Answer:
    rows = [(0, values["round_trip"])] + [
        (count, values[name]) for count in range(1, 1000) if (name := f"fixed_point_{count}") in values
    ]
    numbers: tuple[Number, ...] = ()
    for count, row in rows:
        largest = row["pixel_error"]["largest"]
        numbers += (
            Number(f"{count} iterations: largest error of a pixel, in steps of 8 bits", largest, MEASURED, "C3"),
            Number(f"{count} iterations: relative error of the latents", row["error"], MEASURED, "C3"),
        )
    enough = next((count for count, row in rows if row["pixel_error"]["largest"] <= INVISIBLE), None)
    if enough is not None:
        answer, verdict, mend = f"{enough} per step: every pixel then returns within half a step of 8 bits.", YES, ""
    else:
        answer, verdict = f"{rows[-1][0]} per step were not enough.", NO
        mend = "use more DDIM steps, whose contraction is stronger"
        estimate = _more_iterations(rows)
        if estimate is not None:
            numbers += (Number("iterations that would be enough at the last rate", estimate, ESTIMATED, "C3"),)
            answer += f" At the rate of the last two about {estimate} would be."
    return Answer(
        "fixed-point",
        "How many fixed-point iterations would mend the round trip?",
        answer,
        verdict,
        numbers,
        ("C3.fixed-point",),
        ("An iteration evaluates the network once more in every inversion step.",),
        mend,
    )


def _more_iterations(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> int | None:
    if len(rows) < 3:
        return None
    before, last = (row["pixel_error"]["largest"] for _, row in rows[-2:])
    if not 0 < last < before:
        return None
    return rows[-1][0] + math.ceil(math.log(INVISIBLE / last) / math.log(last / before))


def _cost(trip: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[list[Number], str]:
    numbers = _trip_numbers(trip)
    own, change = sum(trip["own_contributions"]), sum(trip["mismatch_contributions"])
    share = change / (own + change) if own + change else 0.0
    numbers += [
        Number("bound from defects and mismatch apart", trip["mismatch_bound"], CERTIFIED, "C3"),
        Number("share of that bound that the mismatch causes", share, CERTIFIED, "C3"),
        Number("relative error without the mismatch", base["error"], MEASURED, "C3"),
    ]
    times = f"{trip['error'] / base['error']:.3g} times" if base["error"] else "beside"
    answer = (
        f"The round trip loses {_share(trip['error'])}, {times} the error without it; "
        f"{_steps(trip, trip['mismatch_contributions'])} that the mismatch adds."
    )
    return numbers, answer


def _adapter_mismatch(values: Mapping[str, Any]) -> Answer:
    numbers, answer = _cost(values["round_trip_mismatch"], values["round_trip_off"])
    return Answer(
        "adapter-mismatch",
        "What does it cost to invert without the adapter and to sample with it?",
        answer,
        "",
        tuple(numbers),
        ("C3.adapter",),
        mend="invert with the adapter on, where the clip is to be returned",
    )


def _guidance(settings: AuditSettings, values: Mapping[str, Any]) -> Answer:
    question = f"What does guidance of scale {settings.guidance_scale:g} cost?"
    if "round_trip_guided" not in values:
        silent = settings.prompt == ""
        reason = "without a caption guidance changes nothing" if silent else "a scale of 1 is no guidance"
        return Answer(
            "guidance",
            question,
            f"Nothing: {reason}.",
            UNKNOWN,
            (),
            ("C3.adapter",),
            mend="give --prompt" if silent else "",
        )
    numbers, answer = _cost(values["round_trip_guided"], values["round_trip"])
    return Answer(
        "guidance",
        question,
        answer,
        "",
        tuple(numbers),
        ("C3.adapter",),
        ("The inversion runs without guidance; the theorem on adapters holds for any change of the network.",),
    )


def _edit(settings: AuditSettings, found: Mapping[str, Any]) -> Answer:
    return Answer(
        "edit",
        f"What does the edit to \"{settings.edit}\" change?",
        f"Pixels by {found['change']['rms']:.3g} of 255 levels, root mean square; the frames are in edit.mp4.",
        "",
        (
            Number("root mean square change of the pixels, in steps of 8 bits", found["change"]["rms"], MEASURED, "C3"),
            Number("largest change of a pixel, in steps of 8 bits", found["change"]["largest"], MEASURED, "C3"),
        ),
        (),
    )
