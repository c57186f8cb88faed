"""Starts a cluster of this machine and prints the addresses that its processes listen at; a program of its own."""

import glob
import os


def family(process):
    """A process with all that it started."""
    children = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, encoding="utf-8") as file:
                parent = int(file.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.split("/")[2]))
    found = [process]
    for one in found:
        found += children.get(one, [])
    return found


def listening(processes):
    """Addresses as the system writes them, without their ports."""
    sockets = set()
    for process in processes:
        for path in glob.glob(f"/proc/{process}/fd/*"):
            try:
                sockets.add(os.readlink(path).removeprefix("socket:[").removesuffix("]"))
            except OSError:
                continue
    found = set()
    for kind in ("tcp", "tcp6"):
        with open(f"/proc/net/{kind}", encoding="utf-8") as file:
            for line in file.read().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A" and words[9] in sockets:
                    found.add(words[1].split(":")[0])
    return found


def number():
    return os.getpid()


if __name__ == "__main__":
    from clreplay.benchmark.cluster import connected

    with connected("local"):
        import ray

        assert ray.get(ray.remote(number).remote()) != os.getpid()
        print(" ".join(sorted(listening(family(os.getpid())))))
    assert "RAY_AUTH_TOKEN" not in os.environ
