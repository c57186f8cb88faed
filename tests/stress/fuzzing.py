"""Damaging files at random and looking at what reading them does: no other tool is needed, and every case repeats.

Reading happens in processes of their own, because damage may crash them, keep them busy for ever, or fill the memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

# A fork has no threads but its own: what waits for those of its parent's pool would wait for ever.
torch.set_num_threads(1)
SECONDS = 20
"""A load that takes longer hangs: whole files take milliseconds."""
ROOM = 192 << 20
"""Bytes of address space that a load may take beside what the process has: files are far smaller than 1 MB."""
REFUSED, RIGHT, OTHER = "refused", "right", "other content"
FOREIGN, HANG, MEMORY, CRASH = "foreign error", "hang", "memory", "crash"
BAD = (FOREIGN, HANG, MEMORY, CRASH)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the kind.
        file: name of the file that is damaged, within a folder of its own.
        make: writes a whole file, and what belongs to it, into a folder.
        load: reads it; what is returned is compared with what the whole file gives. None counts as refused, as a cache
            does.
        sealed: whether a checksum covers its content, so that no other content may be read.
        share: of the cases that other kinds get.
    """

    name: str
    file: str
    make: Callable[[Path], None]
    load: Callable[[Path], Any]
    sealed: bool = False
    share: float = 1.0


@dataclass
class Tally:
    """What became of damaged files of one kind; of bad ones, how to have them again."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The bytes with one to three damages."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        place = chance.randrange(len(changed) + 1) if changed else 0
        length = min(chance.choice((1, 2, 4, 16, 200)), max(0, len(changed) - place))
        match chance.randrange(8):
            case 0 | 1 if changed:
                changed[place % len(changed)] ^= 1 << chance.randrange(8)
            case 2 if changed:
                changed[place % len(changed)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            case 3:
                number = chance.choice((0, 1, -1, 2**31 - 1, 2**32 - 1, 2**63 - 1, -(2**31)))
                kind = chance.choice(("<i", ">i", "<q", ">q"))
                packed = struct.pack(kind.upper(), number % 2 ** (8 * struct.calcsize(kind)))
                changed[place : place + len(packed)] = packed
            case 4:
                del changed[place:]
            case 5:
                del changed[place : place + length]
            case 6:
                changed[place:place] = changed[place : place + length] * chance.choice((1, 2, 50))
            case _:
                changed[place:place] = bytes(chance.randrange(256) for _ in range(length or 1))
    return bytes(changed)


def fuzz(kind: Kind, cases: int, seed: int = 0, batch: int = 50) -> Tally:
    """Damage a file ``cases`` times and read it each time."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        whole = Path(folder) / "whole"
        whole.mkdir()
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        kind.make(whole)
        expected = _shown(kind.load(whole / kind.file))
        first = 0
        while first < cases:
            first = _batch(kind, whole, expected, range(first, min(first + batch, cases)), seed, tally)
            shutil.rmtree(f"{folder}/cache", ignore_errors=True)
    return tally


def _batch(kind: Kind, whole: Path, expected: str, numbers: range, seed: int, tally: Tally) -> int:
    """Some cases in a process of their own; the number of the next case."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with contextlib.suppress(BaseException):
            _cases(kind, whole, expected, numbers, seed, write)
        os._exit(0)
    os.close(write)
    done = numbers.start
    with os.fdopen(read) as lines:
        for line in lines:
            what, detail = json.loads(line)
            _note(kind, tally, what, detail, done, seed)
            done += 1
    _, status = os.waitpid(child, 0)
    if done < numbers.stop:  # the case at hand ended the process
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        _note(kind, tally, HANG if number == signal.SIGALRM else CRASH, f"signal {number}", done, seed)
        done += 1
    return done


def _note(kind: Kind, tally: Tally, what: str, detail: str, number: int, seed: int) -> None:
    tally.counts[what] += 1
    if what in BAD or (what == OTHER and kind.sealed):
        tally.bad.append(f"{kind.name} {number} (seed {seed}): {what}: {detail}")


def _cases(kind: Kind, whole: Path, expected: str, numbers: range, seed: int, write: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder = whole.with_name("damaged")
    for number in numbers:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        path = folder / kind.file
        path.write_bytes(mutated(path.read_bytes(), random.Random(f"{seed} {kind.name} {number}")))
        signal.alarm(SECONDS)  # nothing handles it, so it ends the process
        what, detail = _looked_at(kind, path, expected)
        signal.alarm(0)
        os.write(write, (json.dumps([what, detail]) + "\n").encode())


def _looked_at(kind: Kind, path: Path, expected: str) -> tuple[str, str]:
    with open("/proc/self/statm", encoding="utf-8") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, hard))
    try:
        found = kind.load(path)
        if found is None:
            return REFUSED, ""
        return (RIGHT, "") if _shown(found) == expected else (OTHER, "")
    except MemoryError:
        return MEMORY, _last_line()
    except (ValueError, OSError) as error:
        if isinstance(error, UnicodeError) or path.name not in str(error) and path.parent.name not in str(error):
            return FOREIGN, _last_line()
        return REFUSED, ""
    except BaseException:
        return FOREIGN, _last_line()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _last_line() -> str:
    kind, error, trace = sys.exc_info()
    places = traceback.extract_tb(trace)
    ours = [place for place in places if "clreplay" in place.filename] or places
    return f"{kind.__name__ if kind else ''}: {str(error)[:150]} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"


def _shown(value: Any) -> str:
    """Anything as text that is the same for the same content."""
    import hashlib

    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {hashlib.blake2b(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_shown(part)}" for key, part in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return repr(value)
