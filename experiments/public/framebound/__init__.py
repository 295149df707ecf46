"""framebound's public names under one import that a folder of yours cannot shadow.

    from framebound import certify_curvature, load_editor

The code lies in the packages `theory` and `experiments`, and a script beside a folder of one of these names would
import that folder instead. This package takes them from where it lies itself; in a process that has imported
framebound, the names `theory` and `experiments` are ours. A name that two parts have gets its part's name in front,
as in `bilateral_lipschitz_constant`.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_HERE = Path(__file__).resolve().parent
# In a checkout this package lies two folders deep in one of the two; in an installation the three lie side by side.
_ROOT = _HERE.parents[2] if _HERE.parts[-3:] == ("experiments", "public", "framebound") else _HERE.parent
_PARTS = {
    "temporal_loss": "theory.temporal_loss",
    "descent": "theory.descent",
    "inversion": "theory.inversion",
    "bilateral": "theory.bilateral",
    "tokens": "theory.tokens",
    "editor": "experiments.editor",
}


def _take(package: str) -> None:
    """Make `package` mean ours in this process.

    Raises:
        ImportError: another package of this name is in use already.
    """
    file = _ROOT / package / "__init__.py"
    loaded = sys.modules.get(package)
    if loaded is not None:
        if Path(getattr(loaded, "__file__", None) or "").resolve() == file:
            return
        raise ImportError(
            f"framebound needs its own package {package!r} ({file}), and another one is imported already "
            f"({getattr(loaded, '__file__', None) or list(loaded.__path__)}); import framebound first"
        )
    spec = importlib.util.spec_from_file_location(package, file, submodule_search_locations=[str(file.parent)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[package] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[package]
        raise


def _parts() -> dict[str, ModuleType]:
    return {
        name: importlib.import_module(module)
        for name, module in _PARTS.items()
        if importlib.util.find_spec(module) is not None
    }


def _names() -> dict[str, tuple[ModuleType, str]]:
    """Where every public name lies. One that two parts have gets its part's name in front in both."""
    homes: dict[str, list[str]] = {}
    parts = _parts()
    for part, module in parts.items():
        for name in module.__all__:
            homes.setdefault(name, []).append(part)
    theory = importlib.import_module("theory")
    names = {name: (theory, name) for name in ("CLAIMS", "find_claim")}
    for name, found in homes.items():
        for part in found:
            names[name if len(found) == 1 else f"{part}_{name}"] = (parts[part], name)
    return names


def __getattr__(name: str) -> Any:
    # Only now are torch and JAX imported, which takes seconds.
    if not name.startswith("__"):
        names = _names()
        if name in names:
            module, own = names[name]
            return getattr(module, own)
        longer = [known for known in names if known.endswith(f"_{name}")]
        if longer:
            raise AttributeError(f"framebound has {' and '.join(longer)}; say which")
    raise AttributeError(f"module 'framebound' has no attribute {name!r}; dir(framebound) lists what there is")


def __dir__() -> list[str]:
    return sorted(_names())


_take("theory")
_take("experiments")
