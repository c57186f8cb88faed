"""What a user of the hub does, in a process of its own: the client reads ``HF_ENDPOINT`` when it is imported."""

import sys

from clreplay import ReplayMemory


def main(*steps):
    memory = None
    for step in steps:
        what, _, where = step.partition("=")
        try:
            if what == "load":
                memory = ReplayMemory.load(where)
                print(memory)
            elif what == "save":
                memory.save(where)
            else:
                print(memory.push(where))
        except (ValueError, OSError) as error:
            print(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
