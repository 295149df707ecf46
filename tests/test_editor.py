"""The editor: prediction, guidance, derivatives, inversion and sampling, adapter files, Stable Diffusion folders."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_pipelines import SIZE, adapted_editor, clip, pixel_pipeline, stable_diffusion_pipeline

from experiments.editor.capture import captured_features
from experiments.editor.editor import Editor, load_editor
from experiments.editor.pipeline import save_pipeline
from theory.rounding import UNIT_ROUNDOFF, relative_budget
from theory.temporal_loss import temporal_loss

pytestmark = pytest.mark.usefixtures("single_thread")

PROMPT = "a plain video of a man in a car"


@pytest.fixture(scope="module")
def base():
    """Shared by tests that do not change it."""
    return Editor(pixel_pipeline(), dtype=torch.float64)


@pytest.fixture
def adapted():
    return adapted_editor()


@pytest.fixture(scope="module")
def stable_diffusion_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "tiny-stable-diffusion"
    save_pipeline(stable_diffusion_pipeline(), folder)
    return folder


def noise_like(latents, seed=0):
    return torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed), dtype=latents.dtype)


class TestFrames:
    def test_pixel_latents_are_the_frames_stretched_to_plus_minus_one(self, base):
        latents = base.to_latents(clip())
        assert latents.shape == (4, 3, SIZE, SIZE)
        assert latents.dtype == torch.float64
        np.testing.assert_array_equal(latents.numpy(), 2 * clip().astype(np.float64).transpose(0, 3, 1, 2) - 1)

    def test_frames_come_back(self, base):
        returned = base.to_frames(base.to_latents(clip()))
        assert returned.dtype == np.float32
        # 2 f - 1 and (x + 1) / 2 in double precision stay within a few roundings of f, far below half a unit of
        # single precision.
        np.testing.assert_array_equal(returned, clip())

    def test_frames_are_clipped(self, base):
        latents = torch.full((3, 3, 4, 4), 1.5, dtype=torch.float64)
        latents[1] = -7
        np.testing.assert_array_equal(base.to_frames(latents)[:, 0, 0, 0], [1, 0, 1])

    @pytest.mark.parametrize(
        ("frames", "message"),
        [
            (np.zeros((4, 4, 3)), r"shape \(4, 4, 3\)"),
            (np.zeros((3, 4, 4, 1)), r"shape \(3, 4, 4, 1\)"),
            (np.zeros((0, 4, 4, 3)), "none of them 0"),
            (np.zeros((3, 4, 4, 3), dtype=np.uint8), "dtype uint8.*divide 8-bit frames by 255"),
            (np.full((3, 4, 4, 3), np.nan), "144 values that are not finite"),
            (np.full((3, 4, 4, 3), 255.0), r"lie in \[255, 255\]; expected \[0, 1\]"),
        ],
    )
    def test_bad_frames(self, base, frames, message):
        with pytest.raises(ValueError, match=message):
            base.to_latents(frames)


class TestPredictNoise:
    def test_it_is_the_unet(self, base):
        latents = base.to_latents(clip())
        text = base.encode_prompt(PROMPT)
        expected = base.pipeline.unet(latents, 321, encoder_hidden_states=text.expand(4, -1, -1)).sample
        assert torch.equal(base.predict_noise(latents, 321, PROMPT), expected)
        assert torch.equal(base.predict_noise(latents, np.int64(321), text), expected)
        assert not torch.equal(base.predict_noise(latents, 322, PROMPT), expected)
        assert not torch.equal(base.predict_noise(latents, 321, "a night video"), expected)

    def test_guidance_extrapolates_from_the_empty_prompt(self, base):
        r"""eps(w) = u + w (c - u), with u = eps(0) exactly: so eps(4) - u = 2 (eps(2) - u) up to the last sums.

        Rounding: u + 2 (c - u) and u + 4 (c - u) err by at most one unit of the result, the difference c - u enters
        both alike, and the two subtractions in the comparison add one each.
        """
        latents = base.to_latents(clip())
        none, double, fourfold = (
            base.predict_noise(latents, 500, PROMPT, guidance_scale=scale) for scale in (0.0, 2.0, 4.0)
        )
        error = ((fourfold - none) - 2 * (double - none)).abs()
        assert (error <= relative_budget(4) * (none.abs() + fourfold.abs() + 2 * double.abs())).all()
        # One call with the prompts side by side and one call each may differ in the order of their sums, not in what
        # they compute.
        empty, conditional = base.predict_noise(latents, 500, ""), base.predict_noise(latents, 500, PROMPT)
        effect = torch.linalg.norm(conditional - empty)
        assert torch.linalg.norm(none - empty) < 1e-6 * effect
        assert torch.linalg.norm((double - none) / 2 - (conditional - empty)) < 1e-6 * effect

    def test_guidance_keeps_the_prompt_tokens_on_both_sides(self, adapted):
        latents = adapted.to_latents(clip())
        with torch.no_grad():
            none = adapted.predict_noise(latents, 500, PROMPT, adapter=True, guidance_scale=0.0)
            empty = adapted.predict_noise(latents, 500, "", adapter=True)
            without = adapted.predict_noise(latents, 500, "")
        assert torch.linalg.norm(none - empty) < 1e-6 * torch.linalg.norm(empty - without)

    def test_frames_do_not_mix(self, base):
        latents = base.to_latents(clip())
        changed = latents.clone()
        changed[2] = noise_like(latents[2])
        before, after = base.predict_noise(latents, 500, PROMPT), base.predict_noise(changed, 500, PROMPT)
        assert torch.equal(before[[0, 1, 3]], after[[0, 1, 3]])
        assert not torch.equal(before[2], after[2])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda x: x.numpy(), "ndarray; expected a torch tensor"),
            (lambda x: x[0], r"shape \(3, 16, 16\); expected \(frames, 3, height, width\)"),
            (lambda x: x[:, :2], r"shape \(4, 2, 16, 16\)"),
            (lambda x: x[:0], "none of them 0"),
            (lambda x: x.float(), "dtype torch.float32 and the editor torch.float64"),
            (lambda x: x.to("meta"), "on meta and the editor on cpu"),
            (lambda x: torch.where(x == x[0, 0, 0, 0], torch.nan, x), "of 3072 latents are not finite"),
            (lambda x: x / 0, "of 3072 latents are not finite"),
        ],
    )
    def test_bad_latents(self, base, change, message):
        latents = change(base.to_latents(clip()))
        for call in (
            lambda: base.predict_noise(latents, 1, ""),
            lambda: base.invert(latents, "", num_steps=1),
            lambda: base.sample(latents, "", num_steps=1),
            lambda: base.features(latents, 1, ""),
        ):
            with pytest.raises(ValueError, match=message):
                call()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"timestep": -1}, "timestep = -1 must be an integer from 0 to 999"),
            ({"timestep": 1000}, "timestep = 1000"),
            ({"timestep": 0.5}, "timestep = 0.5"),
            ({"timestep": torch.tensor([1, 2, 3, 4])}, "one for all frames"),
            ({"prompt": 3}, "the prompt is a int; expected a string"),
            ({"prompt": torch.zeros(1, 4, 5, dtype=torch.float64)}, r"expected \(1, tokens, 16\)"),
            ({"prompt": torch.zeros(1, 4, 16)}, "torch.float32; expected"),
            ({"prompt": "bikes " * 20}, "has 22 tokens and the text encoder takes 16; 2 are start and end, the words take bikes 1"),
            ({"guidance_scale": float("inf")}, "guidance_scale = inf must be finite"),
            (
                {"guidance_scale": 2.0, "prompt": torch.zeros(1, 4, 16, dtype=torch.float64)},
                "has 4 tokens and the empty prompt 16",
            ),
        ],
    )
    def test_bad_arguments(self, base, arguments, message):
        with pytest.raises(ValueError, match=message):
            base.predict_noise(base.to_latents(clip()), **{"timestep": 1, "prompt": "", **arguments})


class TestDerivatives:
    def test_attention_is_plain_in_double_precision_and_fused_otherwise_unless_asked(self):
        def processors(**keywords):
            return {
                type(value) for value in Editor(pixel_pipeline(), **keywords).pipeline.unet.attn_processors.values()
            }

        assert processors(dtype=torch.float64) == {AttnProcessor}
        assert processors(dtype=torch.float32) == {AttnProcessor2_0}
        assert processors(dtype=torch.float32, plain_attention=True) == {AttnProcessor}
        assert processors(dtype=torch.float64, plain_attention=False) == {AttnProcessor2_0}

    def test_plain_and_fused_attention_agree(self, base):
        fused = Editor(pixel_pipeline(), dtype=torch.float64, plain_attention=False)
        latents = base.to_latents(clip())
        ours, theirs = (editor.predict_noise(latents, 500, PROMPT) for editor in (base, fused))
        # The same sums in another order: some thousand roundings, no cancellation that a trained network could not
        # stand.
        assert torch.linalg.norm(ours - theirs) <= 1e4 * UNIT_ROUNDOFF * torch.linalg.norm(ours)

    def test_the_temporal_loss_has_second_derivatives_in_the_adapter(self, adapted):
        r"""A Hessian-vector product by two reverse sweeps against a central difference of gradients.

        With the step h = u^(1/3) the difference is off by O(h^2) from curvature and by O(u / h) = O(h^2) from
        rounding, both about 2e-11 of the sizes involved; h itself leaves five digits for the constants.
        """
        latents = adapted.to_latents(clip())
        # Those of the layer before the captured one: all of them act on it.
        earlier = "up_blocks.1.attentions.0"
        parameters = {name: value for name, value in adapted.adapter_parameters().items() if earlier in name}
        generator = torch.Generator().manual_seed(4)
        direction = [
            torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in parameters.values()
        ]

        def gradient(create_graph=False):
            features = adapted.features(latents, 300, PROMPT, adapter=True, layers=r"up_blocks\.1\.attentions\.1")
            (values,) = features.values()
            return torch.autograd.grad(temporal_loss(values), list(parameters.values()), create_graph=create_graph)

        product = sum((g * v).sum() for g, v in zip(gradient(create_graph=True), direction, strict=True))
        exact = torch.autograd.grad(product, list(parameters.values()))
        h = UNIT_ROUNDOFF ** (1 / 3)
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                for value, v in zip(parameters.values(), direction, strict=True):
                    value.add_(sign * h * v)
            sides.append(gradient())
            with torch.no_grad():
                for value, v in zip(parameters.values(), direction, strict=True):
                    value.sub_(sign * h * v)
        difference = [(plus - minus) / (2 * h) for plus, minus in zip(*sides, strict=True)]
        size = torch.sqrt(sum(e.square().sum() for e in exact))
        assert size > 0
        error = torch.sqrt(sum((e - d).square().sum() for e, d in zip(exact, difference, strict=True)))
        assert error <= h * size

    # torch compiles its forward-mode rules with torch.jit.script, which it has deprecated itself.
    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
    def test_forward_and_reverse_mode_agree_on_the_noise_prediction(self, base):
        r"""<u, J v> = <J^T u, v>; both sides are sums over one network evaluation and its derivative, so they share
        their rounding up to some thousand units of |u| |J v|."""
        latents = base.to_latents(clip())
        v, u = noise_like(latents, 1), noise_like(latents, 2)

        def predict(x):
            return base.predict_noise(x, 500, PROMPT)

        _, forward = torch.func.jvp(predict, (latents,), (v,))
        _, pull_back = torch.func.vjp(predict, latents)
        (reverse,) = pull_back(u)
        size = torch.linalg.norm(u) * torch.linalg.norm(forward)
        assert size > 0
        assert abs((u * forward).sum() - (reverse * v).sum()) <= 1e4 * UNIT_ROUNDOFF * size

    def test_the_base_pipeline_is_frozen(self, adapted):
        trainable = {id(parameter) for parameter in adapted.adapter_parameters().values()}
        for model in adapted.pipeline.models.values():
            assert not model.training
            assert all(id(parameter) in trainable or not parameter.requires_grad for parameter in model.parameters())


class TestTrajectories:
    @pytest.mark.parametrize("adapter", [False, True])
    def test_each_step_is_the_recorded_prediction_at_the_stated_place(self, adapted, adapter):
        latents = adapted.to_latents(clip())
        inversion = adapted.invert(latents, PROMPT, num_steps=4, adapter=adapter)
        sampling = adapted.sample(inversion.latents[-1], PROMPT, num_steps=4, adapter=adapter)
        np.testing.assert_array_equal(inversion.timesteps, [-1, 1, 251, 501, 751])
        np.testing.assert_array_equal(inversion.alphas_cumprod[1:], adapted.alphas_cumprod[[1, 251, 501, 751]])
        assert inversion.alphas_cumprod[0] == adapted.alphas_cumprod[0]
        assert torch.equal(inversion.latents[0], latents)
        assert torch.equal(sampling.latents[-1], inversion.latents[-1])
        a, b = (
            torch.from_numpy(np.sqrt(values)) for values in (inversion.alphas_cumprod, 1 - inversion.alphas_cumprod)
        )
        for k in range(4):
            timestep = int(inversion.timesteps[k + 1])
            for trajectory, source, target in ((inversion, k, k + 1), (sampling, k + 1, k)):
                x, eps = trajectory.latents[source], trajectory.predictions[k]
                with torch.no_grad():
                    assert torch.equal(eps, adapted.predict_noise(x, timestep, PROMPT, adapter=adapter))
                expected = a[target] * (x - b[source] * eps) / a[source] + b[target] * eps
                operands = a[target] * (x.abs() + b[source] * eps.abs()) / a[source] + b[target] * eps.abs()
                # Ten roundings on each side, see tests/test_inversion.py.
                error = (trajectory.latents[target] - expected).abs()
                assert (error <= relative_budget(20) * operands).all()

    def test_nothing_is_attached_to_a_graph(self, adapted):
        latents = adapted.to_latents(clip())
        inversion = adapted.invert(latents, PROMPT, num_steps=2, adapter=True)
        assert not inversion.latents.requires_grad
        assert not inversion.predictions.requires_grad
        assert not adapted.sample(latents, PROMPT, num_steps=2, adapter=True).latents.requires_grad

    def test_fixed_point_inversion_is_retraced_to_rounding_where_it_contracts(self):
        pipeline = pixel_pipeline()
        with torch.no_grad():
            pipeline.unet.conv_out.weight.mul_(0.01)
        editor = Editor(pipeline, dtype=torch.float64)
        latents = editor.to_latents(clip())
        errors = []
        for iterations in (0, 2, 14):
            noise = editor.invert(latents, PROMPT, num_steps=4, fixed_point_iterations=iterations).latents[-1]
            returned = editor.sample(noise, PROMPT, num_steps=4).latents[0]
            errors.append(float(torch.linalg.norm(returned - latents) / torch.linalg.norm(latents)))
        assert errors[1] < errors[0] / 10
        # 4 steps of 20 roundings, which the way down multiplies by at most 1 / sqrt(abar_N); the small weights damp
        # what the prediction is off by.
        assert errors[2] <= relative_budget(4 * 20) / editor.alphas_cumprod[751] ** 0.5
        assert errors[0] > 1e6 * errors[2]

    def test_single_precision_stays_single(self):
        editor = Editor(pixel_pipeline())
        trajectory = editor.invert(editor.to_latents(clip()), PROMPT, num_steps=2)
        assert trajectory.latents.dtype == trajectory.predictions.dtype == torch.float32
        assert trajectory.alphas_cumprod.dtype == np.float64

    def test_seeds_and_devices(self):
        """The same numbers wherever the editor is; without an accelerator this compares two editors on the CPU."""
        accelerator = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        results = []
        for device in (torch.device("cpu"), accelerator):
            editor = Editor(pixel_pipeline(), device, torch.float64)
            editor.add_adapter(seed=5)
            editor.add_prompt_tokens(seed=5)
            assert all(value.device.type == device.type for value in editor.adapter_parameters().values())
            results.append({name: value.detach().cpu() for name, value in editor.adapter_parameters().items()})
            edit = editor.edit(clip(), PROMPT, "a night video", num_steps=2, adapter=True)
            results[-1]["frames"] = torch.from_numpy(edit.frames)
        ours, theirs = results
        frames = [result.pop("frames") for result in results]
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert (frames[0] - frames[1]).abs().max() <= 1 / 510


class TestEdit:
    def test_inversion_then_sampling(self, adapted):
        calls = []
        edit = adapted.edit(
            clip(),
            PROMPT,
            "a night video",
            num_steps=2,
            adapter=True,
            guidance_scale=2.0,
            progress=lambda *c: calls.append(c),
        )
        assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
        latents = adapted.to_latents(clip())
        inversion = adapted.invert(latents, PROMPT, num_steps=2, adapter=True)
        sampling = adapted.sample(inversion.latents[-1], "a night video", num_steps=2, adapter=True, guidance_scale=2.0)
        assert torch.equal(edit.inversion.latents, inversion.latents)
        assert torch.equal(edit.sampling.latents, sampling.latents)
        np.testing.assert_array_equal(edit.frames, adapted.to_frames(sampling.latents[0]))

    @pytest.mark.parametrize(
        ("adapter", "invert_adapter", "in_inversion", "in_sampling"),
        [
            (False, None, False, False),
            (True, None, True, True),
            (True, False, False, True),
            (False, True, True, False),
        ],
    )
    def test_the_adapter_may_differ_between_the_sides(
        self, adapted, adapter, invert_adapter, in_inversion, in_sampling
    ):
        edit = adapted.edit(clip(), PROMPT, PROMPT, num_steps=1, adapter=adapter, invert_adapter=invert_adapter)
        with torch.no_grad():
            for trajectory, level, on in (
                (edit.inversion, 0, in_inversion),
                (edit.sampling, 1, in_sampling),
            ):
                expected = adapted.predict_noise(trajectory.latents[level], 1, PROMPT, adapter=on)
                assert torch.equal(trajectory.predictions[0], expected)

    def test_the_frames_of_the_edit_become_those_of_the_tokens(self, adapted):
        other = np.ascontiguousarray(clip()[::-1][:3])
        edit = adapted.edit(other, PROMPT, PROMPT, num_steps=1, adapter=True)
        assert edit.frames.shape == (3, SIZE, SIZE, 3)
        adapted.set_frames(other)
        with torch.no_grad():
            expected = adapted.predict_noise(adapted.to_latents(other), 1, PROMPT, adapter=True)
        assert torch.equal(edit.inversion.predictions[0], expected)


class TestStableDiffusion:
    def test_latents_are_the_scaled_means(self, stable_diffusion_folder):
        editor = load_editor(str(stable_diffusion_folder), dtype=torch.float64)
        frames = clip(3, 32)
        latents = editor.to_latents(frames)
        assert latents.shape == (3, 4, 8, 8)
        assert editor.frame_size == 32
        vae = editor.pipeline.vae
        assert vae.config.scaling_factor == 0.18215
        for index in range(3):
            pixels = torch.from_numpy(frames[index].transpose(2, 0, 1).astype(np.float64))[None] * 2 - 1
            assert torch.equal(latents[index : index + 1], vae.encode(pixels).latent_dist.mean * 0.18215)
        with torch.no_grad():
            decoded = vae.decode(latents[1:2] / 0.18215).sample[0]
        expected = np.clip((decoded.numpy().transpose(1, 2, 0) + 1) / 2, 0, 1).astype(np.float32)
        np.testing.assert_array_equal(editor.to_frames(latents)[1], expected)

    def test_an_edit_with_adapter_and_tokens(self, stable_diffusion_folder):
        editor = load_editor(str(stable_diffusion_folder))
        editor.add_adapter()
        editor.add_prompt_tokens(patch_size=4)
        edit = editor.edit(
            clip(3, 32), "bikes in a street", "a night video", num_steps=2, adapter=True, guidance_scale=3.0
        )
        assert edit.frames.shape == (3, 32, 32, 3)
        assert edit.sampling.latents.shape == (3, 3, 4, 8, 8)
        features = editor.features(edit.inversion.latents[-1], 501, "", adapter=True)
        assert {name: tuple(value.shape) for name, value in features.items()} == {
            f"up_blocks.1.attentions.{index}.transformer_blocks.0.attn1": (3, 8, 8, 8) for index in range(2)
        }

    def test_frames_that_the_autoencoder_cannot_halve(self, stable_diffusion_folder):
        editor = load_editor(str(stable_diffusion_folder))
        with pytest.raises(ValueError, match="30 x 32 pixels cannot be reduced 4 times.*multiples of 4"):
            editor.to_latents(np.zeros((3, 30, 32, 3)))
        with pytest.raises(ValueError, match=r"expected \(frames, 4, height, width\)"):
            editor.to_frames(torch.zeros(3, 3, 8, 8))


class TestConstruction:
    def test_a_dtype_that_is_not_floating(self):
        with pytest.raises(ValueError, match="dtype = torch.int64 must be a floating-point dtype"):
            Editor(pixel_pipeline(), dtype=torch.int64)

    def test_a_device_that_is_not_there(self):
        with pytest.raises(ValueError, match="'warp' is no device"):
            load_editor(device="warp")
        with pytest.raises(ValueError, match="is not there"):
            Editor(pixel_pipeline(), "cuda:99")

    def test_a_scheduler_without_inverse(self):
        pipeline = pixel_pipeline()
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=True)
        with pytest.raises(ValueError, match="clip_sample = True"):
            Editor(pipeline)

    def test_alphas_are_those_of_the_scheduler(self, base):
        table = base.pipeline.scheduler.alphas_cumprod
        assert table.dtype == torch.float32
        assert base.alphas_cumprod.dtype == np.float64
        np.testing.assert_array_equal(base.alphas_cumprod, table.numpy())

    def test_a_context_switch_for_direct_calls(self, adapted):
        latents = adapted.to_latents(clip())
        unet = adapted.pipeline.unet
        for on in (True, False):
            with adapted.adapters(on), torch.no_grad():
                direct = unet(latents, 300, encoder_hidden_states=adapted.context(PROMPT, 4)).sample
            with torch.no_grad():
                assert torch.equal(direct, adapted.predict_noise(latents, 300, PROMPT, adapter=on))


class TestAdapterFile:
    def test_it_comes_back_bit_for_bit(self, adapted, tmp_path):
        path = tmp_path / "adapter.safetensors"
        adapted.save_adapter(path)
        fresh = Editor(pixel_pipeline(), dtype=torch.float64)
        fresh.load_adapter(path)
        fresh.set_frames(clip())
        saved = adapted.adapter_parameters()
        loaded = fresh.adapter_parameters()
        assert list(saved) == list(loaded)
        assert all(torch.equal(saved[name], loaded[name]) for name in saved)
        latents = fresh.to_latents(clip())
        with torch.no_grad():
            results = [editor.predict_noise(latents, 300, PROMPT, adapter=True) for editor in (adapted, fresh)]
        assert torch.equal(*results)
        assert [entry.name for entry in tmp_path.iterdir()] == ["adapter.safetensors"]

    def test_equal_adapters_have_equal_bytes(self, tmp_path):
        for name in ("first", "second"):
            adapted_editor().save_adapter(tmp_path / name)
        assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()

    def test_metadata_says_what_it_is(self, adapted, tmp_path):
        adapted.save_adapter(tmp_path / "adapter.safetensors")
        with safe_open(tmp_path / "adapter.safetensors", framework="pt") as content:
            settings = json.loads(content.metadata()["framebound"])
            assert set(content.keys()) == set(adapted.adapter_parameters())
        assert settings == {
            "format": "framebound adapter",
            "version": 1,
            "rank": 2,
            "alpha": 2.0,
            "num_shared": 2,
            "patch_size": 8,
        }

    @pytest.mark.parametrize("part", ["lora", "tokens"])
    def test_either_part_alone(self, part, tmp_path):
        editor = Editor(pixel_pipeline())
        if part == "lora":
            editor.add_adapter(rank=3, alpha=6)
        else:
            editor.add_prompt_tokens(num_shared=1, patch_size=4)
        editor.save_adapter(tmp_path / "part")
        fresh = Editor(pixel_pipeline())
        fresh.load_adapter(tmp_path / "part")
        assert list(fresh.adapter_parameters()) == list(editor.adapter_parameters())
        assert fresh.has_prompt_tokens == (part == "tokens")

    def test_it_loads_into_an_adapter_of_the_same_shape(self, adapted, tmp_path):
        adapted.save_adapter(tmp_path / "adapter")
        expected = {name: value.detach().clone() for name, value in adapted.adapter_parameters().items()}
        parameters = adapted.adapter_parameters()
        with torch.no_grad():
            for value in parameters.values():
                value.add_(1)
        adapted.load_adapter(tmp_path / "adapter")
        assert all(torch.equal(parameters[name], expected[name]) for name in expected)

    @pytest.mark.parametrize(
        ("own", "message"),
        [
            ({"rank": 3, "alpha": 2.0}, "rank = 2 and the editor's adapter rank = 3"),
            ({"rank": 2, "alpha": 8.0}, "alpha = 2.0 and the editor's adapter alpha = 8.0"),
            ({"rank": 2, "alpha": 2.0, "num_shared": 5}, "num_shared = 2 and the editor's adapter num_shared = 5"),
        ],
    )
    def test_another_shape_of_adapter(self, adapted, tmp_path, own, message):
        adapted.save_adapter(tmp_path / "adapter")
        editor = Editor(pixel_pipeline(), dtype=torch.float64)
        editor.add_adapter(rank=own["rank"], alpha=own["alpha"])
        editor.add_prompt_tokens(own.get("num_shared", 2))
        before = {name: value.detach().clone() for name, value in editor.adapter_parameters().items()}
        with pytest.raises(ValueError, match=message):
            editor.load_adapter(tmp_path / "adapter")
        after = editor.adapter_parameters()
        assert all(torch.equal(after[name], before[name]) for name in before)

    def test_another_unet(self, adapted, tmp_path):
        adapted.save_adapter(tmp_path / "adapter")
        editor = Editor(stable_diffusion_pipeline(), dtype=torch.float64)
        with pytest.raises(
            ValueError, match=r"\d+ of \d+ parameters match, and the first that does not, tokens.frame.weight, is"
        ):
            editor.load_adapter(tmp_path / "adapter")
        assert not editor.has_adapter

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda tensors: tensors.pop("tokens.shared"), "tokens.shared, is missing from the file"),
            (lambda tensors: tensors.update(alien=torch.zeros(1)), "alien, is not in the editor"),
            (
                lambda tensors: tensors.update({"tokens.shared": torch.zeros(3, 16)}),
                r"tokens.shared, is \(3, 16\) in the file and \(2, 16\) in the editor",
            ),
            (
                lambda tensors: tensors.update({"tokens.shared": torch.full((2, 16), torch.nan)}),
                "tokens.shared holds values that are not finite",
            ),
        ],
    )
    def test_keys_that_do_not_match(self, adapted, tmp_path, change, message):
        path = tmp_path / "adapter"
        adapted.save_adapter(path)
        count = len(adapted.adapter_parameters())
        with safe_open(path, framework="pt") as content:
            metadata = content.metadata()
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata=metadata)
        editor = Editor(pixel_pipeline(), dtype=torch.float64)
        with pytest.raises(ValueError, match=message) as caught:
            editor.load_adapter(path)
        if "alien" in message:
            assert f"{count} of {count} parameters match" in str(caught.value)
        elif "finite" not in message:
            assert f"{count - 1} of {count} parameters match" in str(caught.value)
        assert not editor.has_adapter

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (None, "is no framebound adapter"),
            ("{", "is no framebound adapter"),
            ('{"format": "other"}', "is no framebound adapter"),
            ('{"format": "framebound adapter", "version": 2}', "has format version 2; this program reads version 1"),
            ('{"format": "framebound adapter", "version": 1}', "has rank = 'nothing'; expected int or null"),
            (
                '{"format": "framebound adapter", "version": 1, "rank": "four"}',
                "has rank = 'four'; expected int or null",
            ),
        ],
    )
    def test_other_safetensors_files(self, base, tmp_path, settings, message):
        path = tmp_path / "file"
        save_file({"x": torch.zeros(1)}, path, metadata=None if settings is None else {"framebound": settings})
        with pytest.raises(ValueError, match=message):
            base.load_adapter(path)

    def test_missing_and_corrupted_files(self, adapted, tmp_path):
        path = tmp_path / "adapter"
        with pytest.raises(ValueError, match="no such file"):
            adapted.load_adapter(path)
        adapted.save_adapter(path)
        content = path.read_bytes()
        for broken in (content[:-1], content[: len(content) // 2], b"", b"\x80\x04" + content):
            path.write_bytes(broken)
            with pytest.raises(ValueError, match="is no intact safetensors file"):
                adapted.load_adapter(path)

    def test_nothing_to_save(self, base, tmp_path):
        with pytest.raises(ValueError, match="no adapter to save"):
            base.save_adapter(tmp_path / "adapter")

    def test_a_failed_save_keeps_the_earlier_file(self, adapted, tmp_path):
        path = tmp_path / "adapter"
        adapted.save_adapter(path)
        before = path.read_bytes()
        with torch.no_grad():
            adapted.adapter_parameters()["tokens.shared"].fill_(torch.inf)
        with pytest.raises(ValueError, match="tokens.shared holds values that are not finite"):
            adapted.save_adapter(path)
        assert path.read_bytes() == before
        with pytest.raises(ValueError, match="does not exist"):
            adapted_editor().save_adapter(tmp_path / "absent" / "adapter")

    def test_a_corrupted_pipeline_folder_is_named(self, stable_diffusion_folder, tmp_path):
        folder = tmp_path / "broken"
        shutil.copytree(stable_diffusion_folder, folder)
        weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(ValueError, match="broken"):
            load_editor(str(folder))


def test_features_can_be_captured_in_the_same_pass_as_the_prediction(base):
    latents = base.to_latents(clip())
    with captured_features(base.pipeline.unet) as features:
        eps = base.predict_noise(latents, 300, PROMPT)
    assert torch.equal(eps, base.predict_noise(latents, 300, PROMPT))
    separate = base.features(latents, 300, PROMPT)
    assert all(torch.equal(features[name], separate[name]) for name in separate)
