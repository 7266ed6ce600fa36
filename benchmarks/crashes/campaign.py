"""The campaign as a command: both parts, progress on the way, a table at the end."""
import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import benchmarks.crashes as crashes
from benchmarks.crashes import besieged as apart
from benchmarks.crashes import market, stack
from benchmarks.crashes.points import BESET, EMPTY, SINGLE, UNPACED, WAYS, Case, Ground, Result, all_of, base, besieged, cases, run
from benchmarks.crashes.siege import DEATHS
from config.settings import load
from scripts._arguments import natural, positive, seconds


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def unlike(result: Result, said: dict[str, list[bytes]]) -> bool:
    """At a paced market with its logs every decision is that of the undisturbed run."""
    return result.case.way not in (UNPACED, EMPTY) and result.said != said


def in_process(ground: Ground, points: int, seed: int, jobs: int) -> int:
    """Part one; how many runs were faulty."""
    logging.disable(logging.CRITICAL)
    undisturbed, wanted = base(ground)
    unpaced, _ = base(ground, "1")
    work = list(cases(undisturbed.trace, unpaced.edges, points, seed))
    say(f"undisturbed: {undisturbed.edges:,} edges of {len(set(undisturbed.trace))} kinds, {wanted.facts:,} facts, {wanted.orders} orders, "
        f"{wanted.fills} fills{'; FAULTS ' + '; '.join(wanted.faults) if wanted.faults else ''}; {len(work)} runs")
    rows: dict[str, Counter[str]] = {}
    deaths: Counter[str] = Counter()
    began, bad = time.monotonic(), len(wanted.faults)
    for n, result in enumerate(all_of(ground, work, jobs), 1):
        row = rows.setdefault(result.case.way, Counter())
        different = unlike(result, wanted.said)
        row.update(runs=1, deaths=len(result.kills), raised=result.raised, lost=result.lost, doubled=result.doubled, gaps=result.gaps,
                   wrong=result.wrong, different=different)
        deaths.update(who for _, who, _ in result.kills)
        if result.faults or different:
            bad += 1
            c, faults = result.case, sorted(result.faults, key=lambda fault: "stalled" not in fault)
            say(f"FAULT --case '{c.way}' {c.seed} {c.edge or c.edges}: {'decides otherwise; ' * different}{'; '.join(faults[:3])}\n"
                f"      {'; '.join(f'{who} at {edge} ({where})' for edge, who, where in result.kills[:6])}")
        if n % 50 == 0:
            say(f"{n}/{len(work)} runs, {sum(deaths.values())} deaths, {bad} faulty, {time.monotonic() - began:.0f} s")
    table(rows, deaths)
    return bad


