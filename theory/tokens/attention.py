r"""Softmax attention of queries over tokens, defined once for NumPy, JAX and PyTorch.

With queries q in R^d and tokens j = 1, .., n of keys k_j in R^d and values v_j in R^dv,

    a_j = <q, k_j> / sqrt(d),   p = softmax(a),   o(q) = sum_j p_j v_j

a_j are the logits, p the weights and o the output. The logit range of a query is max_j a_j - min_j a_j; with ||q|| <=
rho_q and ||k_j|| <= rho_k it is at most 2 rho_q rho_k / sqrt(d).

Source: A. Vaswani et al., Attention is all you need, 2017; in the cross-attention of a diffusion UNet the queries are
the image's positions and the tokens those of the prompt.
"""

import math
from typing import Any

import array_api_compat
import jax
import numpy as np


def _namespace(arrays: dict[str, Any]) -> Any:
    for name, array in arrays.items():
        if not array_api_compat.is_array_api_obj(array):
            raise ValueError(f"{name} is a {type(array).__name__}; pass a NumPy, JAX or PyTorch array")
    try:
        xp = array_api_compat.array_namespace(*arrays.values())
    except TypeError as error:
        kinds = ", ".join(f"{name}: {type(array).__module__.split('.')[0]}" for name, array in arrays.items())
        raise ValueError(f"arrays of one library are needed, these are {kinds}; convert them first") from error
    for name, array in arrays.items():
        if not xp.isdtype(array.dtype, "real floating"):
            raise ValueError(f"{name} has dtype {array.dtype}; a real floating-point dtype is needed, convert it first")
        if math.prod(array.shape) == 0:
            raise ValueError(f"{name} has shape {tuple(array.shape)}; no axis may be empty, give at least one entry")
        if not isinstance(array, jax.core.Tracer) and not bool(xp.all(xp.isfinite(array))):
            count = int(xp.sum(xp.astype(~xp.isfinite(array), xp.int64)))
            raise ValueError(
                f"{name} holds {count} values that are not finite, of {math.prod(array.shape)}; repair them first"
            )
    return xp


def attend(query: Any, keys: Any, values: Any) -> Any:
    """Outputs of softmax attention.

        o(q) = sum_j softmax(<q, k_j> / sqrt(d))_j v_j

    Args:
        query: (d,), or (..., queries, d), floating.
        keys: (n, d), or (..., n, d) with the query's leading axes.
        values: (n, dv), or (..., n, dv) likewise.

    Returns:
        (dv,) or (..., queries, dv), in the library and dtype of the arguments.

    Raises:
        ValueError: no floating arrays of one library, values that are not finite, or shapes that do not fit.

    Source: see the module.
    """
    xp = _namespace({"query": query, "keys": keys, "values": values})
    if query.ndim < 1 or keys.ndim < 2 or values.ndim < 2:
        raise ValueError(
            f"query, keys, values have shapes {tuple(query.shape)}, {tuple(keys.shape)}, {tuple(values.shape)}; (d,) "
            "or (.., queries, d), "
            "(.., tokens, d) and (.., tokens, dv) are needed"
        )
    if query.shape[-1] != keys.shape[-1] or keys.shape[-2] != values.shape[-2]:
        raise ValueError(
            f"query {tuple(query.shape)} and keys {tuple(keys.shape)} must agree in their last axis, keys and values "
            f"{tuple(values.shape)} in "
            "their last but one: give every token one key, as wide as the query, and one value"
        )
    leading = {tuple(array.shape[:-2]) for array in (query, keys, values) if array.ndim > 2}
    if len(leading) > 1 or (query.ndim == 1 and leading):
        raise ValueError(
            f"the leading axes of query {tuple(query.shape)}, keys {tuple(keys.shape)} and values "
            f"{tuple(values.shape)} differ; repeat the "
            "shared ones"
        )
    rows = query if query.ndim > 1 else query[None, :]
    logits = xp.matmul(rows, xp.matrix_transpose(keys)) / math.sqrt(query.shape[-1])
    raised = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    outputs = xp.matmul(raised / xp.sum(raised, axis=-1, keepdims=True), values)
    return outputs if query.ndim > 1 else outputs[0, :]


def host_array(name: str, array: Any, ndim: int) -> np.ndarray:
    """An argument as a float64 NumPy array, after checking it.

    Raises:
        ValueError: no floating array of that many axes, an empty axis, or values that are not finite.
    """
    _namespace({name: array})
    if array.ndim != ndim:
        shape = {1: "(width,)", 2: "(count, width)"}[ndim]
        raise ValueError(f"{name} has shape {tuple(array.shape)}; {shape} is needed")
    if array_api_compat.is_torch_array(array):
        array = array.detach().cpu().double().numpy()
    return np.asarray(array, dtype=np.float64)


def check_logit_range(logit_range: float) -> float:
    """The logit range as a float.

    Raises:
        ValueError: NaN or not positive.
    """
    value = float(logit_range)
    if not value > 0:
        raise ValueError(
            f"logit_range = {logit_range}; a number > 0 is needed (at 0 all tokens weigh alike; infinity is the limit "
            "of unbounded keys): it is "
            "at most 2 ||q|| max ||k|| / sqrt(d)"
        )
    return value


def rest_weight(num_tokens: int, logit_range: float) -> float:
    """The least weight that n - 1 tokens keep beside the preferred one.

        phi = (n - 1) e^-G / (1 + (n - 1) e^-G)

    Source: paper_notes.md, C5.alignment.
    """
    spilled = (num_tokens - 1) * math.exp(-logit_range)
    return spilled / (1 + spilled)
