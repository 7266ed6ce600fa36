"""What is wrong with a PromQL expression, judged by the declared series."""
import re

import promql_parser as p

from alerts.catalogue import UP
from engine.metrics import ALL, ANY, ARM, SYMBOL

TARGET = {"job", "instance"}  # what a scrape adds
KNOWN = {}
for one in (*ALL, UP):
    KNOWN[one.name] = one.labels
    if one.kind == "histogram":
        KNOWN[f"{one.name}_bucket"] = {**one.labels, "le": ANY}
        KNOWN[f"{one.name}_count"] = KNOWN[f"{one.name}_sum"] = one.labels


def selectors(expr: str) -> list[p.VectorSelector]:
    found = []
    p.walk(p.parse(expr), lambda node: found.append(node) if isinstance(node, p.VectorSelector) else None)
    return found


def faults(expr: str) -> list[str]:
    """Undeclared series, labels and values, and groupings by labels that no series below has."""
    wrong = []
    for node in selectors(expr):
        if node.name not in KNOWN:
            wrong.append(f"{node.name} is not declared")
            continue
        labels = KNOWN[node.name]
        for match in node.matchers.matchers:
            allowed = labels.get(match.name, ANY if match.name in TARGET else None)
            if allowed is None:
                wrong.append(f"{node.name} has no label {match.name}")
            elif allowed not in (ANY, ARM, SYMBOL):
                values = [match.value] if str(match.op) in ("MatchOp.Equal", "=") else match.value.split("|")
                wrong += [f"{node.name}: {match.name} is never {v!r}" for v in values if not any(re.fullmatch(v, a) for a in allowed)]

    def grouped(node) -> None:
        if isinstance(node, p.AggregateExpr) and node.modifier is not None:
            below: list = []
            p.walk(node.expr, lambda n: below.append(n) if isinstance(n, p.VectorSelector) else None)
            have = set().union(*(KNOWN.get(n.name, {}) for n in below)) | TARGET
            wrong.extend(f"grouped by {name}, which nothing below has" for name in set(node.modifier.labels) - have)

    p.walk(p.parse(expr), grouped)
    return wrong
