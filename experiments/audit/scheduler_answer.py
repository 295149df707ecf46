"""What an audit answers about the schedulers."""

from collections.abc import Mapping
from typing import Any

from experiments.audit.answer import MEASURED, NO, PARTLY, YES, Answer
from experiments.studies import Number


def schedulers_answer(found: Mapping[str, Any]) -> Answer:
    """Whether sampling and inversion steps undo each other, as stored and as used."""
    stored, used = found["stored"], found["used"]
    another = found["solver"] is not None
    as_stored = stored is not None and stored["formal_inverse"] and not stored["mismatches"]
    if another:
        verdict = PARTLY if used["formal_inverse"] else NO
        answer = (
            f"The pipeline samples with {found['stored_class']}, {found['solver']}. Audited is DDIM on its noise"
            f" schedule, whose steps {'undo' if used['formal_inverse'] else 'do not undo'} its inversion's."
        )
    elif as_stored:
        verdict, answer = (
            YES,
            "For one and the same output of the network every sampling step undoes its inversion step.",
        )
    elif used["formal_inverse"]:
        verdict = PARTLY
        answer = "As the audit and the editor use them they do; as the pipeline's files have them they do not."
    else:
        verdict, answer = NO, "No sampling step undoes its inversion step."
    details = []
    if found["prediction_type"] != "epsilon":
        details.append(
            f"The network predicts {found['prediction_type']!r}; the audit converts it to noise at every evaluation"
            " (x_t, t), which is what DDIM sampling does with it, and inverts with that."
        )
    details += [
        f"Changed on loading: {change['name']} from {change['before']!r} to {change['after']!r}; {change['reason']}."
        for change in found["changed"]
    ]
    for which, pair in (("As stored", stored), ("As used", used)):
        details += [
            f"{which}, {item['setting']} is {item['value']}: {item['effect']}."
            for item in (pair["mismatches"] if pair is not None else ())
        ]
    residual = or_dash(used["one_step_residual"])
    numbers = [
        Number("convention of the inversion steps", used["convention"], MEASURED, "C3"),
        Number("deviation of one step from the closed form, relative", residual, MEASURED, "C3"),
        Number("round trip on Gaussian data, as diffusers inverts", or_dash(used["naive_round_trip"]), MEASURED, "C3"),
        Number("the same at the fixed point of every step", or_dash(used["fixed_point_round_trip"]), MEASURED, "C3"),
    ]
    if another:
        mends = [f"sample with DDIMScheduler, or read what follows as DDIM's and not as {found['stored_class']}'s"]
    else:
        mends = [item["mend"] for item in stored["mismatches"]]
    return Answer(
        "schedulers",
        "Do the two schedulers undo each other?",
        answer,
        verdict,
        tuple(numbers),
        ("C3.convention",),
        tuple(details),
        "; ".join(dict.fromkeys(mends)),
    )


def or_dash(value: float | None) -> float | str:
    """A number for the report, or what it says where there is none."""
    return "not finite" if value is None else value
