"""`python -m benchmarks.crashes`"""
from benchmarks.crashes import main
from scripts._arguments import ended

if __name__ == "__main__":
    raise SystemExit(ended(main))
