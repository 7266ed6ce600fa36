"""Every benchmark by its name: `python -m benchmarks` lists them, `python -m benchmarks replay standx` runs one."""
import importlib
import pkgutil
import sys

import benchmarks


def main(argv: list[str]) -> int:
    """Lists, or runs the one that is named."""
    names = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_"))
    if argv and argv[0] in names:
        return importlib.import_module(f"benchmarks.{argv[0]}").main(argv[1:])
    for name in names:
        print(f"{name:<10} {(importlib.import_module(f'benchmarks.{name}').__doc__ or '').strip().splitlines()[0]}")
    if argv:
        print(f"no benchmark {argv[0]!r}", file=sys.stderr)
    return 1 if argv else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
