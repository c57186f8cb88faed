"""Kills, damaged files and collisions in one table: ``make stress``, which writes results/trust.md."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib import metadata
from pathlib import Path

from fuzz import fuzz_all
from fuzzing import BAD, OTHER, REFUSED, RIGHT
from kill_resume import kill, prepare
from kinds import KINDS
from two_at_once import collide

ROOT = Path(__file__).resolve().parents[2]
NOTE = (
    "*Refused*: one line that names the file, or, of a cache, a warning and the work done anew. *Read as whole*: the "
    "damage lay where nothing is said, or was none. *Other content*: the format has no checksum of all that it says "
    "(text that people edit, a JPEG's pixels, a name in an archive); where there is one, none may be. *Wrong*: another "
    "error than our own, a hang of more than 20 seconds, more than 192 MB of memory, a crash, or other content in "
    "spite of a checksum."
)
PACKAGES = ("torch", "numpy", "safetensors", "pyarrow", "pillow", "scipy", "pyyaml", "pandas", "joblib")


def table(kills: int, cases: int, times: int, seed: int) -> tuple[list[str], int]:
    """The lines of the page, and how much went wrong."""
    tallies = fuzz_all(cases, seed)  # first: what comes later starts threads
    prepare()
    killed, met = kill(kills, seed), collide(times, seed)
    wrong_kills, wrong_met = killed.failed + killed.different, met.failed + met.different
    bad = {name: sum(tally.counts[what] for what in BAD) for name, tally in tallies.items()}
    unnoticed = {kind.name: tallies[kind.name].counts[OTHER] if kind.sealed else 0 for kind in KINDS}
    files = sum(sum(tally.counts.values()) for tally in tallies.values())
    wrong_files = sum(bad.values()) + sum(unnoticed.values())
    lines = [
        "| what | times | survived | wrong |",
        "| --- | ---: | ---: | ---: |",
        f"| killed (SIGKILL) and started again, all bytes compared | {killed.kills} | {killed.kills - wrong_kills} "
        f"| {wrong_kills} |",
        f"| two at once in one folder | {met.times} | {met.times - wrong_met} | {wrong_met} |",
        f"| damaged files read | {files} | {files - wrong_files} | {wrong_files} |",
        "",
        "| damaged files | read | refused | read as whole | other content | wrong |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind in KINDS:
        counts = tallies[kind.name].counts
        other = f"{counts[OTHER]}" if not kind.sealed else "0 (checksum)" if not counts[OTHER] else f"{counts[OTHER]} !"
        lines.append(
            f"| {kind.name} | {sum(counts.values())} | {counts[REFUSED]} | {counts[RIGHT]} | {other} "
            f"| {bad[kind.name] + unnoticed[kind.name]} |"
        )
    for tally in tallies.values():
        for line in tally.bad[:5]:
            print(line, file=sys.stderr)
    lines += ["", f"kills survived: {killed.kills - wrong_kills}, bytes different: {killed.different}"]
    return lines, wrong_kills + wrong_met + wrong_files


def page(lines: list[str], command: str) -> str:
    """With where and with what it was measured."""
    from clreplay.runtime.device import device_name, torch  # the processor's name
    from clreplay.runtime.provenance import commit

    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return "\n".join(
        [
            "# What it survives",
            "",
            f"Measured by `{command}` at commit {commit()} on {device_name(torch.device('cpu'))}, "
            f"{platform.system()}, Python {platform.python_version()}, {versions}.",
            "",
            *lines,
            "",
            NOTE,
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the page there, too")
    options = parser.parse_args()
    lines, wrong = table(options.kills, options.cases, options.times, options.seed)
    print("\n".join(lines))
    if options.out is not None:
        command = f"tests/stress/stress.py --kills {options.kills} --cases {options.cases} --times {options.times}"
        options.out.write_text(page(lines, f"{command} --seed {options.seed}"), encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
