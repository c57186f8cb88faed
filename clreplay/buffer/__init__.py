"""Replay buffers for training loops of one's own: images come in as they are met, batches of a condensed memory out."""

from clreplay.buffer.mammoth import MammothBuffer
from clreplay.buffer.replay_buffer import ReplayBuffer

__all__ = [
    "MammothBuffer",
    "ReplayBuffer",
]
