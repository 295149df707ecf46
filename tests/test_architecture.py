"""Which module may import which: drawn from the code, so that an arrow the wrong way or a circle fails."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOREIGN = {"torch", "diffusers", "transformers", "peft"}


def source_files(folder: str) -> list[Path]:
    """The modules of a package, without its tests and without conftest.py, which alone knows of the editor."""
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if not path.name.startswith(("test_", "conftest"))]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for folder in ("theory", "experiments") for path in source_files(folder)}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def at_module_level(tree: ast.Module) -> ast.Module:
    """The module without the bodies of its functions: what is imported there is imported when the function runs."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
            return ast.Pass()

        visit_AsyncFunctionDef = visit_FunctionDef

        def visit_If(self, node: ast.If) -> ast.AST:
            # Names that only a type checker needs are imported under TYPE_CHECKING.
            return ast.Pass() if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    return Strip().visit(tree)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("theory")])
def test_theory_knows_no_network(name):
    wrong = {target for target in imported(parse(MODULES[name])) if target.split(".")[0] in FOREIGN | {"experiments"}}
    assert not wrong, f"{name} imports {sorted(wrong)}; theory/ is mathematics on arrays"


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of imports, or nothing."""
    done: set[str] = set()

    def climb(name: str, above: list[str]) -> list[str]:
        if name in above:
            return [*above[above.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph.get(name, ())):
            found = climb(target, [*above, name])
            if found:
                return found
        done.add(name)
        return []

    for name in sorted(graph):
        found = climb(name, [])
        if found:
            return found
    return []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_module_imports_itself_through_others():
    graph = {}
    for name, path in MODULES.items():
        # A package's __init__ re-exports its members, and importing a member runs it: that is no circle of the code.
        targets = {target for target in imported(at_module_level(parse(path))) if target in MODULES}
        graph[name] = {target for target in targets if not (path.name == "__init__.py" and target.startswith(f"{name}."))}
    found = circle({name: {target for target in targets if not MODULES[target].name == "__init__.py"} for name, targets in graph.items()})
    assert not found, " -> ".join(found)
