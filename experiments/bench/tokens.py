"""What a training step of prompt tokens costs beside one of LoRA, on the shipped UNet."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench import Benchmark, Note, seconds_of

COUNT = 16
FRAMES = 3
TIMESTEP = 400


def measure(seed: int, note: Note) -> dict[str, Any]:
    """Seconds of one forward and backward pass in float32, with 16 shared tokens, 16 of each frame's own, and LoRA.

    The same frames and the same loss, the mean square of the prediction; the optimiser's step is left out.
    """
    import torch

    from experiments.editor import CLIPS, caption, load_clip, load_editor
    from experiments.editor.token_fit import FreeTokens

    editor = load_editor(dtype=torch.float32)
    latents = editor.to_latents(load_clip("carphone", "held_out", editor.frame_size)[:FRAMES])
    prompt = caption(CLIPS["carphone"].subject, "plain")
    text, unet = editor.encode_prompt(prompt), editor.pipeline.unet
    found: dict[str, Any] = {"frames": FRAMES, "tokens": COUNT}
    for name, shared, own in (("shared", COUNT, 0), ("own", 0, COUNT)):
        note(f"tokens: {COUNT} {name}")
        tokens = FreeTokens(num_shared=shared, num_own=own, num_frames=FRAMES, dim=text.shape[2], seed=seed)

        def step(tokens=tokens) -> None:
            unet(latents, TIMESTEP, encoder_hidden_states=tokens(text)).sample.square().mean().backward()

        found[name] = {"seconds": seconds_of(step), "parameters": tokens.num_parameters}
    note("tokens: LoRA of rank 4")
    editor.add_adapter(seed=seed)

    def lora_step() -> None:
        editor.predict_noise(latents, TIMESTEP, prompt, adapter=True).square().mean().backward()

    parameters = sum(parameter.numel() for parameter in editor.adapter_parameters().values())
    found["lora"] = {"seconds": seconds_of(lora_step), "parameters": parameters}
    return found


def lines(results: Mapping[str, Any]) -> Sequence[str]:
    """A line for each of the three."""
    titles = {
        "shared": f"{results['tokens']} shared tokens",
        "own": f"{results['tokens']} tokens a frame",
        "lora": "LoRA of rank 4",
    }
    return [
        f"tokens: a training step on {results['frames']} frames with {title}: {results[name]['seconds']:.3f} s, "
        f"{results[name]['parameters']} numbers learned"
        for name, title in titles.items()
    ]


BENCHMARK = Benchmark("tokens", measure, lines)
