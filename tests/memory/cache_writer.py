"""What another process does in the tests of the class cache; processes cannot import from a test file."""

import torch

from clreplay.memory.class_cache import ClassCache


def put_many(folder: str, value: int) -> None:
    cache = ClassCache(folder)
    for _ in range(30):
        cache.put("ab" * 20, torch.full((2, 3, 16, 16), float(value)))
