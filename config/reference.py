"""`docs/config.md`: every key, its environment variable, default, range and why, from the structs and the YAML beside them."""
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from msgspec import Meta, Struct

from config.settings import DEFAULT, MARKET, SYMBOLS, VARIABLE, Settings

LINE = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z_]\w*):(?: +(?P<value>[^#\s][^#]*?))?(?: +# ?(?P<why>.*))?$")
BY_SYMBOL = {"symbols": SYMBOLS, "market": MARKET}
KINDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


@dataclass(frozen=True)
class Key:
    """One key of the YAML: where it stands, what may stand there, and why it does."""
    path: str
    env: str
    default: str
    kind: str
    why: str


def written(path: Path = DEFAULT) -> dict[str, tuple[str, str]]:
    """Every key of a YAML file that is written one key a line: its value as written and the comment beside it."""
    out: dict[str, tuple[str, str]] = {}
    stack: list[tuple[int, str]] = []
    for line in path.read_text().splitlines():
        found = LINE.match(line)
        if not found:
            continue
        depth = len(found["indent"])
        stack = [*(s for s in stack if s[0] < depth), (depth, found["key"])]
        out[".".join(key for _, key in stack)] = ((found["value"] or "").strip(), (found["why"] or "").strip())
    return out


def kind_of(hint) -> str:
    """A type and its range in words.

    >>> kind_of(typing.Annotated[float, Meta(ge=0, le=1)])
    'number, 0 to 1'
    """
    limits: list[Meta] = []
    if typing.get_origin(hint) is typing.Annotated:
        hint, *more = typing.get_args(hint)
        limits = [m for m in more if isinstance(m, Meta)]
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(f"`{a}`" for a in typing.get_args(hint))
    if origin in (types.UnionType, typing.Union):
        return kind_of(next(a for a in typing.get_args(hint) if a is not type(None))) + ", or null"
    if origin is list:
        return f"list of {kind_of(typing.get_args(hint)[0])}, comma-separated in the environment"
    words = KINDS[hint]
    for m in limits:
        if m.ge is not None and m.le is not None:
            words += f", {m.ge} to {m.le}"
        else:
            for limit, word in ((m.ge, "at least"), (m.gt, "above"), (m.le, "at most"), (m.lt, "below")):
                words += f", {word} {limit}" if limit is not None else ""
    return words


def keys(kind: type[Struct], at: str, said: dict[str, tuple[str, str]]) -> Iterator[Key]:
    """The keys of one section, in the order of its struct."""
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        path = f"{at}.{name}" if at else name
        if isinstance(hint, type) and issubclass(hint, Struct):
            yield from keys(hint, path, said)
            continue
        if typing.get_origin(hint) is dict or any(isinstance(a, type) and issubclass(a, Struct) for a in typing.get_args(hint)):
            continue        # a section, or what stands in a file of its own
        value, why = said.get(path, ("", ""))
        variable = VARIABLE.fullmatch(value)
        yield Key(path, variable[1] if variable else "", (variable[2] or "") if variable else value, kind_of(hint), why)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def table(rows: list[Key]) -> list[str]:
    lines = ["| key | environment | default | what may stand there | why |", "|---|---|---|---|---|"]
    for k in rows:
        default = f"`{k.default}`" if k.default else "empty"
        lines.append(f"| `{k.path}` | {f'`{k.env}`' if k.env else ''} | {default} | {cell(k.kind)} | {cell(k.why)} |")
    return lines


def open_keys(name: str, hint, said: dict[str, tuple[str, str]]) -> list[Key]:
    """The keys of a section whose names are not fixed (a mapping of plain values): those that the YAML has."""
    found = []
    for path, (value, why) in said.items():
        if path.startswith(f"{name}."):
            variable = VARIABLE.fullmatch(value)
            found.append(Key(path, variable[1] if variable else "", (variable[2] or "") if variable else value, kind_of(hint), why))
    return found


def instruments(kind: type[Struct], path: Path) -> list[str]:
    """The symbols of a file as rows, what is said of each as columns."""
    hints = typing.get_type_hints(kind, include_extras=True)
    lines = [f"| symbol | {' | '.join(f'`{h}`' for h in hints)} |", "|---" * (len(hints) + 1) + "|",
             f"| *what may stand there* | {' | '.join(cell(kind_of(h)) for h in hints.values())} |"]
    for symbol, said in yaml.safe_load(path.read_text()).items():
        lines.append(f"| `{symbol}` | {' | '.join(cell(str(said.get(h, ''))) for h in hints)} |")
    return lines


def markdown() -> str:
    """The whole page."""
    said = written()
    out = ["# Configuration", "",
           "Generated by `python -m scripts.build_generated` from `config/default.yaml` and the structs that read it.", "",
           "`config/default.yaml` holds every key; `--config FILE` overrides single ones; an environment variable overrides both. "
           "An unknown key, a wrong type or a value out of range is refused with its file, key, value and what was expected.", ""]
    top = []
    for name, hint in typing.get_type_hints(Settings, include_extras=True).items():
        if typing.get_origin(hint) is dict:
            one, (_, why) = typing.get_args(hint)[1], said.get(name, ("", ""))
            if name in BY_SYMBOL:
                path = BY_SYMBOL[name]
                out += [f"## {name}", "", f"In `config/{path.name}`, a mapping for each symbol. {sentence(one)}", "",
                        *instruments(one, path), ""]
            else:
                out += [f"## {name}", "", f"A mapping: {why}.", "", *table(open_keys(name, one, said)), ""]
        elif isinstance(hint, type) and issubclass(hint, Struct):
            source = said.get(name, ("", ""))[1]
            out += [f"## {name}", "", sentence(hint) + (f" ({source})" if source else ""), "", *table(list(keys(hint, name, said))), ""]
        else:
            top.append(name)
    rows = [k for k in keys(Settings, "", said) if k.path in top]
    return "\n".join([*out, "## Top level", "", *table(rows), ""])


def sentence(kind: type) -> str:
    """A struct's docstring as one paragraph."""
    return " ".join((kind.__doc__ or "").split())
