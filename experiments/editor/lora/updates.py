r"""The update that a LoRA file makes to one layer, from the factors that it holds.

With W the layer's weight, r the number of rows of down, s = alpha / r, and * the product entry by entry:

    LoRA                      s up down
    LoRA of a convolution in  s sum_pq up[:, p] mid[p, q] down[q, :]
    Tucker form (LoCon)
    LoHa                      s (w1_a w1_b) * (w2_a w2_b), or with cores t1, t2 in Tucker form  (arXiv 2108.06098)
    LoKr                      s w1 (x) w2 (Kronecker), each whole or a product w_a w_b; s = 1 if both are whole
    DoRA                      m V / ||V|| - W,  V = W + s up down                               (arXiv 2402.09353)
    full difference           diff

Formulas as in LyCORIS, peft and kohya's scripts, which agree on them. DoRA's norm runs over all but the output axis,
or, where LyCORIS' dora_scale has the shape of the input axis, over all but that one.

A LoRA is put into a network as what it is. Every other update is put in as one matrix in factors of full rank, one of
them the identity: the network computes the same, but the factors are not the parameters that were trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

LORA = frozenset({"down", "up"})
_EXTRAS = frozenset({"alpha", "scalar", "bias", "diff_b"})


@dataclass(frozen=True)
class LoraUpdate:
    """The update (alpha / rank) up down of one layer; down is (rank, in, ..), up (out, rank, ..).

    Attributes:
        bias: what the layer's result is shifted by, (out,); None for nothing.
        kind: what the file holds: "LoRA", "LoHa", "LoKr", "DoRA", "LoRA in Tucker form" or "full difference".
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    bias: torch.Tensor | None = None
    kind: str = "LoRA"

    @property
    def rank(self) -> int:
        """The number of rows of down."""
        return len(self.down)

    def delta(self) -> torch.Tensor:
        """(alpha / rank) up down in float64, of the shape of the layer's weight."""
        up, down = self.up.double().flatten(1), self.down.double()
        return (self.alpha / self.rank) * torch.tensordot(up, down, dims=1)


def stored_rank(parts: Mapping[str, torch.Tensor]) -> int | None:
    """The r that alpha is divided by; None where nothing is: a full difference, a LoKr of two whole factors."""
    for name, axis in (("down", 0), ("hada_w1_b", 0), ("lokr_w2_b", 0), ("lokr_w1_b", 0)):
        if name in parts and parts[name].ndim > axis:
            return parts[name].shape[axis]
    return None


def misfits(parts: Mapping[str, torch.Tensor], module: torch.nn.Module) -> list[tuple[str, str]]:
    """(name, phrase) of the factors of a LoRA or DoRA that do not have the layer's shape; of other updates none."""
    if "mid" in parts:
        return []
    found = []
    for name in sorted(LORA & parts.keys()):
        try:
            _shaped(parts[name], name, module)
        except ValueError as error:
            found.append((name, str(error)))
    return found


def compose(
    parts: Mapping[str, torch.Tensor],
    alpha: float | None,
    module: torch.nn.Module,
    *,
    lokr_scale: float | None = None,
) -> LoraUpdate:
    """The update of a layer.

    Args:
        parts: the factors by the names of `names.Named`.
        alpha: None where the update has none.
        module: a Linear or Conv2d of the base network.
        lokr_scale: of a LoKr, where something else than alpha and the factors decides it.

    Raises:
        ValueError: factors that do not make an update together, or not one of the layer's shape; a phrase that goes
            after the layer's name.
    """
    names = frozenset(parts) - _EXTRAS
    rank = stored_rank(parts)
    scale = 1.0 if rank is None or alpha is None else alpha / rank
    if lokr_scale is not None and any(name.startswith("lokr_") for name in names):
        scale = lokr_scale
    factor = float(parts["scalar"]) if "scalar" in parts else 1.0
    scale *= factor
    bias = _bias(parts, scale, module)
    if names == LORA:
        down, up = (_shaped(parts[name], name, module) for name in ("down", "up"))
        if len(down) != up.shape[1]:
            raise ValueError(
                f"has down of rank {len(down)} and up of rank {up.shape[1]} and not both factors of one rank"
            )
        return LoraUpdate(down, up, factor * (len(down) if alpha is None else alpha), bias)
    kind, delta = _delta(parts, names, scale, module)
    return _as_factors(delta, bias, kind)


def _delta(
    parts: Mapping[str, torch.Tensor], names: frozenset[str], scale: float, module: torch.nn.Module
) -> tuple[str, torch.Tensor]:
    wide = {name: tensor.double() for name, tensor in parts.items()}
    if names == {"down", "up", "mid"}:
        up, mid, down = wide["up"].flatten(1), wide["mid"], wide["down"].flatten(1)
        return "LoRA in Tucker form", _checked(scale * _einsum("op,pq...,qi->oi...", up, mid, down), module)
    if names in ({*LORA, "magnitude"}, {*LORA, "dora_scale"}):
        down, up = (_shaped(wide[name], name, module) for name in ("down", "up"))
        if len(down) != up.shape[1]:
            raise ValueError(
                f"has down of rank {len(down)} and up of rank {up.shape[1]} and not both factors of one rank"
            )
        update = scale * torch.tensordot(up.flatten(1), down, dims=1)
        return "DoRA", _decomposed(update, wide.get("magnitude", wide.get("dora_scale")), module, "magnitude" in wide)
    if names == {"diff"}:
        return "full difference", _checked(scale * wide["diff"], module)
    if any(name.startswith("hada_") for name in names):
        return "LoHa", _checked(scale * _hada(wide, "1") * _hada(wide, "2"), module)
    if any(name.startswith("lokr_") for name in names):
        return "LoKr", _checked(scale * _kronecker(wide), module)
    raise ValueError(f"has {' and '.join(sorted(names)) or 'an alpha alone'} and not both factors of one rank")


