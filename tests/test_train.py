"""Training: the same seed gives the same bytes, killed or not; held-out frames stay out; the shipped weights work."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from experiments.editor import train as train_module
from experiments.editor.clips import CLIPS, LOOKS, caption, load_clip
from experiments.editor.pipeline import SHIPPED_WEIGHTS, build_pipeline, load_pipeline
from experiments.editor.train import (
    Architecture,
    Batch,
    TrainingSettings,
    draw_batch,
    held_out_loss,
    in_look,
    noise_error,
    train,
    training_loss,
)

SMALL = Architecture(block_out_channels=(8, 16, 16), text_dim=16, max_tokens=12)
WEIGHTS = ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")
STEPS = 4


class Killed(Exception):
    pass


def train_small(folder, **options):
    return train(folder, **{"steps": STEPS, "batch_size": 4, "architecture": SMALL} | options)


def weights(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in WEIGHTS]


def pixels(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).movedim(-1, 1) * 2 - 1


@pytest.fixture(scope="module", autouse=True)
def quick_held_out_loss():
    """One held-out frame a clip is enough where only the trained weights are looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "held_out_loss", lambda pipeline: held_out_loss(pipeline, frame_stride=50))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "small"
    return folder, train_small(folder)


@pytest.fixture(scope="module")
def train_frames():
    return {name: pixels(load_clip(name, "train")) for name in CLIPS}


# Determinism and interruption


def test_same_seed_gives_the_same_bytes_and_another_seed_others(trained, tmp_path):
    folder, record = trained
    again = train_small(tmp_path / "again")
    assert weights(tmp_path / "again") == weights(folder)
    assert again.losses == record.losses
    train_small(tmp_path / "other", seed=1)
    assert weights(tmp_path / "other") != weights(folder)


@pytest.mark.parametrize("killed_at", [1, STEPS - 1])
def test_killed_run_goes_on_and_ends_in_the_same_bytes(trained, tmp_path, killed_at):
    folder, record = trained
    steps_run = []

    def kill(done, steps, loss):
        steps_run.append(done)
        if done == killed_at + 1:
            raise Killed

    with pytest.raises(Killed):
        train_small(tmp_path / "run", checkpoint_seconds=0, progress=kill)
    # The step that was killed was not written yet; nothing else is lost, and no pipeline is there yet.
    assert [path.name for path in tmp_path.iterdir()] == ["run.checkpoint.safetensors"]
    resumed = train_small(tmp_path / "run", progress=lambda done, steps, loss: steps_run.append(done))
    assert steps_run == [*range(1, killed_at + 2), *range(killed_at + 1, STEPS + 1)]
    assert weights(tmp_path / "run") == weights(folder)
    assert resumed.losses == record.losses
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_checkpoint_of_another_run_is_neither_used_nor_lost(tmp_path):
    def kill(done, steps, loss):
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        train_small(tmp_path / "run", checkpoint_seconds=0, progress=kill)
    checkpoint = tmp_path / "run.checkpoint.safetensors"
    content = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=r"of another run \(there {'learning_rate': 0.001}\); delete .*run.checkpoint"):
        train_small(tmp_path / "run", learning_rate=2e-3)
    assert checkpoint.read_bytes() == content
    checkpoint.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"run.checkpoint.safetensors cannot be read .* delete .* to start anew"):
        train_small(tmp_path / "run")


def test_checkpoints_are_as_rare_as_asked(tmp_path):
    seen = []
    train_small(
        tmp_path / "run",
        checkpoint_seconds=math.inf,
        progress=lambda done, steps, loss: seen.extend(tmp_path.iterdir()),
    )
    assert seen == []


# Data


