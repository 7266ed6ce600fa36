"""`python -m benchmarks.crashes`"""
from benchmarks.crashes import main

if __name__ == "__main__":
    raise SystemExit(main())
