"""The editor: a frozen pipeline, LoRA adapters and prompt tokens, DDIM inversion and sampling, feature capture.

Frames go through the UNet side by side, one batch entry a frame; nothing but the adapters, the prompt tokens and the
temporal loss they are trained under knows that the frames are consecutive.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from experiments.editor.adapters import (
    adapted_weight_norms,
    add_lora,
    lora_enabled,
    lora_is_enabled,
    lora_parameters,
    lora_update_norms,
    remove_lora,
)
from experiments.editor.capture import ReducedFeatures, captured_features, reduced_features
from experiments.editor.inversion import (
    PredictNoise,
    Progress,
    Trajectory,
    check_scheduler,
    invert_latents,
    noise_ladder,
    sample_latents,
)
from experiments.editor.lora_files import (
    LoraFile,
    apply_lora_file,
    find_lora_file,
    read_lora_file,
    remove_text_lora,
)
from experiments.editor.pipeline import Pipeline, load_pipeline, require_device
from experiments.editor.prompts import require_prompt
from experiments.editor.tokens import PromptTokens, patch_features
from experiments.files import whole_file
from experiments.opened_files import record

ADAPTER_FORMAT = "framebound adapter"
ADAPTER_VERSION = 1
_SETTINGS_KEY = "framebound"


@dataclass(frozen=True)
class Edit:
    """An edited clip: the inversion of the source, the sampling of the target, and its frames.

    Attributes:
        inversion, sampling: sampling starts from the last level of inversion.
        frames: float32 (frames, height, width, 3) in [0, 1].
    """

    inversion: Trajectory
    sampling: Trajectory
    frames: np.ndarray


class Editor:
    """A diffusion pipeline that inverts, samples and edits clips, with adapters and prompt tokens that can be switched.

    Args:
        pipeline: moved to `device` and `dtype`, frozen and set to evaluation.
        device: None is the CPU.
        dtype: a floating-point dtype; float64 for everything that is compared with a bound.
        plain_attention: compute attention by matrix products and a softmax, which can be differentiated twice and in
            forward mode; the fused kernels cannot. None chooses it for float64.

    Attributes:
        lora_file: what the adapter was read from, if it is another program's.

    Raises:
        ValueError: dtype is not floating-point, the device is not there, or the scheduler's steps have no inverse (see
            `inversion.check_scheduler`).
    """

    def __init__(
        self,
        pipeline: Pipeline,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        plain_attention: bool | None = None,
    ) -> None:
        if not dtype.is_floating_point:
            raise ValueError(f"dtype = {dtype} must be a floating-point dtype; use torch.float32 or torch.float64")
        check_scheduler(pipeline.scheduler)
        self.pipeline = pipeline.to(require_device(device), dtype)
        self.device = pipeline.unet.device
        self.dtype = dtype
        for model in pipeline.models.values():
            model.requires_grad_(False).eval()
        if dtype == torch.float64 if plain_attention is None else plain_attention:
            pipeline.unet.set_attn_processor(AttnProcessor())
        self._tokens: PromptTokens | None = None
        self._tokens_enabled = False
        self._frame_features: torch.Tensor | None = None
        self._encoded: dict[tuple[str, bool], torch.Tensor] = {}
        self._lora_settings: tuple[int, float] | None = None
        self.lora_file: LoraFile | None = None

    @property
    def alphas_cumprod(self) -> np.ndarray:
        """float64 (num_train_timesteps,): the scheduler's float32 values, promoted."""
        return self.pipeline.scheduler.alphas_cumprod.double().cpu().numpy()

    @property
    def frame_size(self) -> int:
        """Side in pixels of the square frames that the pipeline was trained on, the shorter one where they were none.

        Raises:
            ValueError: the UNet's settings do not say.
        """
        stated = self.pipeline.unet.config.sample_size
        if stated is None:
            raise ValueError(
                "the UNet's config.json has sample_size = null, so the side of the frames is not known; give it (--size)"
            )
        return int(min(stated) if isinstance(stated, list | tuple) else stated) * self._reduction

    @property
    def _reduction(self) -> int:
        vae = self.pipeline.vae
        return 1 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)

    @property
    def has_adapter(self) -> bool:
        """Whether there is a LoRA adapter or prompt tokens to switch on."""
        return self._tokens is not None or self._lora_settings is not None or self.lora_file is not None

    @property
    def has_prompt_tokens(self) -> bool:
        """Whether there are prompt tokens; where they are on, calls need the frames of `set_frames`."""
        return self._tokens is not None

    def to_latents(self, frames: np.ndarray) -> torch.Tensor:
        """Frames as the UNet takes them.

            x = 2 f - 1,  or with an autoencoder  x = (mean of its encoding of 2 f - 1, less its shift) * its scale

        Args:
            frames: (frames, height, width, 3) floating NumPy array in [0, 1].

        Returns:
            (frames, channels, height, width) of the editor's dtype, on its device; with an autoencoder both sides are
            divided by its reduction. The mean is taken and not a sample, so that equal frames have equal latents.

        Raises:
            ValueError: wrong shape or dtype, values not finite or outside [0, 1], sides the autoencoder cannot halve.
        """
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise ValueError(f"frames have shape {frames.shape}; expected (frames, height, width, 3), none of them 0")
        if not np.issubdtype(frames.dtype, np.floating):
            raise ValueError(
                f"frames have dtype {frames.dtype}; expected floating in [0, 1] (divide 8-bit frames by 255)"
            )
        if not np.isfinite(frames).all():
            raise ValueError(
                f"frames hold {np.count_nonzero(~np.isfinite(frames))} values that are not finite; repair them first"
            )
        if frames.min() < 0 or frames.max() > 1:
            raise ValueError(
                f"frames lie in [{frames.min():.6g}, {frames.max():.6g}]; expected [0, 1]; clip or rescale them first"
            )
        pixels = (
            torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).to(self.device, self.dtype) * 2 - 1
        )
        vae = self.pipeline.vae
        if vae is None:
            return pixels
        reduction = self._reduction
        if pixels.shape[-2] % reduction or pixels.shape[-1] % reduction:
            raise ValueError(
                f"frames of {pixels.shape[-2]} x {pixels.shape[-1]} pixels cannot be reduced {reduction} times by the"
                f" autoencoder; crop or resize the sides to multiples of {reduction}"
            )
        with torch.no_grad():
            means = torch.cat([vae.encode(frame).latent_dist.mean for frame in pixels.split(1)])
        return (means - _latent_shift(vae)) * vae.config.scaling_factor

    def to_frames(self, latents: torch.Tensor) -> np.ndarray:
        """The inverse of `to_latents`, up to the autoencoder: float32 (frames, height, width, 3), clipped to [0, 1].

        Raises:
            ValueError: see `predict_noise` on latents.
        """
        self._check_latents(latents)
        vae = self.pipeline.vae
        with torch.no_grad():
            pixels = latents
            if vae is not None:
                scaled = latents / vae.config.scaling_factor + _latent_shift(vae)
                pixels = torch.cat([vae.decode(frame).sample for frame in scaled.split(1)])
            frames = ((pixels + 1) / 2).clamp(0, 1)
        return frames.permute(0, 2, 3, 1).to("cpu", torch.float32).contiguous().numpy()

    def encode_prompt(self, text: str) -> torch.Tensor:
        """The text encoder's last hidden states: (1, tokens, dim) of the editor's dtype.

        Raises:
            ValueError: `text` is no string, or longer than the text encoder takes; then what each word costs is said.
        """
        # A LoRA of the text encoder, where it is on, encodes otherwise.
        key = (text, lora_is_enabled(self.pipeline.text_encoder))
        if not isinstance(text, str) or key not in self._encoded:
            require_prompt(self.pipeline.tokenizer, text)
            tokenizer = self.pipeline.tokenizer
            known = self.pipeline.text_encoder.get_input_embeddings().num_embeddings
            strangers = [token for token in self.pipeline.tokens([text])[0].tolist() if token >= known]
            if strangers:
                raise ValueError(
                    f"the prompt {text!r} has the token {tokenizer.decode(strangers[:1])!r}, number {strangers[0]}, and the"
                    f" text encoder embeds {known}: load the text encoder that was trained with this tokenizer"
                )
            with torch.no_grad():
                self._encoded[key] = self.pipeline.encode_prompts([text]).to(self.dtype)
        return self._encoded[key]

    def add_adapter(self, rank: int = 4, alpha: float = 4, seed: int = 0) -> None:
        """Adds LoRA to to_q, to_k, to_v and to_out.0 of every attention, unmerged and off until a call asks for it.

        The update is (alpha / rank) B A with B = 0 at the start. The parameters have the editor's dtype, float32
        where that is a half-precision one.

        Raises:
            ValueError: there is one already, rank below 1, or alpha not positive and finite.
        """
        # Adam's steps vanish in the rounding of half precision.
        dtype = self.dtype if self.dtype.itemsize >= 4 else torch.float32
        add_lora(self.pipeline.unet, rank=rank, alpha=alpha, seed=seed, dtype=dtype)
        self._lora_settings = (rank, float(alpha))

    def add_prompt_tokens(self, num_shared: int = 4, seed: int = 0, *, patch_size: int = 8) -> None:
        """Adds learned context: [shared | frame tokens of f | text] for frame f, where the adapter is on.

        Args:
            num_shared: number of tokens that all frames share.
            patch_size: side of the patches, in the space the UNet works in, that the frame tokens are computed from;
                every second patch gives one token (see `tokens.patch_features`).

        Raises:
            ValueError: there are some already, or a number is out of range.
        """
        if self._tokens is not None:
            raise ValueError("the editor has prompt tokens already; remove them first (Editor.remove_adapter)")
        unet = self.pipeline.unet
        tokens = PromptTokens(
            num_shared=num_shared,
            dim=unet.config.cross_attention_dim,
            channels=unet.config.in_channels,
            patch_size=patch_size,
            seed=seed,
        )
        dtype = self.dtype if self.dtype.itemsize >= 4 else torch.float32
        self._tokens = tokens.to(self.device, dtype)
        self._frame_features = None

    def remove_adapter(self) -> None:
        """Takes LoRA and prompt tokens out; the pipeline is the base pipeline again."""
        remove_lora(self.pipeline.unet)
        remove_text_lora(self.pipeline.text_encoder)
        self._encoded.clear()
        self._lora_settings = None
        self.lora_file = None
        self._tokens = None
        self._frame_features = None

    def set_frames(self, frames: np.ndarray) -> None:
        """Sets the source frames that the frame tokens are computed from; see `to_latents` for their form.

        Raises:
            ValueError: there are no prompt tokens, frames as in `to_latents`, or the patch size does not divide the
                latents.
        """
        if self._tokens is None:
            raise ValueError("the editor has no prompt tokens; call add_prompt_tokens first")
        self._frame_features = patch_features(self.to_latents(frames), self._tokens.patch_size)

    @contextmanager
    def adapters(self, enabled: bool) -> Iterator[None]:
        """Switches LoRA and prompt tokens on or off for direct calls of pipeline.unet and `context` in the block.

        The editor's other methods switch by their own `adapter` argument. Afterwards the state is what it was before.

        Raises:
            ValueError: on, and there is neither LoRA nor prompt tokens.
        """
        if enabled and not self.has_adapter:
            raise ValueError(
                "the editor has no adapter to switch on; call add_adapter, add_prompt_tokens or load_adapter first"
            )
        before = self._tokens_enabled
        self._tokens_enabled = enabled
        try:
            with lora_enabled(self.pipeline.unet, enabled), lora_enabled(self.pipeline.text_encoder, enabled):
                yield
        finally:
            self._tokens_enabled = before

    def context(
        self, prompt: str | torch.Tensor, num_frames: int, *, frame_indices: Sequence[int] | None = None
    ) -> torch.Tensor:
        """What the cross-attention sees, (num_frames, tokens, dim): [shared | frame | text], or the text where off.

        Raises:
            ValueError: a prompt as in `predict_noise`; with prompt tokens on, frames that do not match those of
                `set_frames`.
        """
        text = self._text(prompt).expand(num_frames, -1, -1)
        if self._tokens is None or not self._tokens_enabled:
            return text
        if self._frame_features is None:
            raise ValueError("prompt tokens need the source frames; call set_frames first")
        known = len(self._frame_features)
        indices = list(range(known)) if frame_indices is None else [int(index) for index in frame_indices]
        if len(indices) != num_frames:
            raise ValueError(
                f"{num_frames} frames were given and the tokens of {len(indices)} frames chosen; call set_frames with"
                " the frames, or name theirs by frame_indices"
            )
        for index in indices:
            if not 0 <= index < known:
                raise ValueError(f"frame_indices holds {index}; the frames of set_frames are numbered 0 to {known - 1}")
        tokens = self._tokens(self._frame_features[indices].to(self._tokens.shared.dtype))
        return torch.cat([tokens.to(self.dtype), text], dim=1)

    def predict_noise(
        self,
        latents: torch.Tensor,
        timestep: int,
        prompt: str | torch.Tensor,
        *,
        adapter: bool = False,
        guidance_scale: float = 1.0,
        frame_indices: Sequence[int] | None = None,
        frames_at_once: int | None = None,
    ) -> torch.Tensor:
        """The noise prediction; the one place where the UNet is called.

            eps = eps(x, t, prompt),  or with guidance w != 1:  eps(x, t, "") + w (eps(x, t, prompt) - eps(x, t, ""))

        The prompt tokens, where they are on, are part of both contexts, so guidance amplifies the effect of the text
        alone. Gradients flow as torch's grad mode says.

        Args:
            latents: (frames, channels, height, width) of the editor's dtype, on its device.
            timestep: integer, the same for all frames.
            prompt: text, or an encoded prompt (1, tokens, dim).
            adapter: LoRA and prompt tokens on or off; off is the base pipeline bit for bit.
            guidance_scale: w.
            frame_indices: which frames of `set_frames` the latents belong to, for prompt tokens; None means all, in
                order.
            frames_at_once: how many frames go through the UNet in one evaluation, twice as many under guidance; None
                is all. It bounds the memory and leaves the result alone, up to rounding.

        Returns:
            (frames, channels, height, width), same dtype.

        Raises:
            ValueError: latents of wrong shape, dtype or device, or not finite; timestep out of range; guidance_scale
                not finite; frames_at_once below 1; adapter on where there is none; what `encode_prompt` and `context`
                raise.
        """
        self._check_latents(latents)
        training_steps = self.pipeline.scheduler.config.num_train_timesteps
        whole = isinstance(timestep, int | np.integer) and not isinstance(timestep, bool)
        if not (whole and 0 <= timestep < training_steps):
            raise ValueError(
                f"timestep = {timestep} must be an integer from 0 to {training_steps - 1}, one for all frames"
            )
        if not math.isfinite(guidance_scale):
            raise ValueError(f"guidance_scale = {guidance_scale} must be finite; 1 is without guidance")
        if frames_at_once is not None and frames_at_once < 1:
            raise ValueError(f"frames_at_once = {frames_at_once} must be at least 1; None takes all frames at once")
        with self.adapters(adapter):
            context = self.context(prompt, len(latents), frame_indices=frame_indices)
            unconditional = None
            if guidance_scale != 1:
                unconditional = self.context("", len(latents), frame_indices=frame_indices)
                if unconditional.shape != context.shape:
                    raise ValueError(
                        f"the encoded prompt has {context.shape[1]} tokens and the empty prompt"
                        f" {unconditional.shape[1]}; guidance needs equal lengths: encode the prompt with encode_prompt"
                    )
            size = frames_at_once or len(latents)
            parts = [
                self._evaluate(
                    latents[start : start + size],
                    int(timestep),
                    context[start : start + size],
                    None if unconditional is None else unconditional[start : start + size],
                    guidance_scale,
                )
                for start in range(0, len(latents), size)
            ]
            return self._as_noise(parts[0] if len(parts) == 1 else torch.cat(parts), latents, int(timestep))

    def _as_noise(self, output: torch.Tensor, latents: torch.Tensor, timestep: int) -> torch.Tensor:
        """The UNet's output for (x, t) as a prediction of the noise, by

            eps = sqrt(abar_t) v + sqrt(1 - abar_t) x,    eps = (x - sqrt(abar_t) x_0) / sqrt(1 - abar_t).

        Both are affine in the output, so converting what guidance has extrapolated is extrapolating what is converted.
        """
        kind = self.pipeline.prediction_type
        if kind == "epsilon":
            return output
        abar = float(self.pipeline.scheduler.alphas_cumprod[timestep])
        signal, noise = math.sqrt(abar), math.sqrt(1 - abar)
        return signal * output + noise * latents if kind == "v_prediction" else (latents - signal * output) / noise

    def _evaluate(
        self,
        latents: torch.Tensor,
        timestep: int,
        context: torch.Tensor,
        unconditional: torch.Tensor | None,
        guidance_scale: float,
    ) -> torch.Tensor:
        unet = self.pipeline.unet
        if unconditional is None:
            return unet(latents, timestep, encoder_hidden_states=context).sample
        eps = unet(
            torch.cat([latents, latents]), timestep, encoder_hidden_states=torch.cat([unconditional, context])
        ).sample
        eps_unconditional, eps_conditional = eps.chunk(2)
        return eps_unconditional + guidance_scale * (eps_conditional - eps_unconditional)

    def invert(
        self,
        latents: torch.Tensor,
        prompt: str | torch.Tensor,
        *,
        num_steps: int = 50,
        adapter: bool = False,
        guidance_scale: float = 1.0,
        fixed_point_iterations: int = 0,
        frames_at_once: int | None = None,
        progress: Progress | None = None,
    ) -> Trajectory:
        """DDIM inversion from data to noise, by diffusers' DDIMInverseScheduler; see `inversion.invert_latents`.

        The step from level k to k + 1 evaluates eps(x_k, t_{k+1}).

        Raises:
            ValueError: what `predict_noise`, `inversion.noise_ladder` and `inversion.invert_latents` raise.
        """
        predict = self._predictor(prompt, adapter, guidance_scale, frames_at_once)
        ladder = noise_ladder(self.pipeline.scheduler, num_steps, self.dtype)
        with torch.no_grad():
            return invert_latents(
                predict, latents, ladder, fixed_point_iterations=fixed_point_iterations, progress=progress
            )

    def sample(
        self,
        latents: torch.Tensor,
        prompt: str | torch.Tensor,
        *,
        num_steps: int = 50,
        adapter: bool = False,
        guidance_scale: float = 1.0,
        frames_at_once: int | None = None,
        progress: Progress | None = None,
    ) -> Trajectory:
        """Deterministic DDIM sampling from noise to data, by diffusers' DDIMScheduler with eta = 0.

        The step from level k + 1 to k evaluates eps(x_{k+1}, t_{k+1}). The latents given are those of the top level;
        the trajectory is ordered from data to noise, so its latents[0] is the result.

        Raises:
            ValueError: what `predict_noise`, `inversion.noise_ladder` and `inversion.sample_latents` raise.
        """
        predict = self._predictor(prompt, adapter, guidance_scale, frames_at_once)
        ladder = noise_ladder(self.pipeline.scheduler, num_steps, self.dtype)
        with torch.no_grad():
            return sample_latents(predict, latents, ladder, progress=progress)

    def edit(
        self,
        frames: np.ndarray,
        source_prompt: str,
        target_prompt: str,
        *,
        num_steps: int = 50,
        adapter: bool = False,
        invert_adapter: bool | None = None,
        guidance_scale: float = 1.0,
        fixed_point_iterations: int = 0,
        progress: Progress | None = None,
    ) -> Edit:
        """Inverts the frames under the source prompt and samples under the target prompt.

        Args:
            frames: as in `to_latents`; where prompt tokens are on they become the frames of `set_frames`.
            adapter: LoRA and prompt tokens on or off in sampling.
            invert_adapter: the same in inversion; None means as in sampling.
            guidance_scale: of sampling; the inversion runs without guidance, which would amplify its error.
            progress: called with (steps done, 2 num_steps).

        Raises:
            ValueError: what `to_latents`, `invert` and `sample` raise.
        """
        invert_adapter = adapter if invert_adapter is None else invert_adapter
        latents = self.to_latents(frames)
        if self._tokens is not None and (adapter or invert_adapter):
            self.set_frames(frames)

        def report(offset: int) -> Progress | None:
            return None if progress is None else lambda done, _: progress(offset + done, 2 * num_steps)

        inversion = self.invert(
            latents,
            source_prompt,
            num_steps=num_steps,
            adapter=invert_adapter,
            fixed_point_iterations=fixed_point_iterations,
            progress=report(0),
        )
        sampling = self.sample(
            inversion.latents[-1],
            target_prompt,
            num_steps=num_steps,
            adapter=adapter,
            guidance_scale=guidance_scale,
            progress=report(num_steps),
        )
        return Edit(inversion, sampling, self.to_frames(sampling.latents[0]))

    def features(
        self,
        latents: torch.Tensor,
        timestep: int,
        prompt: str | torch.Tensor,
        *,
        adapter: bool = False,
        layers: str | Sequence[str] | None = None,
        frame_indices: Sequence[int] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Self-attention (attn1) outputs of one evaluation of the UNet, without guidance.

        Args:
            layers: module paths, a regular expression searched for in them, or None for all of the up blocks; see
                `capture.select_layers`. The other arguments are those of `predict_noise`.

        Returns:
            module path -> (frames, channels, height, width) of the editor's dtype, attached to the graph where
            gradients are on.

        Raises:
            ValueError: what `predict_noise` and `capture.select_layers` raise.
        """
        with captured_features(self.pipeline.unet, layers) as features:
            self.predict_noise(latents, timestep, prompt, adapter=adapter, frame_indices=frame_indices)
        return features

    def reduced_features(
        self,
        latents: torch.Tensor,
        timestep: int,
        prompt: str | torch.Tensor,
        *,
        adapter: bool = False,
        layers: str | Sequence[str] | None = None,
        frame_indices: Sequence[int] | None = None,
        frames_at_once: int | None = None,
    ) -> dict[str, ReducedFeatures]:
        """Norms and inner products of what `features` returns, which is never held: see `capture.reduced_features`.

        With `frames_at_once` the memory for activations does not grow with the number of frames.

        Raises:
            ValueError: what `predict_noise` and `capture.select_layers` raise.
        """
        with torch.no_grad(), reduced_features(self.pipeline.unet, layers) as reduced:
            self.predict_noise(
                latents, timestep, prompt, adapter=adapter, frame_indices=frame_indices, frames_at_once=frames_at_once
            )
        return reduced

    def adapter_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The trainable parameters by the names they are saved under.

        "unet.<module path>.lora_A.weight" (rank, in), "unet.<module path>.lora_B.weight" (out, rank), "tokens.shared",
        "tokens.frame.weight", "tokens.frame.bias"; empty where there is no adapter.
        """
        parameters = lora_parameters(self.pipeline.unet)
        if self._tokens is not None:
            parameters |= {f"tokens.{name}": parameter for name, parameter in self._tokens.named_parameters()}
        return parameters

    def adapter_update_norms(self) -> dict[str, float]:
        """Frobenius norm of (alpha / rank) B A of each adapted projection, by module path; empty without LoRA."""
        return lora_update_norms(self.pipeline.unet)

    def adapted_weight_norms(self) -> dict[str, float]:
        """Frobenius norm of the frozen weight of each adapted projection, by module path; empty without LoRA."""
        return adapted_weight_norms(self.pipeline.unet)

    def save_adapter(self, path: str | os.PathLike[str]) -> None:
        """Writes LoRA and prompt tokens into one safetensors file, whole or not at all.

        Keys are those of `adapter_parameters`; the metadata key "framebound" holds a JSON object with format,
        version, rank, alpha, num_shared and patch_size (null for a part that is absent).

        Raises:
            ValueError: there is no adapter, it was read from a LoRA file of another program, a parameter is not finite,
                or the folder of `path` does not exist.
        """
        if not self.has_adapter:
            raise ValueError("the editor has no adapter to save; call add_adapter or add_prompt_tokens first")
        if self.lora_file is not None:
            raise ValueError(
                f"the adapter of ranks {self.lora_file.ranks} was read from a LoRA file, which this format with its one"
                " rank cannot replace; copy that file"
            )
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.adapter_parameters().items()}
        _require_finite(tensors, str(path))
        settings = {"format": ADAPTER_FORMAT, "version": ADAPTER_VERSION, **self._adapter_settings()}
        content = save(tensors, metadata={_SETTINGS_KEY: json.dumps(settings, sort_keys=True)})
        with whole_file(path) as temporary:
            temporary.write_bytes(content)

    def load_adapter(self, path: str | os.PathLike[str]) -> None:
        """Reads what `save_adapter` wrote, adding LoRA and prompt tokens where there is none; off until asked for.

        Also a LoRA file of peft, diffusers or kohya (see `lora_files`), into an editor without an adapter.

        The editor is unchanged where this raises. Frame tokens need `set_frames` afterwards.

        Raises:
            ValueError: the file is missing, corrupted, pickled, of another format or version, holds values that are not
                finite, was made with another rank, alpha, num_shared or patch size than the editor's adapter, or its
                keys or shapes do not match.
        """
        path = record(find_lora_file(path))
        if _is_foreign(path):
            if self.has_adapter:
                raise ValueError(f"{path} needs an editor without an adapter; remove it first (Editor.remove_adapter)")
            text_encoder = self.pipeline.text_encoder
            file = read_lora_file(path, self.pipeline.unet, text_encoder)
            dtype = self.dtype if self.dtype.itemsize >= 4 else torch.float32
            apply_lora_file(self.pipeline.unet, file, dtype, text_encoder)
            self.lora_file = file
            return
        settings, tensors = _read_adapter(path)
        fresh = not self.has_adapter
        try:
            if fresh:
                if settings["rank"] is not None:
                    self.add_adapter(settings["rank"], settings["alpha"])
                if settings["num_shared"] is not None:
                    self.add_prompt_tokens(settings["num_shared"], patch_size=settings["patch_size"])
            own = self._adapter_settings()
            for name, value in settings.items():
                if own[name] != value:
                    raise ValueError(
                        f"{path} has {name} = {value} and the editor's adapter {name} = {own[name]};"
                        " load it into an editor without an adapter (Editor.remove_adapter)"
                    )
            parameters = self.adapter_parameters()
            _require_same_keys(path, parameters, tensors)
        except Exception:
            if fresh:
                self.remove_adapter()
            raise
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[name])

    def _adapter_settings(self) -> dict[str, int | float | None]:
        rank, alpha = self._lora_settings or (None, None)
        return {
            "rank": rank,
            "alpha": alpha,
            "num_shared": None if self._tokens is None else self._tokens.num_shared,
            "patch_size": None if self._tokens is None else self._tokens.patch_size,
        }

    def _predictor(
        self, prompt: str | torch.Tensor, adapter: bool, guidance_scale: float, frames_at_once: int | None
    ) -> PredictNoise:
        return lambda latents, timestep: self.predict_noise(
            latents,
            timestep,
            prompt,
            adapter=adapter,
            guidance_scale=guidance_scale,
            frames_at_once=frames_at_once,
        )

    def _text(self, prompt: str | torch.Tensor) -> torch.Tensor:
        if not isinstance(prompt, torch.Tensor):
            return self.encode_prompt(prompt)
        dim = self.pipeline.unet.config.cross_attention_dim
        if prompt.ndim != 3 or len(prompt) != 1 or prompt.shape[2] != dim or prompt.dtype != self.dtype:
            raise ValueError(
                f"the encoded prompt is {tuple(prompt.shape)} {prompt.dtype}; expected (1, tokens, {dim}) {self.dtype}:"
                " pass the text, or what encode_prompt returns"
            )
        return prompt

    def _check_latents(self, latents: torch.Tensor) -> None:
        channels = self.pipeline.unet.config.in_channels
        if not isinstance(latents, torch.Tensor):
            raise ValueError(f"latents are a {type(latents).__name__}; expected a torch tensor, as to_latents returns")
        if latents.ndim != 4 or latents.shape[1] != channels or 0 in latents.shape:
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}; expected (frames, {channels}, height, width), none of them"
                " 0: to_latents makes them from frames"
            )
        if latents.dtype != self.dtype:
            raise ValueError(
                f"latents have dtype {latents.dtype} and the editor {self.dtype}; convert them with .to(dtype)"
            )
        if latents.device != self.device:
            raise ValueError(
                f"latents are on {latents.device} and the editor on {self.device}; move them with .to(device)"
            )
        if not torch.isfinite(latents).all():
            count = int((~torch.isfinite(latents)).sum())
            raise ValueError(f"{count} of {latents.numel()} latents are not finite; repair the frames they come from")


