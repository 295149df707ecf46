"""Evidence that is wrong on purpose, for the comparisons that call themselves a test: which kinds each one notices.

clip, adapter -> untrained: what the same network with random weights records of the same clip
evidence, untrained -> noticed, one result a claim
"""

import functools
from typing import Any

import torch

from experiments.editor import Editor, load_editor
from experiments.editor.evidence import gather, to_evidence
from experiments.stages import ADAPTER_FILE, Context
from experiments.store import Entry
from theory.claim import Claim, Tells
from theory.ladder import noticed
from theory.scramble import scrambled


def has_test(claim: Claim) -> bool:
    """Whether some comparison of the claim calls itself a test."""
    return any(comparison.tells is Tells.TEST for comparison in claim.reality)


def forget(editor: Editor, seed: int) -> None:
    """Give every layer of the UNet random weights, as it had before any training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in editor.pipeline.unet.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()


def untrained(context: Context) -> None:
    """What `stages.evidence` records, from the same architecture with random weights and the trained adapter on it."""
    settings, source = context.settings, context.inputs["clip"]
    frames = source.arrays["frames"]
    editor = load_editor(settings.pipeline, device=settings.device, dtype=torch.float64)
    # Before the adapter is loaded, whose own weights stay as they were trained.
    forget(editor, settings.seed)
    editor.load_adapter(context.inputs["adapter"].folder / ADAPTER_FILE)
    editor.set_frames(frames)
    context.draft.arrays = gather(
        editor, frames, source.values["source_prompt"], num_steps=settings.num_steps, progress=context.progress
    )


@functools.lru_cache(maxsize=1)
def _scrambled(evidence: Entry, forgotten: Entry) -> dict:
    return scrambled(to_evidence(evidence.arrays), to_evidence(forgotten.arrays))


def what_is_noticed(claim: Claim, context: Context) -> list[dict[str, Any]]:
    """For each test of a claim: kind of scrambled evidence -> whether it came out otherwise."""
    wrong = _scrambled(context.inputs["evidence"], context.inputs["untrained"])
    return [
        {"question": comparison.question, "origin": str(comparison.origin), "noticed": noticed(comparison, wrong)}
        for comparison in claim.reality
        if comparison.tells is Tells.TEST
    ]
