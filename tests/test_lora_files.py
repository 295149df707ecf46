"""LoRA files of other programs: every key format gives the same network, and what does not fit is named."""

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_pipelines import clip, stable_diffusion_pipeline

from experiments.editor.editor import Editor
from experiments.editor.lora_files import read_lora_file

pytestmark = pytest.mark.usefixtures("single_thread")

RANK, ALPHA = 3, 6.0


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A LoRA of attention, feed-forward and convolution as peft itself writes it, and what its network predicts."""
    folder = tmp_path_factory.mktemp("lora")
    editor = Editor(stable_diffusion_pipeline(), dtype=torch.float64)
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=["to_q", "to_out.0", "ff.net.2", "conv1"],
        rank_pattern={"conv1": 2},
        init_lora_weights=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        get_peft_model(editor.pipeline.unet, config).save_pretrained(folder)
    latents = editor.to_latents(clip(3, 16))
    with torch.no_grad():
        # peft's model is the UNet itself with its layers replaced, the adapter on.
        eps = editor.pipeline.unet(latents, 300, encoder_hidden_states=editor.context("a", 3)).sample
    return folder, latents, eps


def prediction(path, latents):
    editor = Editor(stable_diffusion_pipeline(), dtype=torch.float64)
    before = editor.predict_noise(latents, 300, "a")
    editor.load_adapter(path)
    assert torch.equal(editor.predict_noise(latents, 300, "a"), before), "off until a call asks for it"
    return editor.predict_noise(latents, 300, "a", adapter=True).detach(), editor


def modules_of(written):
    """Module path -> (down, up)."""
    tensors = load_file(written[0] / "adapter_model.safetensors")
    found = {}
    for key, tensor in tensors.items():
        name, factor = key.removeprefix("base_model.model.").removesuffix(".weight").rsplit(".lora_", 1)
        found.setdefault(name, {})[factor] = tensor
    return {name: (pair["A"], pair["B"]) for name, pair in found.items()}


def scaled(modules):
    """The ups times alpha / rank, so that alpha = rank gives the same update."""
    return {name: (down, up * ALPHA / len(down)) for name, (down, up) in modules.items()}


FORMATS = {
    "diffusers, peft keys": lambda name, factor: f"unet.{name}.lora_{'A' if factor == 'down' else 'B'}.weight",
    "diffusers, no prefix": lambda name, factor: f"{name}.lora_{'A' if factor == 'down' else 'B'}.weight",
    "diffusers": lambda name, factor: f"unet.{name}.lora.{factor}.weight",
    "diffusers, linear layer": lambda name, factor: f"unet.{name}.lora_linear_layer.{factor}.weight",
    "kohya": lambda name, factor: f"lora_unet_{name.replace('.', '_')}.lora_{factor}.weight",
}


class TestFormats:
    def test_a_folder_of_peft(self, written):
        folder, latents, eps = written
        found, editor = prediction(folder, latents)
        np.testing.assert_allclose(found, eps, rtol=0, atol=1e-12)
        assert editor.lora_file.alpha_source == "adapter_config.json" and editor.lora_file.ranks == [2, 3]

    @pytest.mark.parametrize("name", FORMATS)
    def test_keys_without_alpha_mean_alpha_equal_to_the_rank(self, written, tmp_path, name):
        _, latents, eps = written
        tensors = {
            FORMATS[name](module, factor): tensor.contiguous()
            for module, pair in scaled(modules_of(written)).items()
            for factor, tensor in zip(("down", "up"), pair, strict=True)
        }
        save_file(tensors, tmp_path / "lora.safetensors")
        found, editor = prediction(tmp_path / "lora.safetensors", latents)
        # Scaling rounds the float32 weights once.
        np.testing.assert_allclose(found, eps, rtol=0, atol=1e-5)
        assert editor.lora_file.alpha_source == "nowhere"

    def test_alpha_keys_of_kohya_and_text_encoder_weights(self, written, tmp_path):
        _, latents, eps = written
        stem = "lora_te_text_model_encoder_layers_0_mlp_fc1"
        tensors = {f"{stem}.lora_down.weight": torch.ones(1, 16), f"{stem}.lora_up.weight": torch.zeros(32, 1)}
        tensors[f"{stem}.alpha"] = torch.tensor(1.0)
        for module, (down, up) in modules_of(written).items():
            stem = f"lora_unet_{module.replace('.', '_')}"
            tensors |= {
                f"{stem}.lora_down.weight": down,
                f"{stem}.lora_up.weight": up,
                f"{stem}.alpha": torch.tensor(ALPHA),
            }
        save_file(tensors, tmp_path / "lora.safetensors")
        found, editor = prediction(tmp_path / "lora.safetensors", latents)
        np.testing.assert_allclose(found, eps, rtol=0, atol=1e-12)
        assert editor.lora_file.alpha_source == "keys" and list(editor.lora_file.text_updates) == ["encoder.layers.0.mlp.fc1"]

    def test_processor_keys_of_old_diffusers(self, written, tmp_path):
        editor = Editor(stable_diffusion_pipeline())
        modules = {name: pair for name, pair in scaled(modules_of(written)).items() if ".attn" in name}
        tensors = {}
        for module, pair in modules.items():
            attention, layer = module.rsplit(".to_", 1)
            for factor, tensor in zip(("down", "up"), pair, strict=True):
                tensors[f"unet.{attention}.processor.to_{layer.removesuffix('.0')}_lora.{factor}.weight"] = tensor
        save_file(tensors, tmp_path / "lora.safetensors")
        file = read_lora_file(tmp_path / "lora.safetensors", editor.pipeline.unet)
        assert file.updates.keys() == modules.keys()
        for module, (down, up) in modules.items():
            assert torch.equal(file.updates[module].down, down) and torch.equal(file.updates[module].up, up)

    @pytest.mark.parametrize("prefix", ["", "unet."])
    def test_alpha_in_the_metadata_of_diffusers(self, written, tmp_path, prefix):
        _, latents, eps = written
        tensors = {
            FORMATS["diffusers, peft keys"](module, factor): tensor
            for module, pair in modules_of(written).items()
            for factor, tensor in zip(("down", "up"), pair, strict=True)
        }
        stated = json.dumps({f"{prefix}lora_alpha": ALPHA, f"{prefix}r": RANK})
        save_file(tensors, tmp_path / "lora.safetensors", metadata={"lora_adapter_metadata": stated})
        found, editor = prediction(tmp_path / "lora.safetensors", latents)
        np.testing.assert_allclose(found, eps, rtol=0, atol=1e-12)
        assert editor.lora_file.alpha_source == "metadata"


class TestRefusals:
    @pytest.fixture
    def changed(self, written, tmp_path):
        """`changed(change)`: the complaint about a file after `change(tensors)`, and how many weights it had."""

        def load(change, metadata=None):
            tensors = {
                FORMATS["diffusers"](module, factor): tensor
                for module, pair in modules_of(written).items()
                for factor, tensor in zip(("down", "up"), pair, strict=True)
            }
            count = len(tensors)
            change(tensors)
            save_file(tensors, tmp_path / "lora.safetensors", metadata=metadata)
            editor = Editor(stable_diffusion_pipeline())
            with pytest.raises(ValueError) as caught:
                editor.load_adapter(tmp_path / "lora.safetensors")
            assert not editor.has_adapter
            return str(caught.value), count

        return load

    def test_alien_layer(self, changed):
        line, count = changed(lambda tensors: tensors.update({"unet.attic.to_q.lora.down.weight": torch.ones(2, 8)}))
        assert f"{count} of {count + 1} LoRA weights match" in line
        assert "unet.attic.to_q.lora.down.weight, names a layer that this UNet does not have" in line

    def test_half_a_layer(self, changed):
        line, count = changed(lambda tensors: tensors.pop(min(tensors)))
        assert f"{count - 1} of {count - 1} LoRA weights match" in line and "has up and not both factors" in line

    def test_variants_of_lora(self, changed):
        line, _ = changed(lambda tensors: tensors.update({"unet.mid_block.dora_scale": torch.ones(1)}))
        assert "unet.mid_block.dora_scale, names a layer that this UNet does not have" in line
        line, _ = changed(
            lambda tensors: None, {"lora_adapter_metadata": json.dumps({"use_dora": True, "lora_alpha": 1})}
        )
        assert "says that it is a DoRA (use_dora)" in line and "has no magnitude" in line

    def test_values(self, changed):
        def spoil(tensors):
            tensors[min(tensors)] = torch.full_like(tensors[min(tensors)], torch.nan)

        assert "holds values that are not finite" in changed(spoil)[0]
        assert "are no JSON" in changed(lambda tensors: None, {"lora_adapter_metadata": "{"})[0]

    def test_text_encoder_alone(self, tmp_path):
        save_file({"text_encoder.layer.lora.down.weight": torch.ones(1, 1)}, tmp_path / "lora.safetensors")
        with pytest.raises(ValueError, match="0 of 1 LoRA weights are the UNet's"):
            Editor(stable_diffusion_pipeline()).load_adapter(tmp_path / "lora.safetensors")

    def test_second_adapter_and_saving(self, written, tmp_path):
        editor = Editor(stable_diffusion_pipeline())
        editor.load_adapter(written[0])
        with pytest.raises(ValueError, match="needs an editor without an adapter"):
            editor.load_adapter(written[0])
        with pytest.raises(ValueError, match=r"ranks \[2, 3\] was read from a LoRA file"):
            editor.save_adapter(tmp_path / "adapter.safetensors")
        editor.remove_adapter()
        assert not editor.has_adapter

    def test_folder_without_one(self, tmp_path):
        with pytest.raises(ValueError, match="holds none of pytorch_lora_weights.safetensors"):
            Editor(stable_diffusion_pipeline()).load_adapter(tmp_path)
