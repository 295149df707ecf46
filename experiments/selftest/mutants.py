"""Faults of the mathematics, made from a module's syntax tree, one at a time.

What is changed: constants (times 0.98 and 1.05), indices and slices (by one), exponents, signs, + and -, * and /, maximum and sum, the
direction of a rounding, comparisons, and every check of a hypothesis that raises an error (removed). What is left alone, because a fault
there is none of the mathematics: texts, the drawing of random parameters, the counting of operations for rounding budgets, the false bounds
that a claim plants itself, its instances that break a hypothesis, and what it compares on the network.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NOT_MATHEMATICS = frozenset({"draw", "operations"})
"""Keywords of Problem whose functions are left alone, public or not; what only planted bounds, broken hypotheses or the network's rung use is
never reached."""

_SWAPPED_CALLS = {
    "max": "sum", "maximum": "add", "minimum": "maximum", "min": "max", "sum": "max", "cos": "sin", "sin": "cos", "expm1": "exp",
    "log1p": "log", "eigvalsh": "eigvalsh", "cumulative_prod": "cumulative_sum", "cumprod": "cumsum",
}  # fmt: skip
_DROPPED_CALLS = frozenset({"sqrt", "abs", "square", "exp"})
_SWAPPED_OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
_SWAPPED_COMPARISONS = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt}


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        module: the module's name, "theory.temporal_loss.hessian".
        function: the function it is in.
        line: in the true source.
        change: what was changed, before -> after, as source.
        source: the whole faulty module.
    """

    module: str
    function: str
    line: int
    change: str
    source: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What a reason is looked up by; it survives lines that move."""
        return self.module, self.function, self.change


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def mathematics(tree: ast.Module) -> list[ast.FunctionDef]:
    """The module's functions that state or compute the theorem.

    Public functions, what the module's own Problem and Claim evaluate, and whatever those call; without what only random drawing, budgets,
    planted bounds, broken hypotheses and the network rung use.
    """
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    methods = [
        method
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        for method in node.body
        if isinstance(method, ast.FunctionDef)
    ]
    wanted = {name for name in functions if not name.startswith("_")}
    unwanted: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in NOT_MATHEMATICS:
            unwanted |= _names(node.value) & functions.keys()
        elif isinstance(node, ast.keyword) and node.arg in ("measured", "bound", "instance", "witnesses", "witness_parameters"):
            wanted |= _names(node.value) & functions.keys()
    wanted -= unwanted
    while True:
        called = {name for function in wanted for name in _names(functions[function]) & functions.keys()} - unwanted
        if called <= wanted:
            return [functions[name] for name in functions if name in wanted] + methods
        wanted |= called


def _variants(node: ast.AST, parent: ast.AST | None) -> Iterator[ast.AST]:
    """The faulty versions of one node."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Pow) and parent.right is node:
            yield ast.Constant(node.value + 1)
            yield ast.Constant(node.value - 1)
        elif isinstance(parent, (ast.Slice, ast.Subscript, ast.Index)) or type(node.value) is int and isinstance(parent, ast.UnaryOp):
            yield ast.Constant(node.value + 1)
        elif isinstance(parent, ast.BinOp) and node.value != 0:
            yield ast.BinOp(node, ast.Mult(), ast.Constant(0.98))
            yield ast.BinOp(node, ast.Mult(), ast.Constant(1.05))
    elif isinstance(node, ast.BinOp) and type(node.op) in _SWAPPED_OPERATORS:
        yield ast.BinOp(node.left, _SWAPPED_OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(parent, (ast.Slice, ast.Subscript)):
        yield node.operand
    elif isinstance(node, ast.Slice) and (node.lower is None) != (node.upper is None):
        if isinstance(node.lower, ast.Constant) and node.lower.value == 1:
            yield ast.Slice(None, ast.UnaryOp(ast.USub(), ast.Constant(1)), node.step)
        elif isinstance(node.upper, ast.UnaryOp):
            yield ast.Slice(ast.Constant(1), None, node.step)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        name = node.func.attr
        if name == "nextafter":
            opposite = ast.UnaryOp(ast.USub(), copy.deepcopy(node.args[1]))
            yield ast.Call(node.func, [node.args[0], opposite], node.keywords)
        elif name in _DROPPED_CALLS and len(node.args) == 1:
            yield node.args[0]
        elif name in _SWAPPED_CALLS and _SWAPPED_CALLS[name] != name:
            yield ast.Call(ast.Attribute(node.func.value, _SWAPPED_CALLS[name], ast.Load()), node.args, node.keywords)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("max", "min", "sum", "abs"):
        if node.func.id == "abs":
            yield node.args[0]
        elif len(node.args) > 1 or node.func.id != "sum":
            other = {"max": "min", "min": "max", "sum": "max"}[node.func.id]
            yield ast.Call(ast.Name(other, ast.Load()), node.args, node.keywords)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _SWAPPED_COMPARISONS:
        yield ast.Compare(node.left, [_SWAPPED_COMPARISONS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.If) and not node.orelse and isinstance(node.body[-1], ast.Raise):
        yield ast.Pass()


def _is_check(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and not node.orelse and isinstance(node.body[-1], ast.Raise)


def _places(function: ast.FunctionDef) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """(parent, field, index, node) of every node of the body that may be changed; texts, annotations and errors are passed over."""

    def walk(parent: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
        for field, value in ast.iter_fields(parent):
            if field in ("annotation", "returns", "decorator_list", "args") and isinstance(parent, (ast.FunctionDef, ast.AnnAssign, ast.arg)):
                continue
            children = enumerate(value) if isinstance(value, list) else [(None, value)]
            for index, node in children:
                if not isinstance(node, ast.AST) or isinstance(node, (ast.JoinedStr, ast.Raise)):
                    continue
                yield parent, field, index, node
                # The condition of a hypothesis check stands or falls with the check.
                if not _is_check(node):
                    yield from walk(node)

    for index, statement in enumerate(function.body):
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        yield function, "body", index, statement
        if not _is_check(statement):
            yield from walk(statement)


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else f"{text[:57]}.."


def mutants(module: str, path: Path) -> list[Mutant]:
    """Every fault of a module, in the order of its source.

    Args:
        module: its name.
        path: its source.
    """
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    found = []
    for function in mathematics(tree):
        for parent, field, index, node in _places(function):
            for variant in _variants(node, parent):
                before = getattr(parent, field)
                changed = variant if index is None else [*before[:index], variant, *before[index + 1 :]]
                setattr(parent, field, changed)
                faulty = ast.unparse(ast.fix_missing_locations(copy.deepcopy(tree)))
                setattr(parent, field, before)
                change = "check removed: " + _short(node.test) if _is_check(node) else f"{_short(node)} -> {_short(variant)}"
                found.append(Mutant(module, function.name, getattr(node, "lineno", function.lineno), change, faulty))
    return found
