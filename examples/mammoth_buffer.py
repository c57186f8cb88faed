"""Mammoth's ER with a condensed memory: put this file in Mammoth's `models/` and run it with `--model condensed_er`."""

from models.er import Er

from clreplay.buffer import MammothBuffer


class CondensedEr(Er):
    """Experience replay, of condensed images."""

    NAME = "condensed_er"

    def __init__(self, backbone, loss, args, transform, dataset=None):
        super().__init__(backbone, loss, args, transform, dataset=dataset)
        self.buffer = MammothBuffer(args.buffer_size, self.device, "dm", preset="cpu")

    def end_task(self, dataset):
        """Condense the task that ends."""
        self.buffer.consolidate()
