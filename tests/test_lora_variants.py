"""Variants of LoRA by their formulas, the settings beside them, and files that are something else."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_pipelines import clip, stable_diffusion_pipeline

from experiments.editor.editor import Editor
from experiments.editor.lora_files import apply_lora_file, read_lora_file

pytestmark = pytest.mark.usefixtures("single_thread")

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"  # 8 x 8
FEED = "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2"  # 8 x 32, with bias
CONVOLUTION = "down_blocks.0.resnets.0.conv1"  # 8 x 8 x 3 x 3, with bias
STEM = {name: f"lora_unet_{name.replace('.', '_')}" for name in (QUERY, FEED, CONVOLUTION)}


@pytest.fixture(scope="module")
def pipeline():
    return stable_diffusion_pipeline()


@pytest.fixture
def read(pipeline, tmp_path):
    """`read(tensors, metadata, settings)`: what a file with these tensors, and settings beside it, is read as."""

    def read_it(tensors, metadata=None, settings=None):
        path = tmp_path / "adapter_model.safetensors"
        save_file({name: torch.as_tensor(tensor).contiguous() for name, tensor in tensors.items()}, path, metadata)
        if settings is not None:
            (tmp_path / "adapter_config.json").write_text(
                settings if isinstance(settings, str) else json.dumps(settings)
            )
        return read_lora_file(path, pipeline.unet, pipeline.text_encoder)

    return read_it


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def weight(pipeline, name):
    return pipeline.unet.get_submodule(name).weight.detach().double()


def keys(name, **factors):
    return {f"{STEM[name]}.{factor.replace('__', '.')}": tensor for factor, tensor in factors.items()}


class TestFormulas:
    """Each against the definition, written out with loops or NumPy, in float64."""

    def test_lora_of_a_convolution_in_tucker_form(self, read):
        down, mid, up = drawn(2, 8, 1, 1), drawn(2, 2, 3, 3), drawn(8, 2, 1, 1)
        file = read(
            keys(CONVOLUTION, lora_down__weight=down, lora_mid__weight=mid, lora_up__weight=up, alpha=torch.tensor(3.0))
        )
        expected = np.zeros((8, 8, 3, 3))
        for p in range(2):
            for q in range(2):
                outer = np.outer(up[:, p, 0, 0].double(), down[q, :, 0, 0].double())
                expected += 1.5 * outer[:, :, None, None] * mid[p, q].double().numpy()
        np.testing.assert_allclose(file.updates[CONVOLUTION].delta(), expected, atol=1e-12)

    def test_loha(self, read):
        parts = {f"hada_w{n}_{x}": drawn(*((8, 2) if x == "a" else (2, 32)), seed=n) for n in (1, 2) for x in "ab"}
        file = read(keys(FEED, **parts, alpha=torch.tensor(3.0)))
        first, second = (np.asarray(parts[f"hada_w{n}_a"].double() @ parts[f"hada_w{n}_b"].double()) for n in (1, 2))
        np.testing.assert_allclose(file.updates[FEED].delta(), 1.5 * first * second, atol=1e-12)

    def test_loha_with_a_learned_scalar(self, read):
        parts = {f"hada_w{n}_{x}": torch.ones(8, 2) if x == "a" else torch.ones(2, 8) for n in (1, 2) for x in "ab"}
        file = read(keys(QUERY, **parts, alpha=torch.tensor(2.0), scalar=torch.tensor(0.25)))
        np.testing.assert_allclose(file.updates[QUERY].delta(), np.full((8, 8), 0.25 * 4))

    def test_lokr_of_two_whole_factors_has_no_alpha(self, read):
        first, second = drawn(2, 4), drawn(4, 8, seed=1)
        file = read(keys(FEED, lokr_w1=first, lokr_w2=second, alpha=torch.tensor(5.0)))
        np.testing.assert_allclose(file.updates[FEED].delta(), np.kron(first.double(), second.double()), atol=1e-12)

    def test_lokr_of_a_whole_and_a_decomposed_factor(self, read):
        first, left, right = drawn(2, 4), drawn(4, 2), drawn(2, 8)
        file = read(keys(FEED, lokr_w1=first, lokr_w2_a=left, lokr_w2_b=right, alpha=torch.tensor(5.0)))
        expected = 2.5 * np.kron(first.double(), left.double() @ right.double())
        np.testing.assert_allclose(file.updates[FEED].delta(), expected, atol=1e-12)

    @pytest.mark.parametrize("name", [FEED, CONVOLUTION])
    @pytest.mark.parametrize("axis", ["output", "input"])
    def test_dora_scale_in_both_conventions(self, read, pipeline, name, axis):
        base = weight(pipeline, name)
        out, into, *kernel = base.shape
        down, up = drawn(2, into, *kernel), drawn(out, 2, *[1] * len(kernel))
        # Where outputs and inputs are of one number, only the shape of the scale tells the two apart.
        scale = drawn(out, *[1] * (base.ndim - 1)) if axis == "output" else drawn(1, into, *[1] * len(kernel))
        file = read(keys(name, lora_down__weight=down, lora_up__weight=up, dora_scale=scale, alpha=torch.tensor(4.0)))
        merged = base + 2 * torch.einsum("op,pi...->oi...", up.flatten(1).double(), down.double())
        for row in range(out if axis == "output" else into):
            part = merged[row] if axis == "output" else merged[:, row]
            found = (base + file.updates[name].delta())[row if axis == "output" else (slice(None), row)]
            np.testing.assert_allclose(found, scale.flatten()[row].double() * part / part.norm(), atol=1e-12)
        assert any("diffusers drops it" in warning for warning in file.warnings)

    def test_full_difference_and_bias(self, read, pipeline):
        difference, shift = drawn(8, 8, 3, 3), drawn(8)
        file = read(keys(CONVOLUTION, diff=difference, diff_b=shift))
        np.testing.assert_allclose(file.updates[CONVOLUTION].delta(), difference.double(), atol=1e-12)
        editor = Editor(stable_diffusion_pipeline(), dtype=torch.float64)
        layer = editor.pipeline.unet.get_submodule(CONVOLUTION)
        inputs = drawn(1, 8, 5, 5).double()
        expected = torch.nn.functional.conv2d(
            inputs, layer.weight + difference.double(), layer.bias + shift.double(), layer.stride, layer.padding
        )
        apply_lora_file(editor.pipeline.unet, file, torch.float64)
        editor.lora_file = file
        with editor.adapters(True):
            found = editor.pipeline.unet.get_submodule(CONVOLUTION)(inputs)
        np.testing.assert_allclose(found.detach(), expected.detach(), atol=1e-11)

    def test_composed_updates_say_that_their_parameters_are_not_audited(self, read):
        file = read(keys(QUERY, diff=drawn(8, 8)))
        assert file.composed == "The adapter holds full difference, put in as the update of each layer"
        assert any(note.startswith("not audited: the learning rate") for note in file.notes)
        plain = read(keys(QUERY, lora_down__weight=drawn(2, 8), lora_up__weight=drawn(8, 2), alpha=torch.tensor(2.0)))
        assert plain.composed is None and plain.warnings == ()


PLAIN = {
    f"base_model.model.{QUERY}.lora_A.weight": drawn(4, 8),
    f"base_model.model.{QUERY}.lora_B.weight": drawn(8, 4),
}
KOHYA = keys(QUERY, lora_down__weight=drawn(4, 8), lora_up__weight=drawn(8, 4))


class TestAlpha:
    @pytest.mark.parametrize(
        ("tensors", "metadata", "settings", "alpha", "source"),
        [
            (PLAIN, None, {"peft_type": "LORA", "r": 4, "lora_alpha": 32}, 32, "adapter_config.json"),
            (PLAIN, None, {"r": 4, "lora_alpha": 32, "use_rslora": True}, 64, "adapter_config.json"),
            (PLAIN, None, {"r": 4, "lora_alpha": 1, "alpha_pattern": {"attn1.to_q": 6}}, 6, "adapter_config.json"),
            (PLAIN, None, {"r": 4, "lora_alpha": 1, "alpha_pattern": {"attn2.to_q": 6}}, 1, "adapter_config.json"),
            (PLAIN, None, None, 4, "nowhere"),
            (KOHYA, {"ss_network_alpha": "32.0", "ss_network_dim": "4"}, None, 32, "ss_network_alpha"),
            (KOHYA, {"ss_network_alpha": "None"}, None, 4, "nowhere"),
            (KOHYA, {"ss_network_alpha": "nan"}, None, 4, "nowhere"),
            ({**KOHYA, f"{STEM[QUERY]}.alpha": torch.tensor(2.0)}, {"ss_network_alpha": "32"}, None, 2, "keys"),
            ({**KOHYA, f"{STEM[QUERY]}.alpha": torch.tensor(2)}, None, None, 2, "keys"),
        ],
    )
    def test_it_is_read_from_where_it_is_stated(self, read, tensors, metadata, settings, alpha, source):
        file = read(tensors, metadata, settings)
        assert file.updates[QUERY].alpha == alpha and file.alpha_source == source

    def test_one_that_is_not_stated_is_warned_of(self, read):
        assert any("no alpha is stated" in warning for warning in read(PLAIN).warnings)
        said = read(KOHYA, {"ss_network_alpha": "32.0"}).warnings
        assert len(said) == 1 and "alpha = 32 is read from ss_network_alpha" in said[0] and "alpha = rank" in said[0]

    def test_one_that_some_layers_lack_is_warned_of(self, read):
        half = keys(FEED, lora_down__weight=drawn(4, 32), lora_up__weight=drawn(8, 4), alpha=torch.tensor(2.0))
        assert any("1 of 2 layers have no alpha" in warning for warning in read({**KOHYA, **half}).warnings)

    def test_a_convolution_has_its_own_in_kohyas_header(self, read):
        tensors = keys(CONVOLUTION, lora_down__weight=drawn(2, 8, 3, 3), lora_up__weight=drawn(8, 2, 1, 1))
        header = {"ss_network_alpha": "8", "ss_network_args": json.dumps({"conv_dim": 2, "conv_alpha": "1"})}
        assert read({**KOHYA, **tensors}, header).updates[CONVOLUTION].alpha == 1

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ("{", "are no JSON"),
            ("[" * 100000, "are no JSON"),
            ("[]", "are a list, not an object"),
            ({"lora_alpha": [1]}, r"lora_alpha = \[1\]; a finite number other than 0"),
            ({"lora_alpha": True}, "lora_alpha = True; a finite number"),
            ({"lora_alpha": 0}, "lora_alpha = 0; a finite number other than 0"),
            ('{"lora_alpha": Infinity}', "lora_alpha = inf; a finite number"),
            ({"lora_alpha": 1, "alpha_pattern": 5}, "alpha_pattern = 5; an object"),
            ({"lora_alpha": 1, "alpha_pattern": {"(": 2}}, r"alpha_pattern '\(', a regular expression; only names"),
            ({"lora_alpha": 1, "alpha_pattern": {"(a+)+$": 2}}, "a regular expression; only names"),
            ({"lora_alpha": 1, "alpha_pattern": {"to_q": "2"}}, r"alpha_pattern\['to_q'\] = '2'; a finite number"),
            ({"lora_alpha": 1, "use_rslora": "yes"}, "use_rslora = 'yes'; true or false"),
            ({"lora_alpha": 1, "use_dora": True}, r"is a DoRA \(use_dora\), and .* has no magnitude"),
            ({"lora_alpha": 1, "peft_type": "BOFT"}, "peft_type = 'BOFT'; read are LORA, LOHA, LOKR"),
            (
                {"lora_alpha": 1, "init_lora_weights": "pissa_niter_4"},
                "with which training changed the base weights too",
            ),
            ({"lora_alpha": 1, "alora_invocation_tokens": [1, 2]}, "an activated LoRA"),
        ],
    )
    def test_settings_of_another_kind_are_named(self, read, settings, message):
        with pytest.raises(ValueError, match=message):
            read(PLAIN, None, settings)


def unet_weights(pipeline):
    return {name: tensor for name, tensor in pipeline.unet.state_dict().items()}


ONE = torch.ones(2, 2)
NAMED = {
    # case: (names of the tensors, what the message says)
    "motion LoRA": (
        [
            "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.to_q.lora_A.weight"
        ],
        "a motion LoRA or motion module of AnimateDiff",
    ),
    "motion module": (
        ["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"],
        "motion module of AnimateDiff",
    ),
    "Flux, diffusers": (
        ["transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"],
        "a LoRA of a diffusion transformer",
    ),
    "Flux, kohya": (["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"], "a LoRA of a diffusion transformer"),
    "SD3": (["transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight"], "a LoRA of a diffusion transformer"),
    "Wan": (["diffusion_model.blocks.0.self_attn.q.lora_A.weight"], "a LoRA of a diffusion transformer"),
    "SDXL": (
        [f"{STEM[QUERY]}.lora_down.weight", "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"],
        "a LoRA of SDXL",
    ),
    "ControlNet": (["controlnet_cond_embedding.conv_in.weight"], "a ControlNet"),
    "IP-Adapter": (["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"], "an IP-Adapter"),
    "textual inversion": (["emb_params"], "a textual inversion.*load_textual_inversion"),
    "textual inversion, diffusers": (["<my-cat>"], "a textual inversion"),
    "whole checkpoint": (["model.diffusion_model.input_blocks.0.0.weight"], "a whole checkpoint.*from_single_file"),
    "OFT": (["lora_unet_mid_block_attentions_0_proj_in.oft_blocks"], "an OFT"),
    "(IA)^3": (["lora_unet_mid_block.weight", "lora_unet_mid_block.on_input"], r"\(IA\)\^3"),
    "GLoRA": ([f"{STEM[QUERY]}.a1.weight", f"{STEM[QUERY]}.b1.weight"], "of a kind that is not read"),
    "autoencoder": (["encoder.down_blocks.0.resnets.0.conv1.weight"], "an autoencoder"),
    "something else": (["conv.weight"], "is no framebound adapter and holds no LoRA weights"),
}


@pytest.mark.parametrize("case", NAMED)
def test_a_file_that_cannot_be_applied_is_called_what_it_is(read, case):
    names, message = NAMED[case]
    with pytest.raises(ValueError, match=message):
        read({name: ONE.clone() for name in names})


def test_a_whole_unet_is_called_so(read, pipeline):
    with pytest.raises(ValueError, match="is a whole UNet and no adapter: put it as unet/diffusion_pytorch_model"):
        read(unet_weights(pipeline))


class TestFaults:
    def test_two_adapters_in_one_file(self, read):
        tensors = {
            f"unet.{QUERY}.lora_{factor}.{adapter}.weight": tensor
            for adapter in ("style", "subject")
            for factor, tensor in (("A", drawn(4, 8)), ("B", drawn(8, 4)))
        }
        with pytest.raises(ValueError, match="holds 2 adapters, style, subject; give one adapter a file"):
            read(tensors)

    def test_one_layer_stated_twice(self, read):
        with pytest.raises(ValueError, match="both state down of .*attn1.to_q; give one adapter a file"):
            read({**KOHYA, **PLAIN})

    @pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.bool])
    def test_weights_that_are_no_floating_point_numbers(self, read, dtype):
        with pytest.raises(ValueError, match=f"has dtype {dtype}; floating-point weights are needed"):
            read({**PLAIN, f"base_model.model.{QUERY}.lora_A.weight": torch.ones(4, 8).to(dtype)})

    def test_nan_in_float8(self, read):
        spoilt = torch.full((4, 8), torch.nan).to(torch.float8_e4m3fn)
        with pytest.raises(ValueError, match="holds values that are not finite"):
            read({**PLAIN, f"base_model.model.{QUERY}.lora_A.weight": spoilt})

    @pytest.mark.parametrize(
        ("factors", "message"),
        [
            ({"hada_w1_a": drawn(8, 2), "hada_w1_b": drawn(2, 8), "hada_w2_a": drawn(8, 2)}, "lacks hada_w2_b"),
            ({"lokr_w1": drawn(2, 2)}, "lacks lokr_w2_a"),
            ({"lokr_w1": drawn(2, 2), "lokr_w2": drawn(3, 3)}, r"an update of shape \(6, 6\), which does not fit"),
            ({"diff": drawn(8, 9)}, r"an update of shape \(8, 9\), which does not fit"),
            ({"alpha": torch.tensor(1.0), "lora_down__weight": drawn(2, 8)}, "has down and not both factors"),
            (
                {"lora_down__weight": drawn(2, 8), "lora_up__weight": drawn(8, 2), "dora_scale": drawn(3, 1)},
                r"a magnitude of shape \(3, 1\), which fits neither side",
            ),
            (
                {"lora_down__weight": drawn(2, 8), "lora_up__weight": drawn(8, 3)},
                "has down of rank 2 and up of rank 3",
            ),
        ],
    )
    def test_factors_that_make_no_update(self, read, factors, message):
        with pytest.raises(ValueError, match=message):
            read(keys(QUERY, **factors))


def test_the_text_encoder_is_off_where_the_adapter_is_off(pipeline, tmp_path):
    layer = "encoder.layers.0.self_attn.q_proj"
    tensors = {
        **PLAIN,
        f"text_encoder.text_model.{layer}.lora_A.weight": drawn(2, 16),
        f"text_encoder.text_model.{layer}.lora_B.weight": 20 * drawn(16, 2),
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    editor = Editor(stable_diffusion_pipeline(), dtype=torch.float64)
    latents = editor.to_latents(clip(2, 16))
    before, plain = editor.predict_noise(latents, 300, "a cat"), editor.encode_prompt("a cat")
    editor.load_adapter(tmp_path / "lora.safetensors")
    assert list(editor.lora_file.text_updates) == [layer]
    assert torch.equal(editor.predict_noise(latents, 300, "a cat"), before)
    with editor.adapters(True):
        assert (editor.encode_prompt("a cat") - plain).abs().max() > 1e-3
    assert torch.equal(editor.encode_prompt("a cat"), plain)
    editor.remove_adapter()
    assert torch.equal(editor.predict_noise(latents, 300, "a cat"), before)
    editor.load_adapter(tmp_path / "lora.safetensors")
    assert editor.has_adapter