def _einsum(formula: str, *operands: torch.Tensor) -> torch.Tensor:
    try:
        return torch.einsum(formula, *operands)
    except RuntimeError:
        raise ValueError(
            f"has factors {', '.join(str(tuple(part.shape)) for part in operands)} that do not fit"
        ) from None


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return _einsum("ir,rj->ij", left, right)


def _required(parts: Mapping[str, torch.Tensor], *names: str) -> list[torch.Tensor]:
    missing = [name for name in names if name not in parts]
    if missing:
        raise ValueError(f"lacks {missing[0]}")
    return [parts[name] for name in names]


def _hada(parts: Mapping[str, torch.Tensor], number: str) -> torch.Tensor:
    left, right = _required(parts, f"hada_w{number}_a", f"hada_w{number}_b")
    core = parts.get(f"hada_t{number}")
    # In Tucker form a is (rank, out), otherwise (out, rank).
    return _product(left, right) if core is None else _einsum("ij...,ip,jr->pr...", core, left, right)


def _kronecker(parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if "lokr_w1" in parts:
        first = parts["lokr_w1"]
    else:
        first = _product(*_required(parts, "lokr_w1_a", "lokr_w1_b"))
    if "lokr_w2" in parts:
        second = parts["lokr_w2"]
    else:
        left, right = _required(parts, "lokr_w2_a", "lokr_w2_b")
        core = parts.get("lokr_t2")
        if core is not None:
            second = _einsum("ij...,ip,jr->pr...", core, left, right)
        else:
            second = _einsum("ir,rj->ij", left, right.flatten(1)).reshape(len(left), *right.shape[1:])
    if first.ndim != 2:
        raise ValueError(f"has a first Kronecker factor of shape {tuple(first.shape)}; two axes are needed")
    return torch.kron(first.reshape(*first.shape, *[1] * (second.ndim - 2)), second.contiguous())


def _decomposed(
    update: torch.Tensor, magnitude: torch.Tensor, module: torch.nn.Module, by_output: bool
) -> torch.Tensor:
    weight = module.weight.detach().to("cpu", torch.float64)
    merged = weight + update
    inputs = (1, weight.shape[1])
    if not by_output and magnitude.numel() == inputs[1] and tuple(magnitude.shape[:2]) == inputs:
        # LyCORIS' other convention; a square layer's scale of shape (out, 1) is over the output.
        axes, shape = [axis for axis in range(weight.ndim) if axis != 1], (1, -1)
    else:
        axes, shape = list(range(1, weight.ndim)), (-1, 1)
    if magnitude.numel() != weight.shape[shape.index(-1)]:
        raise ValueError(
            f"has a magnitude of shape {tuple(magnitude.shape)}, which fits neither side of {tuple(weight.shape)}"
        )
    norm = torch.linalg.vector_norm(merged, dim=axes, keepdim=True)
    if (norm == 0).any():
        raise ValueError("is a DoRA whose direction W + (alpha / rank) B A has a row of zeros")
    return magnitude.reshape(*shape, *[1] * (weight.ndim - 2)) * merged / norm - weight


def _checked(delta: torch.Tensor, module: torch.nn.Module) -> torch.Tensor:
    shape = module.weight.shape
    if delta.numel() != shape.numel() or len(delta) != shape[0]:
        raise ValueError(
            f"makes an update of shape {tuple(delta.shape)}, which does not fit the layer's {tuple(shape)}"
        )
    return delta.reshape(shape)


def _bias(parts: Mapping[str, torch.Tensor], scale: float, module: torch.nn.Module) -> torch.Tensor | None:
    found = None
    for name, factor in (("bias", scale), ("diff_b", 1.0)):
        if name in parts:
            if parts[name].shape != (module.weight.shape[0],):
                raise ValueError(f"has a bias of shape {tuple(parts[name].shape)} and {module.weight.shape[0]} outputs")
            found = factor * parts[name].double() + (0 if found is None else found)
    return found


def _as_factors(delta: torch.Tensor, bias: torch.Tensor | None, kind: str) -> LoraUpdate:
    """delta = up down, where one of the two is the identity."""
    outputs, inputs = len(delta), delta[0].numel()
    ones = (1,) * (delta.ndim - 2)
    if outputs <= inputs:
        return LoraUpdate(delta, torch.eye(outputs).reshape(outputs, outputs, *ones), float(outputs), bias, kind)
    down = torch.eye(inputs).reshape(inputs, *delta.shape[1:])
    return LoraUpdate(down, delta.reshape(outputs, inputs, *ones), float(inputs), bias, kind)


def _shaped(tensor: torch.Tensor, factor: str, module: torch.nn.Module) -> torch.Tensor:
    """The factor in the shape that peft gives it."""
    weight, stored = module.weight, tuple(tensor.shape)
    if isinstance(module, torch.nn.Linear):
        if tensor.ndim == 4 and tuple(tensor.shape[2:]) == (1, 1):
            tensor = tensor.flatten(1)  # a projection that was a 1 x 1 convolution in another version
        expected = (None, weight.shape[1]) if factor == "down" else (weight.shape[0], None)
    else:
        if tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
        # Grouped convolutions, whose factors have other shapes, do not occur in this UNet.
        expected = (None, *weight.shape[1:]) if factor == "down" else (weight.shape[0], None, 1, 1)
    fits = tensor.ndim == len(expected) and all(
        wanted is None or found == wanted for found, wanted in zip(tensor.shape, expected, strict=True)
    )
    if not fits or 0 in tensor.shape:
        raise ValueError(f"is {stored}, which does not fit the layer's weight {tuple(weight.shape)}")
    return tensor