def test_held_out_frames_do_not_reach_the_weights_and_training_frames_do(trained, tmp_path, monkeypatch):
    folder, _ = trained

    def without(blank):
        def load(name, split="train", size=32):
            frames = load_clip(name, split, size)
            return np.zeros_like(frames) if split == blank else frames

        return load

    monkeypatch.setattr(train_module, "load_clip", without("held_out"))
    blind = train_small(tmp_path / "blind")
    assert weights(tmp_path / "blind") == weights(folder)
    monkeypatch.setattr(train_module, "load_clip", without("train"))
    train_small(tmp_path / "blank")
    assert weights(tmp_path / "blank") != weights(folder)
    monkeypatch.undo()
    assert blind.held_out_loss != held_out_loss(load_pipeline(folder), frame_stride=50)


def test_batch_is_a_function_of_seed_and_step(train_frames):
    settings = TrainingSettings(seed=5)
    first, again = draw_batch(train_frames, settings, 7), draw_batch(train_frames, settings, 7)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.noise, again.noise)
    assert torch.equal(first.timesteps, again.timesteps)
    assert first.captions == again.captions
    for other in (draw_batch(train_frames, settings, 8), draw_batch(train_frames, TrainingSettings(seed=6), 7)):
        assert not torch.equal(first.noise, other.noise)
        assert not torch.equal(first.images, other.images)


def test_batch_holds_captioned_training_frames_in_every_look_and_every_range_of_timesteps(train_frames):
    settings = TrainingSettings(caption_dropout=0)
    batch = draw_batch(train_frames, settings, 0)
    assert sorted(batch.timesteps * settings.batch_size // 1000) == list(range(settings.batch_size))
    for look in LOOKS:
        mine = [index for index, text in enumerate(batch.captions) if f" {look} " in text]
        assert len(mine) == settings.batch_size // len(LOOKS)
        for index in mine:
            clip = next(clip for clip in CLIPS.values() if caption(clip.subject, look) == batch.captions[index])
            frames = in_look(train_frames[clip.name], look)
            image = batch.images[index]
            assert (frames == image).all((1, 2, 3)).any()


def test_a_tenth_of_the_captions_is_empty(train_frames):
    settings = TrainingSettings()
    captions = [text for step in range(200) for text in draw_batch(train_frames, settings, step).captions]
    draws, rate = len(captions), settings.caption_dropout
    # Five standard deviations of the binomial count; the draws are fixed by the seed, so this passes or fails for good.
    assert abs(captions.count("") - draws * rate) <= 5 * math.sqrt(draws * rate * (1 - rate))


# Loss


def test_noise_error_is_the_prediction_at_the_noised_image_minus_the_noise():
    pipeline = build_pipeline(0, block_out_channels=(8, 16, 16), text_dim=16)
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 2, 3, 32, 32, generator=generator)
    batch = Batch(images, noise, torch.tensor([10, 900]), ["", "a night video"])
    with torch.no_grad():
        errors = noise_error(pipeline, batch)
        for index, timestep in enumerate((10, 900)):
            # x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps
            level = pipeline.scheduler.alphas_cumprod[timestep]
            noisy = (level.sqrt() * images[index] + (1 - level).sqrt() * noise[index])[None]
            predicted = pipeline.unet(noisy, timestep, pipeline.encode_prompts([batch.captions[index]])).sample
            # The UNet is run once on two images and once on each; float32 kernels may add in another order.
            torch.testing.assert_close(errors[index], predicted[0] - noise[index])


def test_training_loss_is_the_squared_error_of_the_velocity():
    pipeline = build_pipeline(0, block_out_channels=(8, 16, 16), text_dim=16)
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 2, 3, 32, 32, generator=generator)
    batch = Batch(images, noise, torch.tensor([10, 900]), ["", "a night video"])
    with torch.no_grad():
        losses = training_loss(pipeline, batch)
        predicted = noise_error(pipeline, batch) + noise
    for index, timestep in enumerate((10, 900)):
        level = pipeline.scheduler.alphas_cumprod[timestep].double()
        noisy = level.sqrt() * images[index] + (1 - level).sqrt() * noise[index]
        # v = sqrt(abar) eps - sqrt(1 - abar) x_0, with x_0 = (x_t - sqrt(1 - abar) eps) / sqrt(abar)
        velocities = [
            level.sqrt() * eps - (1 - level).sqrt() * (noisy - (1 - level).sqrt() * eps) / level.sqrt()
            for eps in (predicted[index].double(), noise[index].double())
        ]
        expected = (velocities[0] - velocities[1]).square().mean()
        # The loss is a float32 mean, whose rounding assert_close allows for by its dtype.
        torch.testing.assert_close(losses[index], expected.float())


