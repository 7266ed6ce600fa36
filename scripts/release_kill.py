"""Ends a halt: the desk may open positions again. Say why.

    python -m scripts.release_kill --reason "feed is back"
"""
from engine.facts import RELEASE
from scripts.kill import send


def main(argv: list[str] | None = None) -> int:
    return send(RELEASE, __doc__ or "", "release_kill", argv)


if __name__ == "__main__":
    raise SystemExit(main())
