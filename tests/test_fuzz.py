"""Damaged and hostile files: every reader ends with exit status 0 or 2 and one line.

Within 4 GB and a minute of the processor.

A fixed corpus, drawn from a seed: bytes flipped, cut out, doubled or cut off, and in JSON values replaced by every kind
of wrong value. FRAMEBOUND_PROFILE=full draws 200 a reader.
"""

import json
import os
import random
import shutil

import pytest
import torch
from run_server import RunServer
from safetensors.torch import save_file
from tiny_pipelines import clip, stable_diffusion_pipeline

from experiments.editor import save_pipeline, write_video
from experiments.editor.editor import Editor
from experiments.store import ROOT

pytestmark = [pytest.mark.usefixtures("single_thread"), pytest.mark.xdist_group("fuzz")]

COUNT = int(os.environ.get("FRAMEBOUND_FUZZ", 200 if os.environ.get("FRAMEBOUND_PROFILE") == "full" else 8))
WRONG = [
    None,
    True,
    0,
    -1,
    0.5,
    10**9,
    10**30,
    1e308,
    "",
    "x",
    "\x1b[2J",
    "=1+1",
    [],
    [1],
    {},
    {"a": 1},
    [[[]]],
    "9" * 400,
]
FIGURE = "claim_C1.stated"


def damaged(content, draw):
    """Bytes with one thing wrong."""
    content = bytearray(content)
    place = draw.randrange(max(len(content), 1))
    kind = draw.choice(("flip", "flips", "truncate", "cut", "double", "zero"))
    if kind == "flip":
        content[place] ^= 1 << draw.randrange(8)
    elif kind == "flips":
        for _ in range(20):
            content[draw.randrange(len(content))] = draw.randrange(256)
    elif kind == "truncate":
        del content[place:]
    elif kind == "cut":
        del content[place : place + draw.randrange(1, 200)]
    elif kind == "double":
        content[place:place] = content[place : place + 100]
    else:
        content[place : place + 16] = bytes(16)
    return bytes(content)


def twisted(text, draw):
    """JSON with one value replaced, removed or renamed; or with its bytes damaged."""
    if draw.random() < 0.15:
        return damaged(text.encode(), draw)
    content = json.loads(text)
    places = []

    def walk(value):
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, entry in entries:
            places.append((value, key))
            walk(entry)

    walk(content)
    value, key = draw.choice(places)
    if draw.random() < 0.15:
        del value[key]
    else:
        value[key] = draw.choice(WRONG)
    return json.dumps(content).encode()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    pipeline = stable_diffusion_pipeline()
    save_pipeline(pipeline, folder / "pipeline")
    write_video(folder / "clip.mp4", clip(4, 32))
    write_video(folder / "clip", clip(4, 32))
    editor = Editor(pipeline)
    editor.add_adapter(rank=2, alpha=2, seed=1)
    lora = folder / "lora"
    lora.mkdir()
    weights = {name.replace(".default", ""): value.detach() for name, value in editor.adapter_parameters().items()}
    save_file(weights, lora / "pytorch_lora_weights.safetensors")
    (lora / "adapter_config.json").write_text(json.dumps({"lora_alpha": 4, "r": 2, "alpha_pattern": {"to_q": 2}}))
    run = folder / "run"
    run.mkdir()
    record = json.loads((ROOT / "figures" / "audit.json").read_text())
    claim = next(claim for claim in record["claims"] if claim["figure"] == FIGURE)
    group = next(group for group in record["paper_claims"] if group["id"] == claim["group"])
    record |= {"claims": [claim], "paper_claims": [{**group, "headline": None}]}
    record["figures"] = [figure for figure in record["figures"] if figure["name"] == FIGURE]
    (run / "audit.json").write_text(json.dumps(record))
    for suffix in (".png", ".json"):
        shutil.copy(ROOT / "figures" / f"{FIGURE}{suffix}", run)
    return folder


@pytest.fixture(scope="module")
def server():
    server = RunServer()
    yield server
    server.close()


def cases(inputs):
    """(reader, file that is damaged, path that is read, whether it is JSON)."""
    for name in ("unet/config.json", "scheduler/scheduler_config.json", "text_encoder/config.json"):
        yield "pipeline", f"pipeline/{name}", "pipeline", True
    for name in ("model_index.json", "tokenizer/tokenizer_config.json", "vae/config.json"):
        yield "pipeline", f"pipeline/{name}", "pipeline", True
    yield "pipeline", "pipeline/unet/diffusion_pytorch_model.safetensors", "pipeline", False
    yield "adapter", "lora/pytorch_lora_weights.safetensors", "lora", False
    yield "adapter", "lora/adapter_config.json", "lora", True
    yield "clip", "clip.mp4", "clip.mp4", False
    yield "clip", "clip/frame_00001.png", "clip", False
    yield "results", "run/audit.json", "run/audit.json", True
    yield "figure", f"run/{FIGURE}.json", f"run/{FIGURE}.json", True


@pytest.mark.parametrize("case", list(cases(None)), ids=lambda case: case[1].replace("/", "-"))
def test_damaged_file(inputs, server, tmp_path, case, record_property):
    reader, name, path, is_json = case
    copy = tmp_path / "copy"
    shutil.copytree(inputs, copy)
    request = {
        "read": reader,
        "path": str(copy / path),
        "clip": str(copy / "clip"),
        "pipeline": str(copy / "pipeline"),
    }
    whole = server.ask(**request)
    assert whole["status"] == 0, whole["err"]
    content = (copy / name).read_bytes()
    draw, wrong, refused = random.Random(name), [], 0
    for number in range(COUNT):
        broken = twisted(content.decode(), draw) if is_json else damaged(content, draw)
        (copy / name).write_bytes(broken)
        done = server.ask(**request)
        said = [line for line in done["err"].splitlines() if line.startswith("framebound: ")]
        refused += done["status"] == 2
        if done["status"] not in (0, 2) or "Traceback" in done["err"] or (done["status"] == 2) != (len(said) == 1):
            wrong.append((number, done["status"], round(done["seconds"], 1), done["err"][-600:]))
            if keep := os.environ.get("FRAMEBOUND_FUZZ_KEEP"):
                shutil.copy(copy / name, f"{keep}/{name.replace('/', '-')}.{number}")
    record_property("refused", refused)
    assert wrong == [], f"{len(wrong)} of {COUNT}"
    assert refused or COUNT < 20


def test_a_lora_that_is_none(inputs, server, tmp_path):
    """Whole numbers where weights belong."""
    copy = tmp_path / "lora"
    shutil.copytree(inputs / "lora", copy)
    from safetensors.torch import load_file

    file = copy / "pytorch_lora_weights.safetensors"
    save_file({name: value.to(torch.int64) for name, value in load_file(file).items()}, file)
    request = {"read": "adapter", "path": str(copy), "clip": str(inputs / "clip"), "pipeline": str(inputs / "pipeline")}
    assert server.ask(**request)["status"] in (0, 2)
