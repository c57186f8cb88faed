"""What the slow reference loops of several methods share, and the loop of the matching methods.

Everything is drawn from the same keys as in the library, and computed one image, one layer, one class at a time.
"""

import math

import slow_losses
import torch
import torch.nn.functional as F
from torch import nn

from clreplay.condensation.engine.tiled_start import tiled_images
from clreplay.runtime.seeding import BLOCK, generator
from clreplay.training.augmentation import augment_shared, parse_strategy


def drawn_network(network, seed, number):
    """The network with the weights of the given number: layer by layer from one keyed draw."""
    numbers = torch.empty(sum(p.numel() for p in network.parameters()))
    numbers.uniform_(-1, 1, generator=generator(seed, "network", number))
    with torch.no_grad():
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                values, numbers = numbers[: parameter.numel()], numbers[parameter.numel() :]
                if isinstance(module, nn.Conv2d | nn.Linear):
                    parameter.copy_(values.view_as(parameter) / math.sqrt(module.weight[0].numel()))
                else:
                    parameter.fill_(1.0 if name == "weight" else 0.0)
    return network


def drawn_batch(real, label, settings, seed, block, within):
    """Rows of a class's real batch, and the parameters of its augmentation."""
    chance = generator(seed, real.keys[label], "match", block)
    draws = torch.rand(BLOCK, parse_strategy(settings.siamese_augment).draw_size, generator=chance)
    size = real.count(label)
    if settings.real_batch >= size:
        return list(range(size)), draws[within]
    uniform = torch.rand(BLOCK, size, generator=chance)[within]
    return sorted(range(size), key=lambda row: -uniform[row])[: settings.real_batch], draws[within]


def augmented(images, one_draw, settings):
    """Image by image: the parameters are the class's, not the batch's."""
    strategy = parse_strategy(settings.siamese_augment)
    return torch.cat([augment_shared(image[None], one_draw, strategy) for image in images])


def first_images(real, label, count, settings, seed):
    """What a class's images start as: noise, or some of its real images in the order of a keyed draw, or tiles."""
    if settings.tiles > 1:
        return tiled_images(real, label, count, settings.init, seed, settings.tiles)
    chance = generator(seed, real.keys[label], "init")
    if settings.init == "noise":
        return torch.randn(count, *real.shape, generator=chance)
    return real.normalised(label)[torch.randperm(real.count(label), generator=chance)[:count]]


def shown(images, settings):
    """What a network sees of stored images: tile after tile, each enlarged by itself."""
    height, width = (side // settings.tiles for side in images.shape[2:])
    corners = [(y * height, x * width) for y in range(settings.tiles) for x in range(settings.tiles)]
    tiles = [image[:, y : y + height, x : x + width] for image in images for y, x in corners]
    size = images.shape[2:]
    return torch.cat([F.interpolate(tile[None], size, mode="bilinear", align_corners=False) for tile in tiles])


# ---------------------------------------------------------------- the matching methods


def matching_terms(theirs, ours, settings):
    """Every term that a matching method can have, of one class; each side is (embedding, maps)."""
    style = {"layers": settings.style_layers}
    terms = {
        "mean_matching": slow_losses.mean_matching(theirs, ours),
        "moment_matching": slow_losses.moment_matching(
            theirs, ours, settings.sigma_of, settings.spread, settings.moment_channels, **style
        ),
        "correlation_matching": slow_losses.correlation_matching(theirs, ours, settings.gram_quarter, **style),
    }
    if settings.attention_weight:
        attention = settings.attention_power, settings.attention_layers
        terms["attention_matching"] = slow_losses.attention_matching(theirs, ours, *attention)
    count = len(ours[0])
    if count > 1:
        k = min(max(1, round(settings.neighbours * count)), count - 1)
        how = settings.diversity_reduction, settings.detach_neighbours
        terms["diversity"] = slow_losses.diversity(theirs, ours, k, *how)
    return terms


def matching_weights(settings):
    """L_MMD + lambda (alpha L_MM + L_CM) + beta L_ICD + L_SAM: the weight of every term."""
    return {
        "mean_matching": settings.mean_weight,
        "moment_matching": settings.style_weight * settings.alpha,
        "correlation_matching": settings.style_weight * settings.correlation,
        "diversity": settings.diversity_weight,
        "attention_matching": settings.attention_weight,
    }


def features_of_classes(network, batches):
    """Of every class the embedding and the maps, from one pass: batch norm mixes the classes, other norms do not."""
    embedding, taps = network.features(torch.cat(batches))
    sizes = [len(batch) for batch in batches]
    return list(zip(embedding.split(sizes), zip(*(tap.split(sizes) for tap in taps))))


def matching(real, counts, settings, seed):
    """The loop of the papers in double precision: for every iteration a new network, then class after class."""
    images, optimizers = {}, {}
    for label in real.classes:
        images[label] = first_images(real, label, counts[label], settings, seed).double().requires_grad_()
        optimizers[label] = torch.optim.SGD([images[label]], lr=settings.lr_img, momentum=settings.momentum_img)
    weights, channels, size = matching_weights(settings), real.shape[0], real.shape[1]
    for iteration in range(settings.iterations):
        number = iteration // settings.network_reuse
        network = drawn_network(settings.build(1, channels, size), seed, number).double().requires_grad_(False)
        theirs, ours = [], []
        for label in real.classes:
            rows, one_draw = drawn_batch(real, label, settings, seed, *divmod(number, BLOCK))
            theirs.append(augmented(real.normalised(label)[rows].double(), one_draw, settings))
            ours.append(augmented(images[label], one_draw, settings))
        loss = 0.0
        for sides in zip(features_of_classes(network, theirs), features_of_classes(network, ours)):
            loss = loss + sum(weights[name] * term for name, term in matching_terms(*sides, settings).items())
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
    return {label: tensor.detach() for label, tensor in images.items()}