def hostile(ground: Ground, points: int, seed: int, jobs: int) -> int:
    """Part one beside a hostile venue, until so many have died; how many runs were faulty."""
    logging.disable(logging.CRITICAL)
    undisturbed, _ = base(ground, "1")
    work = besieged(undisturbed.trace, seed)
    rows: dict[str, Counter[str]] = {}
    healed: dict[str, list[float]] = {}
    deaths, kinds, ills, began, bad = Counter[str](), set[str](), Counter[str](), time.monotonic(), 0
    while deaths.total() < points:
        some = list(islice(work, min(16, 1 + (points - deaths.total()) // DEATHS)))
        for result in all_of(ground, some, jobs):
            c = result.case
            rows.setdefault(c.way, Counter()).update(runs=1, deaths=len(result.kills), orders=result.orders, fills=result.fills,
                                                     lost=result.lost, doubled=result.doubled, gaps=result.gaps, wrong=result.wrong)
            healed.setdefault(c.way, []).extend(result.healed)
            deaths.update(who for _, who, _ in result.kills)
            kinds.update(where for _, _, where in result.kills)
            ills.update(result.ills)
            if result.faults:
                bad += 1
                say(f"FAULT --case '{c.way}' {c.seed} 0: {'; '.join(result.faults[:3])}\n"
                    f"      {'; '.join(f'{who} at {edge} ({where})' for edge, who, where in result.kills[:12])}")
        say(f"{deaths.total()} deaths, {bad} runs faulty, {time.monotonic() - began:.0f} s")
    columns = ("runs", "deaths", "orders", "fills", "lost", "doubled", "gaps", "wrong")
    print(f"{'in one process':<28}" + "".join(f"{c:>8}" for c in columns) + "   until all agree, s: p50 / p99 / longest")
    for way, row in rows.items():
        times = healed[way]
        print(f"{way:<28}" + "".join(f"{row[c]:>8,}" for c in columns)
              + f"   {quantile(times, 0.5):.2f} / {quantile(times, 0.99):.2f} / {max(times):.2f}")
    print(f"who died: {', '.join(f'{who} {n:,}' for who, n in deaths.most_common())}, at {len(kinds)} kinds of edges")
    print("what the line did: " + ", ".join(f"{ill} {n:,}" for ill, n in ills.most_common()), flush=True)
    return bad


def table(rows: dict[str, Counter[str]], deaths: Counter[str]) -> None:
    """The figures of part one."""
    columns = ("runs", "deaths", "raised", "lost", "doubled", "gaps", "wrong", "different")
    print(f"{'in one process':<22}" + "".join(f"{c:>10}" for c in columns))
    for way, row in rows.items():
        print(f"{way:<22}" + "".join(f"{row[c]:>10,}" for c in columns))
    print(f"{'in all':<22}" + "".join(f"{sum(r[c] for r in rows.values()):>10,}" for c in columns))
    print("who died: " + ", ".join(f"{who} {n:,}" for who, n in deaths.most_common()), flush=True)


def again(ground: Ground, case: Case) -> int:
    """One case with everything that its services say."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if case.way in BESET:
        case = replace(case, kinds=next(besieged(base(ground, "1")[0].trace, 0)).kinds)
    result = run(ground, case)
    print("\n".join(f"{who} died at edge {edge}: {where}" for edge, who, where in result.kills))
    print("\n".join(result.faults) or "nothing lost, nothing twice")
    return 1 if result.faults else 0


def quantile(values: list[float], q: float) -> float:
    """The value below which this share lies.

    >>> quantile([3.0, 1.0, 2.0], 0.5)
    2.0
    """
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def real(folder: Path, deaths: int, seed: int, symbols: list[str], seconds: float) -> int:
    """Part two; how many runs were faulty."""
    parts = {stack.APART: deaths // 2, stack.TOGETHER: deaths - deaths // 2 - deaths // 5, stack.EMPTY: deaths // 5}
    recording = market.recording(folder / "long", load(env={}), symbols, seconds, seed)
    market.model(folder / "models")
    bad, silences = 0, dict[str, list[float]]()
    print(f"{'processes':<22}{'deaths':>8}{'orders':>8}{'fills':>7}{'lost':>6}{'doubled':>8}{'gaps':>6}{'wrong':>6}  "
          "decisions    ended by themselves")
    for i, (way, some) in enumerate(parts.items()):
        if not some:
            continue
        out = stack.play(folder / f"stack{i}", recording, folder / "models", way, symbols, seconds, some, seed + i, say)
        v = out.verdict
        same = "not compared" if way == stack.EMPTY else "DIFFERENT" if out.different else "byte-equal"
        print(f"{way:<22}{len(out.shots):>8}{v.orders:>8}{v.fills:>7}{len(v.lost):>6}{len(v.doubled):>8}{len(v.gaps):>6}{len(v.wrong):>6}  "
              f"{same:<12} {', '.join(f'{who} {n}' for who, n in out.ended.items()) or 'nobody'}", flush=True)
        for fault in v.faults[:5]:
            say(f"FAULT {fault}")
        bad += bool(v.faults) or out.different or len(out.shots) < some
        for shot in out.shots:
            silences.setdefault("several" if len(shot.who) > 1 else shot.who[0], []).append(shot.silence)
    print(f"{'no decision for (s)':<22}{'deaths':>8}{'p50':>8}{'p99':>8}")
    everybody = [t for some_times in silences.values() for t in some_times]
    for who, times in [*sorted(silences.items()), ("all", everybody)]:
        print(f"{who:<22}{len(times):>8}{quantile(times, 0.5):>8.2f}{quantile(times, 0.99):>8.2f}")
    return bad


def beset(folder: Path, deaths: int, seed: int, symbols: list[str], seconds: float) -> int:
    """Part two beside a hostile venue; how many runs were faulty."""
    market.model(folder / "models")
    bad = 0
    print(f"{'processes':<28}{'deaths':>7}{'orders':>8}{'fills':>7}{'lost':>6}{'doubled':>8}{'gaps':>6}{'wrong':>6}"
          "   until all agree, s: p50 / p99 / longest")
    for i, (real, some) in enumerate(((False, deaths - deaths // 2), (True, deaths // 2))):
        if not some:
            continue
        out = apart.play(folder / f"beset{i}", folder / "models", real, symbols, seconds or 6.0 * some + 30, some, seed + i, say)
        v, times = out.verdict, out.healed
        print(f"{BESET[i]:<28}{len(out.shots):>7}{v.orders:>8}{v.fills:>7}{len(v.lost):>6}{len(v.doubled):>8}{len(v.gaps):>6}{len(v.wrong):>6}"
              + (f"   {quantile(times, 0.5):.2f} / {quantile(times, 0.99):.2f} / {max(times):.2f}" if times else ""), flush=True)
        print("what the line did: " + ", ".join(f"{ill} {n:,}" for ill, n in out.ills.most_common())
              + "; ended by themselves: " + (", ".join(f"{who} {n}" for who, n in out.ended.items()) or "nobody"), flush=True)
        for fault in v.faults[:8]:
            say(f"FAULT seed {seed + i}: {fault}")
        bad += bool(v.faults) or len(out.shots) < some
    return bad


def named(words: list[str], parser: argparse.ArgumentParser) -> Case:
    """The case of `--case WAY SEED EDGE`; the parser's error where it is none."""
    way = words[0]
    if way not in WAYS:
        parser.error(f"--case: {way!r} is not one of {', '.join(map(repr, WAYS))}")
    try:
        seed, edge = natural(words[1]), natural(words[2])
    except argparse.ArgumentTypeError as error:
        parser.error(f"--case: SEED or EDGE {error}")
    if way in BESET:
        return Case(way, seed)
    return Case(way, seed, edge, edge) if way != SINGLE else Case(way, seed, edge)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.crashes", description=crashes.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=natural, default=1000, help="deaths in one process, about (default 1000; 0: none)")
    parser.add_argument("--real", type=natural, default=50, help="SIGKILLs of processes of a running stack (default 50; 0: none)")
    parser.add_argument("--hostile", action="store_true", help="only risk and executor die, and the venue does its worst")
    parser.add_argument("--real-seconds", type=seconds, help="how long their market is (default 14400; hostile, in real time, 6 a death)")
    parser.add_argument("--real-symbols", default="BTCUSDT,ETHUSDT", help="of their market (default BTCUSDT,ETHUSDT)")
    parser.add_argument("--keep", type=Path, help="a folder for the real runs' logs and ledgers, kept")
    parser.add_argument("--seed", type=natural, default=1, help="of everything that is left to chance (default 1)")
    parser.add_argument("--jobs", type=positive, default=2, help="processes for the first part (default 2)")
    parser.add_argument("--symbols", default="BTCUSDT", help="of the small market, by comma (default BTCUSDT)")
    parser.add_argument("--seconds", type=seconds, default=45.0, help="how long the small market is (default 45)")
    parser.add_argument("--case", nargs=3, metavar=("WAY", "SEED", "EDGE"), help="one run again, as a fault names it")
    args = parser.parse_args(argv)
    settings = load(env={})
    for option, given in (("--symbols", args.symbols), ("--real-symbols", args.real_symbols)):
        if unknown := [s for s in given.split(",") if s not in settings.market]:
            parser.error(f"{option}: {', '.join(map(repr, unknown))} not in config/market.yaml, which has {', '.join(settings.market)}")
    if args.keep and args.keep.exists() and not args.keep.is_dir():
        parser.error(f"--keep {args.keep}: a folder was expected")
    case = named(args.case, parser) if args.case else None
    if not (case or args.points or args.real):
        parser.error("--points 0 and --real 0 leave nothing to do")
    folder = Path(tempfile.mkdtemp(prefix="sluice-crashes-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        bad = 0
        if case or args.points:
            ground = Ground(folder, tuple(args.symbols.split(",")), args.seconds).make()
        if case:
            return again(ground, case)
        if args.points:
            bad += (hostile if args.hostile else in_process)(ground, args.points, args.seed, args.jobs)
        if args.real:
            place = args.keep or Path(tempfile.mkdtemp(prefix="sluice-stack-"))
            symbols = args.real_symbols.split(",")
            if args.hostile:
                bad += beset(place, args.real, args.seed, symbols, args.real_seconds or 0.0)
            else:
                bad += real(place, args.real, args.seed, symbols, args.real_seconds or 14_400.0)
            if not args.keep:
                shutil.rmtree(place, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad else 0
