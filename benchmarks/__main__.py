"""Every benchmark by its name: `python -m benchmarks` lists them, `python -m benchmarks replay standx` runs one."""
import ast
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path

import benchmarks
from scripts._arguments import ended


def main(argv: list[str] | None = None) -> int:
    """Lists, or runs the one that is named."""
    argv = sys.argv[1:] if argv is None else argv
    names = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_"))
    if argv and argv[0] in names:
        return importlib.import_module(f"benchmarks.{argv[0]}").main(argv[1:])
    if argv and argv[0] not in ("-h", "--help"):
        print(f"no benchmark {argv[0]!r}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    for name in names:
        print(f"{name:<12} {first_line(name)}")
    print("\npython -m benchmarks NAME --help tells more")
    return 0


def first_line(name: str) -> str:
    """What a benchmark says of itself, read and not imported."""
    spec = importlib.util.find_spec(f"benchmarks.{name}")
    assert spec is not None and spec.origin is not None
    return (ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or "").split("\n")[0]


if __name__ == "__main__":
    raise SystemExit(ended(main))
