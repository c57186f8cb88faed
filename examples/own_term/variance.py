"""Variance: beside the mean embedding of a class, match how far its images lie from it."""

from dataclasses import dataclass

from clreplay.losses import Term, register_term


@register_term("variance")
@dataclass(frozen=True)
class VarianceMatching(Term):
    weight: float = 0.0  # zero: not computed unless a recipe gives it a weight
    power: float = 2.0  # of the difference
    reads_maps = False  # the embedding is enough

    def parts(self, images_per_class):
        return [] if images_per_class == 1 else [self]  # one image has no variance

    def statistics(self, features):
        return (features.embedding.var(1),)  # (classes, n, d) to (classes, d)

    def loss(self, real, synthetic, features):
        return (real[0] - synthetic[0]).abs().pow(self.power).sum(1)  # (classes,)
