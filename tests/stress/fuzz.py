"""Reads damaged files of every kind: ``python tests/stress/fuzz.py --cases 10000``; 1 if any is read wrongly."""

from __future__ import annotations

import argparse
import json
import sys

from fuzzing import Tally, fuzz
from kinds import KINDS


def shares(cases: int) -> dict[str, int]:
    """How many cases every kind gets, ``cases`` together at least."""
    one = cases / sum(kind.share for kind in KINDS)
    return {kind.name: int(one * kind.share) + 1 for kind in KINDS}


def fuzz_all(cases: int, seed: int) -> dict[str, Tally]:
    """By kind."""
    counts = shares(cases)
    return {kind.name: fuzz(kind, counts[kind.name], seed) for kind in KINDS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", nargs="+", help="only these")
    parser.add_argument("--json", action="store_true", help="print cases and what went wrong by kind")
    options = parser.parse_args()
    if options.json:
        tallies = fuzz_all(options.cases, options.seed)
        print(json.dumps({name: [sum(tally.counts.values()), tally.bad] for name, tally in tallies.items()}))
        return 0
    bad = 0
    for kind in KINDS:
        if options.kind and kind.name not in options.kind:
            continue
        tally = fuzz(kind, shares(options.cases)[kind.name], options.seed)
        print(f"{kind.name:<14} {dict(tally.counts)}", flush=True)
        for line in tally.bad[:10]:
            print(f"  {line}")
        bad += len(tally.bad)
    print(f"files read wrongly: {bad}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
