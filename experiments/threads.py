"""How many threads the networks and the matrix products run on.

The order in which a kernel sums depends on its number of threads, and so do the last digits. Small networks run on one
thread: handing out the work takes longer than the work (the shipped UNet of 1.4 million parameters takes 40 ms for four
frames on one thread and 74 ms on two, and many times as long where another program wants the second core). Large ones
run on every core, and the number is part of the key of what they compute.

`--threads` wins, then OMP_NUM_THREADS, then the size of the UNet.
"""

import contextlib
import json
import os
import struct
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import UserError

LARGEST_ON_ONE = 10_000_000
"""Parameters of a UNet up to which one thread is chosen. Measured on two idle cores, four frames of 32 x 32 pixels:
5.5 million take 93 ms on one thread and 103 ms on two, 21.8 million 299 ms and 207 ms."""
MOST = 1024
_VARIABLE = "OMP_NUM_THREADS"
_LARGEST_HEADER = 100_000_000
_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
_KERNELS = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DYNAMIC",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "XLA_FLAGS",
)


@dataclass(frozen=True)
class Threads:
    """A number of threads, and in words why this one."""

    count: int
    reason: str

    def __str__(self) -> str:
        return f"{self.count} {'thread' if self.count == 1 else 'threads'} ({self.reason})"


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that have nothing to do sleep; to be called before torch is imported, which reads this once.

    By default they spin, and take the cores from whatever else runs on the machine.
    """
    for name, value in _PASSIVE.items():
        environment.setdefault(name, value)


def choose_threads(pipeline: Path | None, asked: int | None = None) -> Threads:
    """The number of threads for a pipeline.

    Args:
        pipeline: folder of the pipeline; None where its size is not known.
        asked: by --threads; None leaves the choice.

    Raises:
        UserError: a number out of range, from --threads or OMP_NUM_THREADS.
    """
    if asked is not None:
        return Threads(_checked(asked, "--threads"), "--threads")
    stated = os.environ.get(_VARIABLE, "").partition(",")[0].strip()
    if stated:
        return Threads(_checked(stated, _VARIABLE), _VARIABLE)
    parameters = None if pipeline is None else unet_parameters(pipeline)
    if parameters is None:
        return Threads(available_cores(), "one a core: the size of the UNet is not known")
    size = f"a UNet of {parameters:,} parameters"
    if parameters <= LARGEST_ON_ONE:
        return Threads(1, f"{size} is faster on one")
    return Threads(available_cores(), f"one a core: {size}")


def _checked(value: int | str, name: str) -> int:
    try:
        count = int(value)
    except ValueError:
        count = 0
    if not 1 <= count <= MOST:
        raise UserError(f"{name} = {value}", limit=f"a number from 1 to {MOST} is needed", remedy="for example 1")
    return count


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def unet_parameters(pipeline: Path) -> int | None:
    """How many weights the safetensors files of a pipeline's UNet hold, from their headers; None if they do not say."""
    total = 0
    for file in sorted((pipeline / "unet").glob("*.safetensors")):
        try:
            with file.open("rb") as content:
                (length,) = struct.unpack("<Q", content.read(8))
                if length > _LARGEST_HEADER:
                    return None
                header = json.loads(content.read(length))
            shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
            for shape in shapes:
                count = 1
                for side in shape:
                    count *= int(side)
                total += count
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error):
            return None
    return total or None


@contextlib.contextmanager
def limited(count: int) -> Iterator[None]:
    """Run torch, NumPy and SciPy on this many threads in the block; JAX's results do not depend on its own."""
    import scipy.linalg  # noqa: F401  its own copy of the matrix library has to be loaded to be limited
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(limits=count):
            yield
    finally:
        torch.set_num_threads(before)


def kernel_choices() -> dict[str, str | bool]:
    """What in the environment decides which kernels compute a result, and so its last digits."""
    import jax

    found: dict[str, str | bool] = {name: os.environ[name] for name in _KERNELS if name in os.environ}
    return {**found, "jax_disable_most_optimizations": bool(jax.config.values["jax_disable_most_optimizations"])}
