"""Sends the desk to paper for a while (S1's fail-safe): real entries are taken back, exits go on, and it returns by itself.

  python -m scripts.crit --reason "venue answers slowly"

For what is bad and passes. Until `fail_safe.cooldown_minutes` of market time after the last CRIT every entry is a paper one. While a KILL
stands it changes nothing: the command says so and ends with status 1, as where `fail_safe.switch_to_paper_on_crit` is false. What must not
trade again before somebody has looked is a KILL: python -m scripts.kill. Alerts of `fail_safe.alerts` do the same where
`SLUICE_PROMETHEUS_URL` names a Prometheus.
"""
from engine.facts import CRIT
from scripts._arguments import ended
from scripts.kill import give, parser


def main(argv: list[str] | None = None) -> int:
    """Gives the CRIT; returns the exit status."""
    return give(CRIT, parser("crit", __doc__ or ""), argv)


if __name__ == "__main__":
    raise SystemExit(ended(main))
