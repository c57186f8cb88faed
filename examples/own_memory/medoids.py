"""Medoids: keep the images that all others of their class are nearest to, picked one after another."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from clreplay.condensation import Condensed, register


@dataclass(frozen=True)
class MedoidSettings:
    side: int = 8  # images are compared as pictures of side x side pixels


@register("medoids", MedoidSettings)
def medoids(real, counts, settings, *, seed, device, progress=None, keep=None):
    kept = {}
    for label in real.classes:
        points = F.adaptive_avg_pool2d(real.normalised(label), settings.side).flatten(1)
        distance = torch.cdist(points, points)
        nearest, rows = torch.full_like(distance[0], float("inf")), []
        for _ in range(counts[label]):
            total = torch.minimum(nearest, distance).sum(1)  # of each image's distance to the nearest one kept
            total[rows] = float("inf")
            rows.append(int(total.argmin()))
            nearest = torch.minimum(nearest, distance[rows[-1]])
        kept[label] = real.raw(label)[rows]  # exactly counts[label] real images
    return Condensed(kept)
