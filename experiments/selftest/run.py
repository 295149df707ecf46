"""Plant faults and see which check notices each.

A fault in a theorem's file is first given to that theorem's own ladder, in a worker process; one that passes, and every fault in a module
without a theorem, to the module's own tests and to the tests of the modules that import it, in a process of its own.
"""

import concurrent.futures
import contextlib
import functools
import importlib
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.selftest.mutants import Mutant, mutants
from experiments.selftest.reasons import REASONS

ROOT = Path(__file__).resolve().parents[2]
LADDER_SECONDS = 180
TESTS_SECONDS = 300
FAULTS_A_WORKER = 25
"""A worker keeps every compiled program, so it is replaced after this many faults."""


@dataclass(frozen=True)
class Verdict:
    """What became of one fault.

    Attributes:
        module, function, line, change: of the fault.
        caught_by: the rung or the tests that noticed it; "" where nothing did.
        reason: why it is no fault, where nothing noticed it and that is known.
        sharp: whether it is in the file of a theorem whose bound is attained.
    """

    module: str
    function: str
    line: int
    change: str
    caught_by: str
    reason: str
    sharp: bool

    @property
    def counts(self) -> bool:
        """Whether it is a fault at all."""
        return not self.reason


class _TooLong(Exception):
    """A faulty module does not come to an end."""


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def theorem_files() -> dict[str, Path]:
    """Module name -> file, of everything in the claims' folders that is no test."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in sorted((ROOT / "theory").glob("*/*.py"))
        if not path.name.startswith(("test_", "__", "conftest")) and path.parent.name not in ("crosschecks", "formal")
    }


def noticed_by_ladder(mutant: Mutant) -> str:
    """The first rung of the theorem's own ladder, without the network, that fails on the faulty module; "" where all pass."""
    from experiments.selftest.planting import faulty_claim
    from theory import ladder
    from theory.compilation import release_compiled_programs

    rungs = (
        ("witness", ladder.run_witness), ("property", ladder.run_property), ("necessity", ladder.run_necessity),
        ("attack", ladder.run_attack), ("power", ladder.run_power),
    )  # fmt: skip
    try:
        with _at_most(LADDER_SECONDS):
            claim = faulty_claim(mutant.module, mutant.source)
            if claim is None:
                return ""
            for name, run in rungs:
                if not run(claim).passed:
                    return name
            return ""
    except _TooLong:
        return "no end"
    except Exception as error:  # noqa: BLE001, whatever a faulty module raises says that something is wrong with it
        return f"error: {type(error).__name__}"
    finally:
        release_compiled_programs()


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    return frozenset(re.findall(r"[\w.]+", " ".join(re.findall(r"^(?:from|import) .*?(?:\)|$)", path.read_text("utf-8"), re.M | re.S))))


def concerned_tests(module: str) -> list[Path]:
    """The module's own test, and those beside it that name the module in an import."""
    folder, name = module.split(".")[1:3]
    own = ROOT / "theory" / folder / f"test_{name}.py"
    others = [path for path in sorted((ROOT / "theory" / folder).glob("test_*.py")) if path != own and {name, module} & _imports(path)]
    return ([own] if own.exists() else []) + others


