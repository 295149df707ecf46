"""What an audit answers about the adapter: which learning rate it bears, and what it changes in an edit."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.audit.answer import ESTIMATED, MEASURED, NO, STILL, UNKNOWN, USUAL_WEIGHT, YES, Answer
from experiments.audit.settings import AuditSettings
from experiments.report.numbers import short_number
from experiments.studies import Number


QUESTION = "Which learning rate is safe for the adapter's parameters?"


def adapter_step(settings: AuditSettings, found: Mapping[str, Any], clip: Mapping[str, Any]) -> Answer:
    """Which learning rate is safe: the smallest number that is known, and why the others differ."""
    if found["not_measured"] or clip["still"]:
        reason = found["not_measured"] or STILL
        return Answer("adapter-step", QUESTION, f"Not answered. {reason}", UNKNOWN, (), ("C2.gauss-newton",))
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
    verdict, answer, reason = "", *_safe_rate(whose, sharpest["sharpness"], safe)
    if settings.learning_rate is not None:
        limit = 2 / settings.learning_rate
        numbers.append(
            Number("sharpness over 2 / eta, below 1 where eta is safe", sharpest["sharpness"] / limit, MEASURED, "C2")
        )
        seen = min(safe, default=0.0)
        verdict = YES if sharpest["sharpness"] < limit and (seen <= 0 or settings.learning_rate <= seen) else NO
        answer += (
            f" The sharpness {short_number(sharpest['sharpness'])} is "
            f"{'below' if sharpest['sharpness'] < limit else 'not below'}"
            f" 2 / eta = {short_number(limit)}."
        )
    return Answer(
        "adapter-step",
        QUESTION,
        answer,
        verdict,
        tuple(numbers),
        ("C2.gauss-newton",),
        (
            "The loss is the mean over the layers, unweighted, the optimiser plain gradient descent. A weight w on the "
            f"temporal term (usually {USUAL_WEIGHT:g}) divides its steps' limit by w; the noise term has a sharpness "
            "of its own; Adam rescales both.",
            f"{found['parameters']} parameters, {len(levels)} noise levels.",
            *([reason] if reason else []),
        ),
        ""
        if verdict != NO
        else f"lower the learning rate below {short_number(_leading_rate(sharpest['sharpness'], safe))} divided by the "
        "loss's weight",
    )


def _leading_rate(sharpness: float, safe: Sequence[float]) -> float:
    """The smaller of 2 over the sharpness and the largest step seen to lower the loss, of those that are known."""
    known = [2 / sharpness] if sharpness > 0 else []
    known += [min(safe)] if safe and min(safe) > 0 else []
    return min(known, default=0.0)


def _safe_rate(whose: str, sharpness: float, safe: Sequence[float]) -> tuple[str, str]:
    """The learning rate to lead with, the smallest of what is known, and why the other number differs."""
    seen = min(safe, default=0.0)
    if seen <= 0:
        return f"For {whose} no step was seen to lower the temporal loss: its gradient is lost in the rounding.", ""
    if sharpness <= 0:
        return (
            f"For {whose} single steps of plain gradient descent up to {short_number(seen)} were seen to lower the "
            "temporal loss.",
            "",
        )
    limit = 2 / sharpness
    if seen < limit:
        answer = (
            f"For {whose}, plain gradient descent with a rate up to {short_number(seen)}, the largest single step "
            "seen to lower it."
        )
        reason = (
            f"2 over the sharpness would be {short_number(limit)}: that is the limit of a quadratic model at these "
            "parameters, and the loss bends away from it before such a step ends."
        )
        return answer, reason
    answer = (
        f"For {whose}, plain gradient descent with a rate below {short_number(limit)}, which is 2 over the sharpness."
    )
    reason = (
        f"One step along the gradient was seen to lower the loss up to {short_number(seen)}. That is one step, in a "
        "direction that need not be the sharpest; step after step the sharpest direction decides, where a rate above 2 "
        "over the sharpness makes the quadratic model at these parameters grow."
    )
    return answer, reason


def edit(settings: AuditSettings, values: Mapping[str, Any]) -> Answer:
    """What the edit changes, and whether the adapter helped in it."""
    found, without = values["edit"], values.get("edit_off")
    rows = [("with the adapter" if without else "without an adapter", found)]
    rows += [("without it", without)] if without else []
    numbers: list[Number] = []
    for words, edited in rows:
        changed = edited["change"]
        numbers += [
            Number(
                f"root mean square change of the pixels {words}, in steps of 8 bits", changed["rms"], MEASURED, "C3"
            ),
            Number(f"largest change of a pixel {words}, in steps of 8 bits", changed["largest"], MEASURED, "C3"),
        ]
        if edited["trace"] is not None:
            numbers.append(Number(f"temporal loss of the edit {words}", edited["trace"]["loss"], MEASURED, "C1"))
    effect = values["film_strip"]["adapter_effect"]
    return Answer(
        "edit",
        f'What does the edit to "{settings.edit}" change?',
        " ".join(
            [
                f"Pixels by {found['change']['rms']:.3g} of 255 levels, root mean square; the frames are in edit.mp4.",
                *([f"Did the adapter help? {effect}"] if effect else []),
            ]
        ),
        "",
        tuple(numbers),
        (),
    )
