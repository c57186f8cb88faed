"""Every loss as a slow loop written from its formula, and what compares a fast one with it.

A slow loss takes the features of one class, real and synthetic, each a triple: the embedding (n, d), the feature maps
of every layer, a list of (n, channels, h, w), and the images.
"""

import torch

from clreplay.networks.base import TAP_POINTS
from clreplay.networks.features import Features

CLASSES, REAL, SYNTHETIC = 3, 5, 4


# ---------------------------------------------------------------- the formulas


def mean_matching(theirs, ours):
    """Squared distance of the mean embeddings."""
    return squared_gap(theirs[0], ours[0])


def squared_gap(theirs, ours):
    """Squared distance of the means of two sets (n, ...) and (m, ...)."""
    return (sum(theirs) / len(theirs) - sum(ours) / len(ours)).square().sum()


def moments(maps, sigma_of="image", spread="std"):
    """Mean and spread of every channel of (n, channels, h, w), averaged over the images: two (channels,)."""
    means, spreads = 0.0, 0.0
    for image in maps if sigma_of == "image" else [sum(maps) / len(maps)]:
        values = image.flatten(1)
        centre = values.mean(1)
        variance = (values - centre[:, None]).square().sum(1) / max(values.shape[1] - 1, 1)
        means = means + centre
        if spread == "biased_std":
            variance = (values - centre[:, None]).square().sum(1) / values.shape[1]
        spreads = spreads + (variance if spread == "var" else torch.sqrt(variance + 1e-5))
    count = len(maps) if sigma_of == "image" else 1
    return means / count, spreads / count


def moment_matching(
    theirs, ours, sigma_of="image", spread="std", channels="mean", layers=None, relative=False, over_layers="sum"
):
    """Half the squared differences of the channels' means and spreads, over the layers."""
    total, chosen = 0.0, range(len(ours[1])) if layers is None else layers
    for layer in chosen:
        sides = (moments(maps[layer], sigma_of, spread) for maps in (theirs[1], ours[1]))
        for target, value in zip(*sides):
            squares = (target - value).square()
            gap = squares.mean() if channels == "mean" else squares.sum()
            total = total + 0.5 * (gap / (target.square().mean() + 1e-8) if relative else gap)
    return total / len(chosen) if over_layers == "mean" else total


def deviation(values):
    """Standard deviation of the rows of (n, d), unbiased; at least 1e-6, so that it has a slope."""
    mean = sum(values) / len(values)
    return torch.sqrt((sum((row - mean).square() for row in values) / (len(values) - 1)).clamp_min(1e-12))


def style_diversity(theirs, ours, layers=None):
    """Half the relative squared differences of how the images' means and deviations vary, mean over layers."""
    total, chosen = 0.0, range(len(ours[1])) if layers is None else layers
    for layer in chosen:
        sides = []
        for maps in (theirs[1][layer], ours[1][layer]):
            styles = [moments(image[None], "image", "biased_std") for image in maps]
            sides.append([deviation(torch.stack(kind)) for kind in zip(*styles)])
        for target, value in zip(*sides):
            total = total + 0.5 * (target - value).square().mean() / (target.square().mean() + 1e-8)
    return total / len(chosen)


def content_diversity(theirs, ours):
    """Relative squared difference of the deviations along the real embedding's principal directions."""
    real, synthetic = theirs[0], ours[0]
    count = min(len(synthetic) - 1, len(real) - 1, 16)
    directions = torch.linalg.svd((real - real.mean(0)).detach()).Vh[:count]
    target, value = deviation(real @ directions.T), deviation(synthetic @ directions.T)
    return (target - value).square().mean() / (target.square().mean() + 1e-8)


def patch_matching(theirs, ours):
    """Half of what patch means and second moments differ by, over the real second moment's trace and square."""
    sides = []
    for images in (theirs[2], ours[2]):
        n, channels, h, w = images.shape
        padded = torch.zeros(n, channels, h + 2, w + 2, dtype=images.dtype)
        padded[:, :, 1:-1, 1:-1] = images
        patches = [padded[i, :, y : y + 3, x : x + 3].flatten() for i in range(n) for y in range(h) for x in range(w)]
        sides.append((sum(patches) / len(patches), sum(torch.outer(p, p) for p in patches) / len(patches)))
    (mean, second), (our_mean, our_second) = sides
    means = (mean - our_mean).square().sum() / sum(second[i, i] for i in range(len(second)))
    return 0.5 * (means + (second - our_second).square().sum() / second.square().sum())


def gram(maps):
    """Mean over the images of the channels' correlations, (channels, channels)."""
    return sum(image.flatten(1) @ image.flatten(1).T / image.numel() for image in maps) / len(maps)


def correlation_matching(theirs, ours, quarter=False, layers=None, over_layers="sum"):
    """Squared differences of the correlations, over the layers."""
    chosen = range(len(ours[1])) if layers is None else layers
    total = sum((gram(theirs[1][i]) - gram(ours[1][i])).square().sum() for i in chosen) / (4 if quarter else 1)
    return total / len(chosen) if over_layers == "mean" else total


def diversity(theirs, ours, k=1, reduction="mean", detach=False):
    """Minus the divergence of every image from the centre of its ``k`` nearest neighbours; ties by position."""
    images, total = ours[0], 0.0
    for i, image in enumerate(images):
        others = [(float((image - other).detach().square().sum()), j) for j, other in enumerate(images) if j != i]
        centre = sum(images[j] for _, j in sorted(others)[:k]) / k
        centre = centre.detach() if detach else centre
        total = total - (image.softmax(0) * (image.log_softmax(0) - centre.log_softmax(0))).sum()
    return total / len(images) if reduction == "mean" else total


