"""Prompt tokens: learned context for the cross-attention, shared by all frames and specific to each.

The context of frame f is [shared | frame tokens of f | text]. The shared tokens are learned vectors, N(0, 0.02^2) at
the start; the frame tokens are one Linear of the frame's patch features. Source: arXiv 2504.16016 and the public code
of its companion arXiv 2501.04606, which takes every second patch token of CLIP; here a patch feature is the patch
itself, in the space the UNet works in (pixels in [-1, 1] or latents), so that no second network is needed.
"""

import torch

INITIAL_DEVIATION = 0.02
PATCH_STRIDE = 2


def patch_features(frames: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Every second non-overlapping square patch of each frame, flattened; row by row from the top left corner.

    Args:
        frames: (frames, channels, height, width) in the space the UNet works in.
        patch_size: side of a patch; must divide height and width.

    Returns:
        (frames, ceil(patches / 2), channels * patch_size**2), of the dtype of `frames`.

    Raises:
        ValueError: patch_size is below 1 or does not divide the frame.
    """
    height, width = frames.shape[-2:]
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(
            f"patch_size = {patch_size} must divide the {height} x {width} frame; choose a common divisor of both sides"
        )
    patches = torch.nn.functional.unfold(frames, kernel_size=patch_size, stride=patch_size)
    return patches.transpose(1, 2)[:, ::PATCH_STRIDE].contiguous()


class PromptTokens(torch.nn.Module):
    """Shared learned tokens and a Linear from patch features to frame tokens.

    Parameters: `shared` (num_shared, dim), N(0, 0.02^2); `frame.weight` (dim, channels * patch_size**2), N(0, 0.02^2);
    `frame.bias` (dim,), zero. They are drawn in float32 on the CPU, so a seed means the same tokens in every dtype
    and on every device.

    Raises:
        ValueError: num_shared negative, or another size below 1.
    """

    def __init__(self, *, num_shared: int, dim: int, channels: int, patch_size: int, seed: int) -> None:
        super().__init__()
        if num_shared < 0:
            raise ValueError(f"num_shared = {num_shared} must be at least 0; the published number is 4")
        for name, value in (("dim", dim), ("channels", channels), ("patch_size", patch_size)):
            if value < 1:
                raise ValueError(f"{name} = {value} must be at least 1")
        generator = torch.Generator().manual_seed(seed)
        self.num_shared = num_shared
        self.patch_size = patch_size
        self.shared = torch.nn.Parameter(torch.randn((num_shared, dim), generator=generator) * INITIAL_DEVIATION)
        # Linear draws its own start from the global generator; it is overwritten below and must leave no trace there.
        with torch.random.fork_rng(devices=[]):
            self.frame = torch.nn.Linear(channels * patch_size**2, dim)
        with torch.no_grad():
            self.frame.weight.copy_(torch.randn(self.frame.weight.shape, generator=generator) * INITIAL_DEVIATION)
            self.frame.bias.zero_()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(frames, patches, channels * patch_size**2) -> (frames, num_shared + patches, dim): [shared | frame]."""
        shared = self.shared.expand(len(features), -1, -1)
        return torch.cat([shared, self.frame(features)], dim=1)
