"""Print what there is of fill probability in a few lines: an evaluation's key figures, and evidence with its hashes checked.

  python -m scripts.fill_prob_summary --eval ml/eval/fill_model_v0
  python -m scripts.fill_prob_summary --evidence-dir ml/evidence/fill_prob
  python -m scripts.fill_prob_summary                          both where the environment says (GRINDER_FILL_PROB_EVAL_DIR, …)

Block rates stand beside the thresholds, so that one sees what the configured and the recommended threshold would block. Exit status 1
where an evaluation or a file of evidence is not what its hash says.
"""
import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from config import settings as config
from engine.fillprob.documents import Refused
from engine.fillprob.evaluation import STEP_BPS
from engine.fillprob.evidence import FOLDER
from engine.fillprob.threshold import VERSION as RESOLUTION
from scripts._arguments import ended
from store import disk, evidence
from store.fill_model import at, load_evaluation


def block_rate(report: dict[str, Any], threshold_bps: int) -> float:
    """Percent of the evaluated trips that a threshold blocks, at the sweep's step at or below it."""
    return report["threshold_sweep"][threshold_bps // STEP_BPS]["block_rate_pct"]


def told(report: dict[str, Any]) -> str:
    """How many rows ended how; of a fill model, how many orders were filled."""
    if report.get("label") == "filled":
        return f"{report['n_wins']} filled, {report['n_losses']} not"
    return f"{report['n_wins']} won, {report['n_losses']} lost, {report['n_breakeven']} even"


def lines(report: dict[str, Any], configured_bps: int | None = None) -> list[str]:
    """The figures that the runbook reviews, and those that tell what they are worth."""
    best = report["recommended_threshold_bps"]
    out = [f"recommended_threshold_bps  : {best} (blocks {block_rate(report, best):.2f} %; as served "
           f"{report['as_served_block_rate_pct']:.2f} %)"]
    if configured_bps is not None:
        out.append(f"configured_threshold_bps   : {configured_bps} (blocks {block_rate(report, configured_bps):.2f} %)")
    if "brier_bps" in report:
        out.append(f"brier / of the base rate   : {report['brier_bps']} / {report['brier_base_bps']} bps, auc {report['auc_bps']}, "
                   f"ece {report['ece_bps']}")
    return [*out, f"break_even_bps             : {report['break_even_bps']} (cost ratio {report['cost_ratio']:.4g})",
            f"calibration_well_calibrated: {str(report['calibration_well_calibrated']).lower()}",
            f"calibration_max_error_bps  : {report['calibration_max_error_bps']} (as served {report['as_served_max_error_bps']}; "
            f"smallest bin {report['calibration_min_n_samples']} rows)",
            f"n_rows                     : {report['n_rows']} ({told(report)})"
            + ("; the rows that it was trained on" if report["in_sample"] else ""),
            f"as_served_coverage_pct     : {report['as_served_coverage_pct']:.2f} % of the rows, as the gate asks, meet a "
            "bin that the model knows",
            f"generated_at               : {report['generated_at']}"]


def found(folder: Path) -> tuple[list[str], bool]:
    """What lies in a folder of evidence, and whether all of it is sound."""
    judged, bad = evidence.sound(folder)
    resolved, _ = evidence.sound(folder, RESOLUTION)
    by = Counter((a["verdict"], a["action"]["symbol"]) for a in judged)
    out = [f"{folder}: {len(judged)} of orders, {len(resolved)} of thresholds, {len(bad)} not sound"]
    out += [f"  {verdict:<6} {symbol:<12} {count}" for (verdict, symbol), count in sorted(by.items())]
    out += [f"  threshold {a['ts_ms']} mode={a['mode']} recommended_bps={a['recommended_bps']} effective_bps={a['effective_bps']}"
            for a in resolved[-5:]]
    return [*out, *(f"  {name}: {why}" for name, why in sorted(bad.items()))], not bad


@disk.told("fill_prob_summary")
def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("python -m scripts.fill_prob_summary", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eval", type=Path, help="an evaluation's folder")
    parser.add_argument("--evidence-dir", type=Path, help="a folder of evidence")
    parser.add_argument("--config", action="append", default=[], help="YAML that overrides config/default.yaml")
    args = parser.parse_args(argv)
    s = config.load(*args.config).fill_prob
    report_at, proofs = args.eval, args.evidence_dir
    if report_at is None and proofs is None:
        report_at = at(s.eval_dir) if s.eval_dir else None
        proofs = at(s.artifact_dir or evidence.DEFAULT) / FOLDER
        proofs = proofs if proofs.is_dir() else None
    if report_at is None and proofs is None:
        print("fill_prob_summary: nothing to print: name --eval or --evidence-dir, or set GRINDER_FILL_PROB_EVAL_DIR", file=sys.stderr)
        return 1
    status = 0
    if report_at is not None:
        try:
            print("\n".join(lines(load_evaluation(report_at), s.min_bps)))
        except (Refused, KeyError, TypeError, IndexError) as error:
            print(f"ERROR: {report_at}: {error if isinstance(error, Refused) else f'not a report of this version ({error!r})'}",
                  file=sys.stderr)
            status = 1
    if proofs is not None:
        if not proofs.is_dir():
            print(f"ERROR: {proofs}: no such folder", file=sys.stderr)
            return 1
        told, sound = found(proofs)
        print("\n".join(told))
        status = status if sound else 1
    return status


if __name__ == "__main__":
    raise SystemExit(ended(main))
