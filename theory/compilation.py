"""Keep compiled JAX programs between processes: the checks spend most of their time in the compiler, on programs that rarely change."""

import ctypes
import gc
import os
from pathlib import Path

import jax
import jaxlib

EMITTERS = "xla_cpu_use_fusion_emitters"


def keep_compiled_programs(folder: str | os.PathLike | None = None) -> Path | None:
    """Switch on JAX's persistent compilation cache for this process.

    A program is looked up by its text, the versions of JAX and XLA and the processor, so an entry can be stale only by being unused; removing
    the folder is always safe.

    Args:
        folder: where the programs are kept; None is `framebound/jax` in $XDG_CACHE_HOME or ~/.cache. The environment variable
            JAX_COMPILATION_CACHE_DIR, where it is set, decides instead of the default.

    Returns:
        The folder, or None where it cannot be written and every process compiles for itself.
    """
    if folder is None and "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        target = root / "framebound" / "jax" if folder is None else Path(folder)
        target.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter where nobody knows of a home
        return None
    if not os.access(target, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(target))
    # Programs that compile faster than this are read from disk no faster.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return target


def compile_for_one_use() -> None:
    """Let JAX compile fast programs less than fast, for this process.

    The checks compile hundreds of programs and run each for a fraction of a second: optimising them takes longer than they run. Last digits
    may differ from those of an optimised program; the rounding budgets cover both. Takes full effect before the first program is compiled.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    # Without these emitters XLA compiles on the CPU in half the time. It stops the process at a flag it does not know, so the flag is set only
    # for the versions that are known to have it.
    flags = os.environ.get("XLA_FLAGS", "")
    if jaxlib.__version__.startswith("0.10.") and EMITTERS not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{EMITTERS}=false".strip()


def _share_of_maps_used() -> float:
    """This process's memory maps over the number the kernel allows; 0 where the system does not say."""
    try:
        limit = int(Path("/proc/sys/vm/max_map_count").read_text(encoding="ascii"))
        used = len(Path("/proc/self/maps").read_bytes().splitlines())
    except OSError:
        return 0.0
    return used / limit


def release_compiled_programs(most: float = 0.25) -> bool:
    """Drop every compiled program once they hold more than the share `most` of the process's memory maps.

    Each program holds memory maps of its own, of which Linux allows a process 65530 by default: a process that checks every claim would
    run out of them, and the compiler would report that it cannot allocate memory.

    Returns:
        Whether the programs were dropped. They are compiled again, or read from the folder of `keep_compiled_programs`, when needed.
    """
    if _share_of_maps_used() <= most:
        return False
    jax.clear_caches()
    gc.collect()
    # glibc keeps what the compiler has freed, a gigabyte by then; other C libraries have no such call and need none.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return True
