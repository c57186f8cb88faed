"""The slow reference of the decoder ``tiles2``."""

import torch


def enlarged_by_hand(quadrant, size):
    """Bilinear enlargement of (h, w) to (size, size), pixel by pixel: output pixel i looks at (i + 0.5) h / size - 0.5
    of the input, and beyond the border there is the border."""
    h, w = quadrant.shape

    def neighbours(position, length):
        place = min(max((position + 0.5) * length / size - 0.5, 0.0), length - 1.0)
        low = int(place)
        return low, min(low + 1, length - 1), place - low

    rows = []
    for y in range(size):
        row = []
        for x in range(size):
            (top, bottom, v), (left, right, u) = neighbours(y, h), neighbours(x, w)
            upper = (1 - u) * quadrant[top, left] + u * quadrant[top, right]
            lower = (1 - u) * quadrant[bottom, left] + u * quadrant[bottom, right]
            row.append((1 - v) * upper + v * lower)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def tiles_by_hand(stored):
    half, images = stored.shape[2] // 2, []
    for image in stored:
        for top in (0, half):
            for left in (0, half):
                quadrant = image[:, top : top + half, left : left + half]
                images.append(torch.stack([enlarged_by_hand(channel, 2 * half) for channel in quadrant]))
    return torch.stack(images)
