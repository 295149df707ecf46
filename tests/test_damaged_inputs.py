"""Damaged files and odd values end in a ValueError that names the file, never in anything else: a fixed corpus."""

import json
import random
import shutil

import numpy as np
import pytest
import torch
from clip_files import planes, scene, write_video
from PIL import Image
from safetensors.torch import save
from tiny_pipelines import stable_diffusion_pipeline

from experiments.audit.inputs import require_one_evaluation
from experiments.editor.clip_reading import read_clip
from experiments.editor.editor import Editor
from experiments.editor.inversion import noise_ladder
from experiments.editor.lora_files import read_lora_file
from experiments.editor.pipeline import load_pipeline, save_pipeline

pytestmark = [pytest.mark.usefixtures("single_thread"), pytest.mark.filterwarnings("ignore")]

COUNT = 60
VALUES = [None, 0, -1, 1, 5, 1e9, 1e300, "x", "", [], [1], [None], {}, {"a": 1}, True, [[1]], 2**70, float("nan")]


def damaged(content, generator):
    """The bytes cut off, changed, or with a piece exchanged; in the header more often than elsewhere."""
    content = bytearray(content)
    kind = generator.randrange(4)
    if kind == 0:
        return bytes(content[: generator.randrange(len(content))])
    if kind == 1:
        start = generator.randrange(len(content))
        content[start : start + generator.randrange(1, 40)] = generator.randbytes(generator.randrange(40))
        return bytes(content)
    reach = len(content) if kind == 2 else min(400, len(content))
    for _ in range(generator.choice([1, 3, 20])):
        content[generator.randrange(reach)] = generator.choice([0, 1, 127, 128, 255, generator.randrange(256)])
    return bytes(content)


def write_clip(path):
    frames = scene()
    if path.suffix == ".mp4":
        write_video(path, frames)
    elif path.suffix == ".mkv":
        write_video(path, frames, "ffv1", "bgr0")
    elif path.suffix == ".webm":
        ready = [planes(frame, "bt709") for frame in frames]
        write_video(path, ready, "libvpx-vp9", "yuv444p", ready="yuv444p")
    else:
        pages = [Image.fromarray(frame) for frame in frames]
        pages[0].save(path, save_all=True, append_images=pages[1:])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "gif", "webp", "png", "tif"])
def test_a_damaged_clip_is_read_or_named(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    write_clip(path)
    whole, generator, refused = path.read_bytes(), random.Random(suffix), 0
    for _ in range(COUNT):
        path.write_bytes(damaged(whole, generator))
        try:
            clip = read_clip(path, size=8)
        except ValueError as error:
            refused += 1
            assert f"clip.{suffix}" in str(error)
        else:
            assert np.isfinite(clip.frames).all() and clip.frames.min() >= 0 and clip.frames.max() <= 1
    assert 0 < refused < COUNT


def test_a_damaged_lora_is_read_or_named(tmp_path):
    pipeline = stable_diffusion_pipeline()
    editor = Editor(pipeline)
    editor.add_adapter(rank=2, alpha=2)
    tensors = {name: value.detach().clone() for name, value in editor.adapter_parameters().items()}
    editor.remove_adapter()
    settings = {"lora_alpha": 2, "r": 2, "alpha_pattern": {"to_q": 3}}
    whole = save(tensors, {"lora_adapter_metadata": json.dumps(settings)})
    generator, path = random.Random(0), tmp_path / "lora.safetensors"
    for number in range(4 * COUNT):
        # Settings of other types as often as damaged bytes.
        if number % 2:
            changed = {**settings, generator.choice(list(settings)): generator.choice(VALUES)}
            path.write_bytes(save(tensors, {"lora_adapter_metadata": json.dumps(changed)}))
        else:
            path.write_bytes(damaged(whole, generator))
        try:
            file = read_lora_file(path, pipeline.unet, pipeline.text_encoder)
        except ValueError as error:
            assert "lora.safetensors" in str(error)
        else:
            assert all(torch.isfinite(update.delta()).all() for update in file.updates.values())


@pytest.mark.parametrize("part", ["model_index", "unet", "text_encoder", "vae", "scheduler", "tokenizer"])
def test_a_pipeline_with_odd_values_is_evaluated_or_refused(tmp_path, part):
    save_pipeline(stable_diffusion_pipeline(), tmp_path / "pipeline")
    name = {"model_index": "model_index.json", "scheduler": "scheduler/scheduler_config.json"}.get(
        part, f"{part}/tokenizer_config.json" if part == "tokenizer" else f"{part}/config.json"
    )
    file = tmp_path / "pipeline" / name
    whole, generator = json.loads(file.read_text()), random.Random(part)
    for _ in range(COUNT // 2):
        changed = dict(whole)
        key = generator.choice(list(changed))
        changed[key] = generator.choice(VALUES)
        file.write_text(json.dumps(changed))
        try:
            editor = Editor(load_pipeline(tmp_path / "pipeline"))
            noise_ladder(editor.pipeline.scheduler, 10)
            side = editor.frame_size
            if side <= 64:
                require_one_evaluation(editor, np.zeros((1, side, side, 3), np.float32), ("", "a cat"))
        except ValueError as error:
            assert str(error)
    shutil.rmtree(tmp_path / "pipeline")