def test_noise_of_a_batch_is_standard_normal_plus_a_colour_for_the_frame(train_frames):
    settings = TrainingSettings(batch_size=256)
    noise = draw_batch(train_frames, settings, 0).noise.double()
    colours = noise.mean(dim=(2, 3))
    spread, draws = colours.var(correction=0).item(), colours.numel()
    # The mean over 1024 pixels of standard normal noise adds 1/1024 to the colour's variance. The variance of draws
    # normal numbers has the relative standard deviation sqrt(2/draws); five of them, and the seed is fixed.
    assert abs(spread / (0.3**2 + 1 / 1024) - 1) <= 5 * math.sqrt(2 / draws)
    pixels_left = noise - colours[..., None, None]
    assert abs(pixels_left.square().mean().item() - 1) <= 5 * math.sqrt(2 / noise.numel()) + 1 / 1024


def test_first_loss_of_a_run_is_the_training_loss_of_the_first_batch(trained, train_frames):
    _, record = trained
    pipeline = build_pipeline(0, block_out_channels=(8, 16, 16), text_dim=16, max_tokens=12)
    with torch.no_grad():
        expected = training_loss(pipeline, draw_batch(train_frames, record.settings, 0)).mean()
    # Training runs the batch in two halves and another memory layout: float32 kernels may add in another order.
    torch.testing.assert_close(torch.tensor(record.losses[0]), expected)


def test_untrained_network_does_no_better_than_predicting_zero():
    pipeline = build_pipeline(0, block_out_channels=(8, 16, 16), text_dim=16)
    assert min(held_out_loss(pipeline, frame_stride=50)) > 0.95


