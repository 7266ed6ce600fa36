"""Lists and runs every command of the project: `sluice NAME ARGS…`.

    sluice                          what there is
    sluice why ORDER_ID             the same as python -m scripts.why ORDER_ID
    sluice streams.broker --help    services and flows by their module's name
    eval "$(sluice --completion bash)"      the shell completes names (bash, zsh)
"""
import ast
import difflib
import runpy
import shutil
import sys
import textwrap
from pathlib import Path

from scripts._arguments import ended

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"scripts": "commands", "streams": "services", "flows": "flows"}
BASH = """_sluice() {
    if [ "$COMP_CWORD" = 1 ]; then COMPREPLY=($(compgen -W "$(sluice --names)" -- "$2")); else COMPREPLY=($(compgen -f -- "$2")); fi
}
complete -F _sluice sluice"""
COMPLETION = {"bash": BASH, "zsh": "autoload -U +X bashcompinit && bashcompinit\n" + BASH}


def modules() -> dict[str, tuple[str, str]]:
    """Every module that runs as a program: name → (folder, first line of its docstring). Scripts go without their folder's name."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*.py")):
            if path.stem.startswith("_") or path == Path(__file__).resolve():
                continue
            text = path.read_text()
            if "__name__ == \"__main__\"" not in text and "__name__ == '__main__'" not in text:
                continue
            doc = (ast.get_docstring(ast.parse(text)) or "").strip().split("\n")[0]
            found[path.stem if folder == "scripts" else f"{folder}.{path.stem}"] = (folder, doc)
    return found


def spelt(name: str) -> str:
    """A name as people type it: `validate-config`, `scripts.why`, `streams/broker.py`."""
    name = name.removesuffix(".py").replace("/", ".").replace("-", "_")
    return name.removeprefix("scripts.")


def run(name: str, args: list[str]) -> int:
    """The module's own command with these arguments; its exit status."""
    folder, _ = modules()[name]
    sys.argv = [f"sluice {name}", *args]
    try:
        runpy.run_module(f"scripts.{name}" if folder == "scripts" else name, run_name="__main__", alter_sys=False)
    except SystemExit as leave:
        if isinstance(leave.code, str):
            print(leave.code, file=sys.stderr)
            return 1
        return int(leave.code or 0)
    return 0


def listing(width: int) -> str:
    """All names with what they are for, by kind, cut to the terminal."""
    known, lines = modules(), [(__doc__ or "").strip()]
    column = max(map(len, known))
    for folder, kind in FOLDERS.items():
        lines += ["", f"{kind}:"]
        lines += [f"  {name:<{column}}  {textwrap.shorten(doc, max(20, width - column - 4), placeholder=' …')}"
                  for name, (of, doc) in known.items() if of == folder]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """The command: the first word names a module, the rest is handed on untouched."""
    args = sys.argv[1:] if argv is None else argv
    sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
    match args:
        case [] | ["-h"] | ["--help"]:
            print(listing(shutil.get_terminal_size((140, 24)).columns))
            return 0
        case ["--names"]:
            print("\n".join(modules()))
            return 0
        case ["--completion", shell]:
            if shell not in COMPLETION:
                print(f"sluice: --completion: {shell!r} is not one of {', '.join(COMPLETION)}", file=sys.stderr)
                return 2
            print(COMPLETION[shell])
            return 0
    known, name = modules(), spelt(args[0])
    if name in known:
        return run(name, args[1:])
    near = difflib.get_close_matches(name, known, 3, 0.5)
    print(f"sluice: no command {args[0]!r}; " + (f"did you mean {' or '.join(near)}?" if near else "`sluice` lists them"), file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(ended(main))