def attention(image, power):
    """Where one image's maps (channels, h, w) are strong: (h * w,) of length one."""
    strength = sum(abs(channel) ** power for channel in image).flatten()
    return strength / torch.sqrt(sum(value**2 for value in strength))


def attention_matching(theirs, ours, power=4.0, layers=None):
    """Squared distance of the mean attention maps of every layer but the last."""
    chosen = range(len(ours[1]) - 1) if layers is None else layers
    return sum(
        squared_gap(*([attention(image, power) for image in side[1][layer]] for side in (theirs, ours)))
        for layer in chosen
    )


def layer_alignment(theirs, ours):
    """1.0 A(pool) + 1.0 A(last map) + 0.1 A(each map before) + A(the pooled map once more, as a vector)."""
    pooled, maps = squared_gap(theirs[0], ours[0]), [squared_gap(*pair) for pair in zip(theirs[1], ours[1])]
    return 1.0 * pooled + 1.0 * maps[-1] + sum(0.1 * earlier for earlier in maps[:-1]) + pooled


def cross_entropy(logits, output):
    """Mean over (n, classes) logits of minus the logarithm of the output's share."""
    return -sum(torch.log(one[output].exp() / one.exp().sum()) for one in logits) / len(logits)


def discrimination(real, labels, centres):
    """Minus the logarithm of the share that an image's own centre has in its likeness to all, summed over images."""
    total = 0.0
    for image, label in zip(real, labels):
        likeness = torch.stack([image @ centre for centre in centres])
        total = total - likeness[label] + torch.log(likeness.exp().sum())
    return total


def cosine_distance(a, b):
    """One minus the cosine of two vectors."""
    return 1 - (a * b).sum() / (a.norm() * b.norm() + 1e-6)


def gradient_distance(theirs, ours, distance):
    """Of one class's gradients, a list of tensors; a parameter is a matrix of one row an output unit."""
    if distance == "row_cosine":
        matrices = [(a, b) for a, b in zip(theirs, ours) if a.ndim > 1]
        return sum(cosine_distance(r.flatten(), s.flatten()) for a, b in matrices for r, s in zip(a, b))
    a, b = (torch.cat([tensor.flatten() for tensor in side]) for side in (theirs, ours))
    return cosine_distance(a, b) if distance == "whole_cosine" else (a - b).square().sum()


# ---------------------------------------------------------------- random features, and fast against slow


def features(n, classes=CLASSES, dtype=torch.float64, seed=0):
    """Random features of two blocks, post-activation: at least zero, one channel of the second block dead."""
    chance = torch.Generator().manual_seed(seed)
    taps = [torch.randn(classes, n, c, s, s, generator=chance, dtype=torch.float64).relu() for c, s in ((4, 6), (3, 2))]
    taps[1][:, :, 0] = 0
    embedding = torch.randn(classes, n, 7, generator=chance, dtype=torch.float64)
    images = torch.randn(classes, n, 2, 5, 4, generator=chance, dtype=torch.float64)
    return made(embedding.to(dtype), [tap.to(dtype) for tap in taps], images.to(dtype))


def made(embedding, taps, images=None):
    """Features whose maps are the same at every point of a block."""
    return Features(embedding, taps, images=images, elsewhere={p: (taps, None) for p in TAP_POINTS if p != "act"})


def signed_features(n, classes=CLASSES, seed=0):
    """Random features of three blocks in double precision; signs vary, as with leaky activations."""
    chance = torch.Generator().manual_seed(seed)
    sizes = ((4, 6), (3, 4), (2, 2))
    taps = [torch.randn(classes, n, c, s, s, generator=chance, dtype=torch.float64) for c, s in sizes]
    return Features(torch.randn(classes, n, 7, generator=chance, dtype=torch.float64), taps)


def value_and_gradients(loss_of, some):
    """A loss of features, (classes,), and its gradients with respect to the embedding, every map and the images."""
    tensors = (some.embedding, *some.taps, *(() if some.images is None else (some.images,)))
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    count = len(some.taps) + 1
    loss = loss_of(made(leaves[0], leaves[1:count], leaves[count] if leaves[count:] else None))
    weights = torch.arange(1, len(loss) + 1, dtype=loss.dtype)  # so that classes cannot be swapped
    gradients = torch.autograd.grad((loss * weights).sum(), leaves, allow_unused=True)
    return loss.detach(), [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, gradients)]


def one_class(some, c):
    """The features of one class, as slow losses take them."""
    return some.embedding[c], [tap[c] for tap in some.taps], None if some.images is None else some.images[c]


def part_of(some, classes=slice(None), images=slice(None)):
    """Features of some classes and some of their images."""
    every = [some.embedding, *some.taps, *(() if some.images is None else (some.images,))]
    embedding, *rest = (tensor[classes][:, images] for tensor in every)
    pixels = None if some.images is None else rest.pop()
    return made(embedding, rest, pixels)


def fast_loss(term, real):
    """The term's loss against the real features, as a function of the synthetic ones."""
    target = term.targets(real)
    return lambda synthetic: term.loss(target, term.statistics(synthetic), synthetic)


def assert_equals_slow(term, slow, real, synthetic, **options):
    """The term's values and gradients must be those of the slow loss, class by class."""

    def slow_loss(some):
        sides = ([one_class(f, c) for c in range(len(f.embedding))] for f in (real, some))
        return torch.stack([slow(theirs, ours, **options) for theirs, ours in zip(*sides)])

    found, gradients = value_and_gradients(fast_loss(term, real), synthetic)
    expected, slow_gradients = value_and_gradients(slow_loss, synthetic)
    assert found.shape == (len(synthetic.embedding),) and expected.abs().min() > 0
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients, slow_gradients):
        torch.testing.assert_close(one, other)
