"""Compiles every numba kernel into the cache that survives, so that the first start is as fast as the second."""
import argparse
import importlib.util
import pkgutil
import time
from pathlib import Path

import engine
from scripts._arguments import ended


def kernels() -> list[str]:
    """The engine's modules that say how to compile themselves: a function `warm()` without arguments."""
    found = []
    for module in pkgutil.walk_packages(engine.__path__, "engine."):
        spec = importlib.util.find_spec(module.name)
        if spec and spec.origin and not module.ispkg and "\ndef warm(" in Path(spec.origin).read_text():
            found.append(module.name)
    return sorted(found)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    argparse.ArgumentParser("python -m scripts.warm", description=__doc__).parse_args(argv)
    for name in kernels():
        began = time.monotonic()
        importlib.import_module(name).warm()
        print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
