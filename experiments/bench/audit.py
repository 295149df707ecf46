"""The audit: its wall time on the shipped pipeline, and the memory it takes when features are reduced as they come."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.bench import Benchmark, Note, timed_command
from experiments.store import ROOT

TARGET_SECONDS = 180
TARGET_GIGABYTES = 16.0
NUM_FRAMES = 16
MANY_FRAMES = 256
"""So many that the features of the shipped UNet outweigh one evaluation of it."""

STABLE_DIFFUSION = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
"""The UNet of Stable Diffusion 1.5; the rest is diffusers' default."""
TEXT_AND_AUTOENCODER_PARAMETERS = 123_060_480 + 83_653_863

_CAPTURE = """
import json, resource, sys
import torch
from experiments.editor import load_clip, load_editor
editor = load_editor()
frames = load_clip("carphone", "held_out")
latents = editor.to_latents(frames).repeat({repeats}, 1, 1, 1)[:{count}]
layers = "attn1$"
editor.reduced_features(latents[:8], 500, "", layers=layers, frames_at_once=4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if {streamed}:
    editor.reduced_features(latents, 500, "", layers=layers, frames_at_once=4)
else:
    with torch.no_grad():
        parts = [editor.features(part, 500, "", layers=layers) for part in latents.split(4)]
        whole = {{name: torch.cat([part[name] for part in parts]) for name in parts[0]}}
print(json.dumps(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)))
"""


def _growth(streamed: bool) -> int:
    """Bytes by which the peak memory of a process grows while it captures; Linux counts it in KiB."""
    script = _CAPTURE.format(streamed=streamed, count=MANY_FRAMES, repeats=MANY_FRAMES)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout.strip().splitlines()[-1]))


def stable_diffusion_memory(size: int = 256, frames_at_once: int = 4) -> dict[str, float]:
    """Gigabytes that an audit in float32 takes on a UNet of Stable Diffusion 1.5's size, counted without running it.

    Shapes are traced on torch's meta device. Counted are all weights, what autograd saves for one frame, which
    `sharpness` holds twice, and as the most that an evaluation without gradients can hold at once the same for all of its entries,
    twice the frames at once under guidance.
    """
    import torch
    from diffusers import UNet2DConditionModel

    from experiments.editor.adapters import add_lora, set_lora_enabled
    from experiments.editor.capture import captured_features, select_layers

    with torch.device("meta"):
        unet = UNet2DConditionModel(**STABLE_DIFFUSION).requires_grad_(False)
        # Alive until the end, so that no two storages share an address.
        saved: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            # Views of one tensor are saved once.
            saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
            return tensor

        weights = {parameter.untyped_storage()._cdata for parameter in unet.parameters()}
        add_lora(unet, rank=4, alpha=4, seed=0, dtype=torch.float32)
        set_lora_enabled(unet, True)
        latents = torch.zeros(1, 4, size // 8, size // 8)
        context = torch.zeros(1, 77, STABLE_DIFFUSION["cross_attention_dim"])
        names = select_layers(unet)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), captured_features(unet) as features:
            unet(latents, 500, encoder_hidden_states=context)
    count = sum(parameter.numel() for parameter in unet.parameters()) + TEXT_AND_AUTOENCODER_PARAMETERS
    one_frame = sum(storage.nbytes() for address, storage in saved.items() if address not in weights)
    frame_features = sum(features[name].numel() for name in names) * 4
    gigabyte = 1e9
    evaluation = 2 * frames_at_once * one_frame
    return {
        "weights": 4 * count / gigabyte,
        "graph_of_one_frame": one_frame / gigabyte,
        "evaluation_at_most": evaluation / gigabyte,
        "features_held_streamed": 3 * frame_features / gigabyte,
        "features_of_all_frames": NUM_FRAMES * frame_features / gigabyte,
        "total_at_most": (4 * count + max(evaluation, 2 * one_frame) + 3 * frame_features) / gigabyte,
    }


def measure(seed: int, note: Note) -> dict[str, Any]:
    """`framebound audit` of 16 frames, "first" from nothing and "again" reusing all, and the memory of its captures."""
    from experiments.editor import load_clip, write_video

    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "clip.mp4"
        write_video(video, load_clip("carphone", "held_out")[:NUM_FRAMES])
        arguments = ["audit", "--video", str(video), "--seed", str(seed), "--out", str(Path(folder) / "out")]
        results: dict[str, Any] = {"target_seconds": TARGET_SECONDS, "target_gigabytes": TARGET_GIGABYTES}
        for name in ("first", "again"):
            note(f"audit of {NUM_FRAMES} frames, {name}")
            results[name] = timed_command([sys.executable, "-m", "experiments.cli", *arguments])
    note(f"memory of capturing {MANY_FRAMES} frames")
    results["capture_bytes"] = {"streamed": _growth(True), "held": _growth(False), "frames": MANY_FRAMES}
    note("memory on a UNet of Stable Diffusion's size, counted")
    results["stable_diffusion_gigabytes"] = stable_diffusion_memory()
    return results


def lines(results: Mapping[str, Any]) -> Sequence[str]:
    capture, counted = results["capture_bytes"], results["stable_diffusion_gigabytes"]
    return [
        *(
            f"audit, {NUM_FRAMES} frames, {name}: {results[name]['seconds']:.0f} s (aim: {TARGET_SECONDS}; exit status "
            f"{results[name]['exit_status']})"
            for name in ("first", "again")
        ),
        f"capture of {capture['frames']} frames: peak memory grows by {capture['streamed'] / 1e6:.0f} MB reduced as "
        f"they come, by {capture['held'] / 1e6:.0f} MB held",
        f"audit on a UNet of Stable Diffusion 1.5's size, {NUM_FRAMES} frames of 256 x 256, counted: at most "
        f"{counted['total_at_most']:.1f} GB (aim: {TARGET_GIGABYTES:g})",
    ]


BENCHMARK = Benchmark("audit", measure, lines, quick=False)