def load_editor(
    path_or_id: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    *,
    plain_attention: bool | None = None,
) -> Editor:
    """An editor around a pipeline: the shipped one (None), a diffusers folder, or a hub id.

    Raises:
        ValueError: what `pipeline.load_pipeline` and `Editor` raise.
    """
    return Editor(load_pipeline(path_or_id, device=device), device, dtype, plain_attention=plain_attention)


def _latent_shift(vae: torch.nn.Module) -> float:
    # Stable Diffusion has none; later autoencoders centre their latents.
    return vae.config.get("shift_factor") or 0.0


def _is_foreign(path: Path) -> bool:
    """Whether the file is another program's; a file that cannot be read is left to `_read_adapter` to refuse."""
    try:
        with safe_open(path, framework="pt") as content:
            return _SETTINGS_KEY not in (content.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _read_adapter(path: Path) -> tuple[dict[str, int | float | None], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as content:
            metadata = content.metadata() or {}
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118, not a mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no intact safetensors file ({error}); copy or save it again") from error
    try:
        settings = json.loads(metadata.get(_SETTINGS_KEY, "null"))
    except json.JSONDecodeError:
        settings = None
    if not isinstance(settings, dict) or settings.get("format") != ADAPTER_FORMAT:
        raise ValueError(f"{path} is no framebound adapter and holds no LoRA; give a file that save_adapter wrote")
    if settings.get("version") != ADAPTER_VERSION:
        raise ValueError(
            f"{path} has format version {settings.get('version')}; this program reads version {ADAPTER_VERSION}"
        )
    types = {"rank": int, "alpha": float, "num_shared": int, "patch_size": int}
    for name, kind in types.items():
        value = settings.get(name, "nothing")
        if value is not None and type(value) is not kind:
            raise ValueError(f"{path} has {name} = {value!r}; expected {kind.__name__} or null: save it again")
    _require_finite(tensors, str(path))
    return {name: settings[name] for name in types}, tensors


def _require_finite(tensors: dict[str, torch.Tensor], where: str) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(
                f"{where}: {name} holds values that are not finite; train again with a lower learning rate"
            )


def _require_same_keys(path: Path, parameters: dict[str, torch.nn.Parameter], tensors: dict[str, torch.Tensor]) -> None:
    matching = [name for name in parameters if name in tensors and tensors[name].shape == parameters[name].shape]
    strangers = sorted((parameters.keys() | tensors.keys()) - set(matching))
    if not strangers:
        return
    first = strangers[0]
    if first not in tensors:
        reason = "is missing from the file"
    elif first not in parameters:
        reason = "is not in the editor"
    else:
        reason = f"is {tuple(tensors[first].shape)} in the file and {tuple(parameters[first].shape)} in the editor"
    raise ValueError(
        f"{path}: {len(matching)} of {len(parameters)} parameters match, and the first that does not, {first},"
        f" {reason}; load it into the pipeline it was trained on"
    )