def _pytest(arguments: Sequence[str], planted: dict[str, str]) -> subprocess.CompletedProcess:
    """pytest in a process of its own, with the fault that `planted` names, or without one where it is empty.

    Raises:
        subprocess.TimeoutExpired: it takes longer than TESTS_SECONDS.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-n", "0", *arguments]
    if planted:
        command += ["-p", "experiments.selftest.planting"]
    environment = os.environ | planted | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TESTS_SECONDS, check=False)


@functools.cache
def _passes_without_fault(test: str) -> bool:
    return _pytest([test], {}).returncode == 0


def noticed_by_tests(mutant: Mutant) -> str:
    """The first test that fails with the faulty module in the place of the true one; "" where all pass, or there are none.

    Raises:
        RuntimeError: that test fails without the fault as well, so it says nothing about it.
    """
    from experiments.selftest import planting

    tests = concerned_tests(mutant.module)
    if not tests:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "faulty.py")
        source.write_text(mutant.source, encoding="utf-8")
        try:
            done = _pytest(
                ["-k", "not reality and not network", *map(str, tests)],
                {planting.MODULE: mutant.module, planting.SOURCE: str(source)},
            )
        except subprocess.TimeoutExpired:
            return "no end"
    if done.returncode == 0:
        return ""
    # A parameter's name may hold spaces.
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.M)
    if failed is None:
        return f"pytest ended with status {done.returncode}"
    if "::" in failed.group(1) and not _passes_without_fault(failed.group(1)):
        raise RuntimeError(f"{failed.group(1)} fails without any planted fault; mend that before faults are planted")
    return failed.group(1)


def judge(mutant: Mutant, sharp: bool) -> Verdict:
    """What becomes of one fault."""
    caught = noticed_by_ladder(mutant) or noticed_by_tests(mutant)
    reason = "" if caught else REASONS.get(mutant.key, "")
    return Verdict(mutant.module, mutant.function, mutant.line, mutant.change, caught, reason, sharp)


def choose(found: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """A sample that takes as evenly as possible from every module, in the order of the source."""
    rng = random.Random(seed)
    by_module: dict[str, list[Mutant]] = {}
    for mutant in found:
        by_module.setdefault(mutant.module, []).append(mutant)
    for members in by_module.values():
        rng.shuffle(members)
    chosen: list[Mutant] = []
    while len(chosen) < count and any(by_module.values()):
        for members in by_module.values():
            if members and len(chosen) < count:
                chosen.append(members.pop())
    return sorted(chosen, key=lambda mutant: (mutant.module, mutant.line, mutant.change))


def _start_worker() -> None:
    from theory.compilation import compile_for_one_use, keep_compiled_programs

    keep_compiled_programs()
    compile_for_one_use()


def selftest(
    count: int, *, seed: int = 0, only: str | None = None, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> list[Verdict]:
    """Plant faults and judge each.

    Args:
        count: how many; more than there are means all.
        seed: of the sample.
        only: a claim's id or a module's name; None means all of theory/.
        workers: processes.
        progress: called with (faults judged, faults in all).

    Raises:
        ValueError: count < 1; nothing is called `only`.
    """
    import theory
    from theory.claim import SHARP

    if count < 1:
        raise ValueError(f"count = {count}; at least 1 fault has to be planted")
    files = theorem_files()
    sharp_ids = {claim.id for claim in theory.CLAIMS if claim.tightness in SHARP}
    modules = {module.CLAIM.id: name for name in files if hasattr(module := importlib.import_module(name), "CLAIM")}
    attained = {name for claim_id, name in modules.items() if claim_id in sharp_ids}
    if only is not None:
        wanted = modules.get(only, only)
        if wanted not in files:
            raise ValueError(f"no claim or module is called {only!r}; there are {', '.join([*modules, *files])}")
        files = {wanted: files[wanted]}
    chosen = choose([mutant for name, path in files.items() for mutant in mutants(name, path)], count, seed)
    context = multiprocessing.get_context("spawn")
    verdicts: list[Verdict] = []
    # New workers every so often, by new pools: a pool that replaces its own workers can wait for ever in Python 3.11.
    share = workers * FAULTS_A_WORKER
    for first in range(0, len(chosen), share):
        part = chosen[first : first + share]
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
            pending = [pool.submit(judge, mutant, mutant.module in attained) for mutant in part]
            for done, _ in enumerate(concurrent.futures.as_completed(pending), start=first + 1):
                if progress is not None:
                    progress(done, len(chosen))
            verdicts += [future.result() for future in pending]
    return verdicts


def share_caught(verdicts: Sequence[Verdict], *, sharp: bool = False) -> float:
    """Share of the faults, of those in files of attained bounds if `sharp`, that some check noticed; 1 where there are none."""
    counted = [verdict for verdict in verdicts if verdict.counts and (verdict.sharp or not sharp)]
    return sum(bool(verdict.caught_by) for verdict in counted) / len(counted) if counted else 1.0


def as_json(verdicts: Sequence[Verdict]) -> str:
    """The verdicts and their summary."""
    summary = {
        "planted": len(verdicts),
        "no_fault": sum(not verdict.counts for verdict in verdicts),
        "caught": sum(bool(verdict.caught_by) for verdict in verdicts),
        "share_caught": share_caught(verdicts),
        "share_caught_attained": share_caught(verdicts, sharp=True),
    }
    return json.dumps({**summary, "faults": [asdict(verdict) for verdict in verdicts]}, indent=1, sort_keys=True)