# Settings, faults, what is written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"learning_rate": 0.0}, r"learning rate is 0.0; it must be positive and finite, for example"),
        ({"learning_rate": math.nan}, r"learning rate is nan; it must be positive and finite, for example"),
        ({"ema_decay": 1.0}, r"ema_decay is 1.0; it must be in \[0, 1\)"),
        ({"caption_dropout": -0.1}, r"caption_dropout is -0.1; it must be in \[0, 1\)"),
        ({"device": "cuda:99"}, r"device 'cuda:99' is not there"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        train_small(tmp_path / "run", **options)
    assert not list(tmp_path.iterdir())


def test_folder_that_holds_something_else_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    def progress(done, steps, loss):
        raise AssertionError("the run was started")

    with pytest.raises(ValueError, match="exists and is no pipeline folder"):
        train_small(tmp_path, progress=progress)


def test_loss_that_is_not_finite_ends_the_run_without_a_pipeline(tmp_path, monkeypatch):
    def explode(pipeline, batch):
        return training_loss(pipeline, batch) * torch.inf

    monkeypatch.setattr(train_module, "training_loss", explode)
    with pytest.raises(ValueError, match=r"the loss is inf at step 1 with learning rate 0.001; .* lower learning rate"):
        train_small(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_card_states_data_command_seed_steps_losses_and_times(trained):
    folder, record = trained
    card = (folder / "README.md").read_text(encoding="utf-8")
    command = next(line for line in card.splitlines() if line.startswith("    "))
    # Settings that the command line has no option for are stated in Python.
    assert command.startswith("    from experiments.editor.train import Architecture, train; train('DIR', steps=4,")
    assert f"batch_size=4, architecture={SMALL!r})" in command
    for clip in CLIPS.values():
        counts = [len(load_clip(clip.name, split)) for split in ("train", "held_out")]
        assert f"| {clip.file} | {clip.subject} | {counts[0]} | {counts[1]} |" in card
    for step, loss in enumerate(record.losses, start=1):
        assert f"| {step} to {step} | {loss:.4f} |" in card
    assert f"| all | {np.mean(record.untrained_held_out_loss):.4f} | {np.mean(record.held_out_loss):.4f} |" in card
    assert f"{record.num_parameters:,} parameters" in " ".join(card.split())
    assert f"CPU time {record.cpu_seconds / 60:.1f} minutes" in " ".join(card.split())
    assert max(len(line) for line in card.splitlines() if line != command) <= 120


# The shipped weights


@pytest.fixture(scope="module")
def shipped():
    return load_pipeline()


@torch.no_grad()
def integrate(pipeline, images, prompt, scheduler_class, num_steps=20):
    scheduler = scheduler_class.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(num_steps)
    context = pipeline.encode_prompts([prompt]).expand(len(images), -1, -1)
    for timestep in scheduler.timesteps:
        images = scheduler.step(pipeline.unet(images, timestep, context).sample, int(timestep), images).prev_sample
    return images


def test_shipped_folder_is_small_unpickled_and_of_the_default_architecture(shipped):
    files = [path for path in SHIPPED_WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert {path.suffix for path in files} == {".safetensors", ".json", ".md"}
    built = build_pipeline(0)
    for name, model in built.models.items():
        assert {key: weight.shape for key, weight in model.state_dict().items()} == {
            key: weight.shape for key, weight in shipped.models[name].state_dict().items()
        }
    assert {weight.dtype for model in shipped.models.values() for weight in model.parameters()} == {torch.float32}
    caption_ids = [part.tokenizer(caption("a man in a car", "night")).input_ids for part in (built, shipped)]
    assert caption_ids[0] == caption_ids[1]


def test_card_of_the_shipped_weights_names_the_default_settings():
    settings = TrainingSettings()
    card = (SHIPPED_WEIGHTS / "README.md").read_text(encoding="utf-8")
    assert f"    framebound train --out DIR --seed {settings.seed} --steps {settings.steps}\n" in card
    assert f"{settings.steps} steps of {settings.batch_size} images" in " ".join(card.split())


def test_shipped_weights_predict_the_noise_of_held_out_frames(shipped):
    untrained = held_out_loss(build_pipeline(0), frame_stride=25)
    trained = held_out_loss(shipped, frame_stride=25)
    assert all(after < before / 5 for before, after in zip(untrained, trained, strict=True))
    # The larger the noise, the more of it shows.
    assert list(trained) == sorted(trained, reverse=True)


def test_caption_of_the_shipped_weights_carries_information(shipped):
    generator = torch.Generator().manual_seed(0)
    frames = pixels(load_clip("carphone", "held_out")[::8])
    batch = [
        Batch(
            in_look(frames, "night"),
            noise,
            torch.full((len(frames),), 900),
            [caption("a man in a car", look)] * len(frames),
        )
        for look in ("night", "negative")
        for noise in [torch.randn(frames.shape, generator=generator.manual_seed(0))]
    ]
    with torch.no_grad():
        right, wrong = (noise_error(shipped, part).square().mean(dim=(1, 2, 3)) for part in batch)
    assert (right < wrong).all()


@pytest.mark.parametrize("name", CLIPS)
def test_edit_of_held_out_frames_takes_the_looks_mean_colour_and_the_plain_caption_keeps_the_frames(shipped, name):
    frames = load_clip(name, "held_out")[::25]
    subject = CLIPS[name].subject
    noise = integrate(shipped, pixels(frames), caption(subject, "plain"), DDIMInverseScheduler)
    edited = {}
    for look in LOOKS:
        sampled = integrate(shipped, noise, caption(subject, look), DDIMScheduler)
        edited[look] = (sampled.clamp(-1, 1) / 2 + 0.5).movedim(1, -1).numpy()
    assert -10 * np.log10(np.square(edited["plain"] - frames).mean()) > 20
    for look in LOOKS:
        distance = {
            other: np.linalg.norm(edited[look].mean((0, 1, 2)) - LOOKS[other](frames).mean((0, 1, 2)))
            for other in LOOKS
        }
        assert min(distance, key=distance.get) == look
