"""The house plan as a table: who may import whom, and that the engine has no clock, no environment and no dice of its own."""
import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.warm import kernels

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("engine", "config", "store", "streams", "flows", "dashboard", "grafana", "alerts", "scripts", "benchmarks")
MAY = {
    "engine": {"engine"},
    "config": {"engine", "config"},
    "store": {"engine", "config", "store"},
    "streams": {"engine", "config", "store", "streams"},
    "flows": {"engine", "config", "store", "flows"},
    "dashboard": {"engine", "config", "store", "dashboard"},
    "grafana": {"engine.metrics", "config", "grafana"},
    "alerts": {"engine.metrics", "config", "alerts"},
    "scripts": set(ROOMS) - {"benchmarks"},
    "benchmarks": set(ROOMS),
}
ENGINE_LIBRARIES = {"numpy", "numba", "msgspec"}
SCIPY_ROOMS = ("engine/optimize/", "engine/rollout/")
RL_ROOM, RL_LIBRARIES = "engine/rl/", {"torch", "gymnasium"}
# modules of the standard library that ask the world something
WORLDLY = {"time", "os", "io", "socket", "subprocess", "random", "secrets", "uuid", "logging", "pathlib", "shutil", "tempfile", "threading",
           "multiprocessing", "asyncio", "sqlite3", "urllib", "http", "signal", "getpass", "platform", "locale", "glob"}
WORLDLY_NAMES = {"open", "print", "input", "__import__", "eval", "exec"}
SEEDED = {"default_rng", "Generator", "PCG64", "SeedSequence", "Philox", "BitGenerator"}
CLOCKS = {"now", "utcnow", "today"}


def files(room: str) -> list[Path]:
    return sorted(p for p in (ROOT / room).rglob("*.py") if "__pycache__" not in p.parts)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, those inside functions too; `from a import b` is both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield node.lineno, one.name
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are written out"
            for one in node.names:
                yield node.lineno, f"{node.module}.{one.name}"


def below(name: str, allowed: set[str]) -> bool:
    return any(name == a or name.startswith(a + ".") for a in allowed)


def room_faults(room: str, tree: ast.AST) -> list[str]:
    return [f"line {line}: {name}" for line, name in imports(tree) if name.split(".")[0] in ROOMS and not below(name, MAY[room])]


def library_faults(where: str, tree: ast.AST) -> list[str]:
    """Third-party or worldly imports that the engine's file may not have."""
    allowed = ENGINE_LIBRARIES | ({"scipy"} if where.startswith(SCIPY_ROOMS) else RL_LIBRARIES if where.startswith(RL_ROOM) else set())
    out = []
    for line, name in imports(tree):
        top = name.split(".")[0]
        if top in WORLDLY or (top not in sys.stdlib_module_names and top not in allowed and top != "engine"):
            out.append(f"line {line}: {name}")
    return out


def impurities(tree: ast.Module) -> list[str]:
    """Calls that ask for the time, the environment, a file or global dice; what runs only as a program may print."""
    out = []
    imported = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "__name__ == '__main__'")]
    for node in (below for statement in imported for below in ast.walk(statement)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WORLDLY_NAMES:
            out.append(f"line {node.lineno}: {node.func.id}()")
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            if dotted.startswith(("np.random.", "numpy.random.")) and dotted.split(".")[2] not in SEEDED:
                out.append(f"line {node.lineno}: {dotted}")
            if node.attr in CLOCKS and dotted.split(".")[0] in ("datetime", "date", "dt", "pd"):
                out.append(f"line {node.lineno}: {dotted}")
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("default_rng") and not node.args and not node.keywords:
            out.append(f"line {node.lineno}: default_rng() without a seed")
        if isinstance(node, ast.Global):
            out.append(f"line {node.lineno}: global {', '.join(node.names)}")
    return out


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_runs_up_and_no_shell_knows_another(room: str):
    faults = [f"{p.relative_to(ROOT)}: {f}" for p in files(room) for f in room_faults(room, ast.parse(p.read_text()))]
    assert not faults, "\n".join(faults)


def test_the_engine_imports_nothing_but_numbers():
    faults = [f"{p.relative_to(ROOT)}: {f}" for p in files("engine")
              for f in library_faults(str(p.relative_to(ROOT)), ast.parse(p.read_text()))]
    assert not faults, "\n".join(faults)


def test_the_engine_has_no_clock_no_environment_and_no_dice_of_its_own():
    faults = [f"{p.relative_to(ROOT)}: {f}" for p in files("engine") for f in impurities(ast.parse(p.read_text()))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("room, text", [
    ("engine", "from store import bus"), ("streams", "import flows.train"), ("store", "from streams.topics import TOPICS"),
    ("alerts", "from engine.desk import Desk"), ("dashboard", "def f():\n    from streams import broker"),
])
def test_the_table_refuses_what_it_should(room: str, text: str):
    assert room_faults(room, ast.parse(text))


@pytest.mark.parametrize("text", ["import time", "import os", "from random import random", "import pandas", "import scipy.stats",
                                  "import torch"])
def test_a_worldly_library_in_the_engine_is_found(text: str):
    assert library_faults("engine/policy.py", ast.parse(text))


@pytest.mark.parametrize("text", ["np.random.rand(3)", "np.random.default_rng()", "open('x')", "datetime.now()",
                                  "datetime.datetime.utcnow()", "def f():\n    global x"])
def test_an_impure_call_in_the_engine_is_found(text: str):
    assert impurities(ast.parse(text))


def test_a_seeded_generator_is_pure():
    assert not impurities(ast.parse("rng = np.random.default_rng(seed)\nrng.random()"))


def test_every_import_of_the_product_is_declared_in_pyproject():
    import tomllib
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = " ".join([*project["dependencies"], *(d for group in project["optional-dependencies"].values() for d in group)]).lower()
    modules = {"kafka": "kafka-python", "faust": "faust-streaming", "mode": "mode-streaming", "yaml": "pyyaml", "jgo": "jgo",
               "prometheus_client": "prometheus-client", "onnx": "onnx"}
    faults = []
    for path in (p for room in ROOMS for p in files(room)):
        for line, name in imports(ast.parse(path.read_text())):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in ROOMS or top == "tests":
                continue
            if modules.get(top, top.replace("_", "-")).lower() not in said:
                faults.append(f"{path.relative_to(ROOT)}: line {line}: {top} is in no dependency of pyproject.toml")
    assert not faults, "\n".join(faults)


def test_what_make_env_compiles_asks_for_nothing():
    names = kernels()
    assert "engine.scoring.signals" in names
    for name in names:
        assert not inspect.signature(importlib.import_module(name).warm).parameters, f"{name}.warm is called without arguments"
