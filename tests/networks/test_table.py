"""Networks by name: what the table holds and refuses; sizes and shapes that the literature gives."""

import pytest
import torch
from torch import nn

from clreplay.networks import ConvNet, ResNet18, build_network, network_names, register_network, table
from clreplay.networks.base import TAP_POINTS, Network
from clreplay.networks.redraw import parameter_count
from clreplay.networks.settings import NetworkSettings

# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", network_names())
def test_every_name_builds_a_network_that_says_what_it_stands_for(name):
    network = build_network(name, 4)
    images = torch.randn(2, 3, 32, 32)
    embedding, taps = network.features(images)
    assert embedding.shape == (2, network.embedding_size) and taps
    assert network.classifier(embedding).shape == (2, 4)
    kinds = {type(module) for module in network.modules()}
    assert ("BN" in name) == (nn.BatchNorm2d in kinds)
    if name.startswith("ConvNetW"):
        assert network.width == int(name[8:])
    if name.startswith("ConvNetD"):
        assert network.depth == len(taps) == int(name[8:])


@pytest.mark.parametrize("name", network_names())
def test_every_network_gives_as_many_maps_at_every_point_of_its_blocks_in_one_pass(name):
    network = build_network(name, 4).eval()
    images = torch.randn(2, 3, 32, 32)
    embedding, at = network.features_at(images, TAP_POINTS)
    plain, taps = network.features(images)
    assert torch.equal(embedding, plain) and [*at] == [*TAP_POINTS]
    assert len({len(maps) for maps in at.values()}) == 1
    for conv, norm, act, pool, tap in zip(*at.values(), taps):
        assert torch.equal(act, tap) and conv.shape == norm.shape
        assert conv.shape[:2] == act.shape[:2] == pool.shape[:2]
        assert conv.shape[2] >= act.shape[2] >= pool.shape[2]
    if "NN" not in name and name.startswith("ConvNet") and "BN" not in name and "LN" not in name and "GN" not in name:
        for maps in at["norm"]:  # instance norm: every image's channels have mean 0 and variance 1
            torch.testing.assert_close(maps.mean((2, 3)), torch.zeros(maps.shape[:2]), atol=1e-4, rtol=0)
    assert network.features_at(images, ())[1] == {}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ConvNetAS", nn.Sigmoid),
        ("ConvNetAR", nn.ReLU),
        ("ConvNetAL", nn.LeakyReLU),
        ("ConvNetASwish", nn.SiLU),
        ("ConvNetASwishBN", nn.SiLU),
        ("ConvNetLN", nn.LayerNorm),
        ("ConvNetMP", nn.MaxPool2d),
    ],
)
def test_variants_of_the_convnet_have_their_layer(name, kind):
    assert any(isinstance(module, kind) for module in build_network(name, 2).modules())


def test_a_network_of_one_s_own_that_taps_activations_only_cannot_be_read_elsewhere():
    class Own(Network):
        def __init__(self):
            super().__init__(2, 3, 8)
            self.conv, self.classifier = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def _embed(self, images, tap):
            maps = self.conv(images).relu()
            tap(maps)
            return maps.mean((2, 3))

    images = torch.randn(2, 3, 8, 8)
    assert len(Own().features(images)[1]) == 1
    with pytest.raises(ValueError, match="Own gives different numbers of maps at tap points: .*'conv': 0"):
        Own().features_at(images, ("act", "conv"))


def test_variants_by_norm_and_pooling_are_the_convnet_with_that_option():
    options = {"NN": {"norm": "none"}, "IN": {}, "GN": {"norm": "group"}, "AP": {}, "NP": {"pooling": "none"}}
    for suffix, chosen in options.items():
        network, expected = build_network(f"ConvNet{suffix}", 2, width=8), ConvNet(2, width=8, **chosen)
        assert str(network) == str(expected)


@pytest.mark.parametrize("name", ["ResNet18_AP", "resnet18ap", "RESNET-18-AP", "ResNet18 AP"])
def test_case_hyphens_and_underscores_do_not_matter(name):
    network = build_network(name, 5, 1, 16)
    assert isinstance(network, ResNet18) and network.embedding_size == 2048


def test_options_beside_the_name_s_own_reach_the_network():
    assert build_network("ConvNetBN", 2, width=8, depth=1).width == 8
    assert build_network("ConvNetBN", 2, width=8, norm="batch").norm == "batch"
    assert len(build_network("ResNet18BN", 2, tapped_stages=3).stages) == 4


def test_the_pools_across_architectures_are_in_the_table_and_of_one_kind_of_norm():
    assert {name for pool in table.POOLS.values() for name in pool} <= set(network_names())
    for kind, names in table.POOLS.items():
        for name in names:
            has = any(isinstance(module, nn.BatchNorm2d) for module in build_network(name, 2).modules())
            assert has == (kind == "batch")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnt18", {}, r"unknown network 'resnt18'; did you mean 'ResNet18'\? Known: .*AlexNetBN"),
        ("transformer", {}, r"unknown network 'transformer'\. Known: .*VGG11BN"),
        ("", {}, "unknown network ''"),
        ("AlexNet", {"width": 64}, r"AlexNet has no option 'width' \(got 64\); it has norm"),
        ("MLP", {"norm": "batch"}, "MLP has no option 'norm' .*; it has no options"),
        ("ConvNet", {"widht": 64}, "ConvNet has no option 'widht' .*; it has width, depth, norm, activation, pooling"),
        ("ConvNetBN", {"norm": "none"}, "ConvNetBN stands for norm 'batch', got 'none'; leave norm out"),
        ("ConvNetD4", {"depth": None}, "ConvNetD4 stands for depth 4, got None"),
        ("ResNet18_AP", {"average_pooling": False}, "stands for average_pooling True, got False"),
        ("VGG11", {"norm": "layer"}, "norm of VGG11 must be one of instance, batch"),
        ("ConvNetGN", {"width": 6}, "width must be a multiple of 4"),
        ("AlexNet", {"image_size": 4}, "AlexNet needs images of at least 8 pixels, got 4"),
    ],
)
def test_a_wrong_name_or_option_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_network(name, 2, **options)


class Mean(Network):
    """The mean colour."""

    def __init__(self, num_classes, channels=3, image_size=32, scale=1.0):
        super().__init__(num_classes, channels, image_size)
        self.scale, self.embedding_size = scale, channels
        self.classifier = nn.Linear(channels, num_classes)

    def _embed(self, images, tap):
        tap(images.relu())
        return self.scale * images.mean((2, 3))


@pytest.fixture
def a_table_of_its_own(monkeypatch):
    monkeypatch.setattr(table, "NETWORKS", dict(table.NETWORKS))


def test_a_network_of_one_s_own_is_found_by_its_names(a_table_of_its_own):
    assert register_network("Mean_Colour")(Mean) is Mean
    register_network("MeanColour2", scale=2.0)(Mean)
    assert network_names()[-2:] == ["Mean_Colour", "MeanColour2"]
    images = torch.randn(2, 3, 4, 4)
    one, two = (build_network(name, 3).embedding(images) for name in ("meancolour", "MeanColour2"))
    assert torch.equal(two, 2 * one)
    assert isinstance(NetworkSettings(network="mean-colour").build(3, 3, 4), Mean)


def test_a_name_that_is_taken_and_an_option_that_is_not_there_are_refused(a_table_of_its_own):
    for taken in ("ConvNet", "conv-net", "resnet18_bn"):
        with pytest.raises(ValueError, match=f"network '{taken}' is registered already"):
            register_network(taken)(Mean)
    with pytest.raises(ValueError, match="Mean has no option 'width'"):
        register_network("Mean", width=3)(Mean)
    assert "Mean" not in network_names()


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("name", "channels", "image_size", "count"),
    [
        ("ResNet18", 3, 32, 11_173_962),
        ("ResNet18BN", 3, 32, 11_173_962),
        ("ResNet18", 3, 64, 11_173_962 + 10 * (2048 - 512)),
        ("ResNet18", 3, 128, 11_173_962 + 10 * (8192 - 512)),
        ("ResNet18", 1, 28, 11_173_962 - 2 * 64 * 9),
        ("ResNet18_AP", 3, 32, 11_173_962 + 10 * (512 * 16 - 512)),
        ("ResNet18BN_AP", 3, 32, 11_173_962 + 10 * (512 * 16 - 512)),
        ("ResNet18_AP", 1, 28, 11_173_962 - 2 * 64 * 9 + 10 * (512 * 9 - 512)),
        ("VGG11", 3, 32, 9_231_114),
        ("VGG11BN", 3, 32, 9_231_114),
        ("VGG11", 3, 64, 9_231_114 + 10 * (2048 - 512)),
        ("VGG11", 3, 128, 9_231_114 + 10 * (8192 - 512)),
        ("VGG11", 1, 28, 9_231_114 - 2 * 64 * 9),
        ("AlexNet", 3, 32, 1_872_202),
        ("AlexNetBN", 3, 32, 1_872_202 + 2 * (128 + 192 + 256 + 192 + 192)),
        ("AlexNet", 3, 64, 1_872_202 + 10 * 192 * (64 - 16)),
        ("AlexNet", 1, 28, 1_872_202 - 2 * 128 * 25),
        ("AlexNet", 1, 8, 1_872_202 - 2 * 128 * 25 - 10 * 192 * 15),
        ("LeNet", 3, 32, 62_006),
        ("LeNet", 1, 28, 61_706),
        ("MLP", 3, 32, 411_146),
        ("MLP", 1, 28, 118_282),
        ("MLP", 1, 8, 118_282 - 128 * (784 - 64)),
        ("AlexCifarNet", 3, 32, 1_756_426),
        ("ConvNet", 3, 32, 320_010),
        ("ConvNet", 3, 64, 320_010 + 128 * 128 * 9 + 3 * 128),
        ("ConvNet", 3, 128, 320_010 + 2 * (128 * 128 * 9 + 3 * 128)),
        ("ConvNet", 1, 28, 320_010 - 2 * 128 * 9),
        ("ConvNet", 1, 8, 320_010 - 2 * 128 * 9 - 10 * 128 * 15),
    ],
)
def test_parameter_counts_are_the_known_ones(name, channels, image_size, count):
    with torch.device("meta"):
        assert parameter_count(build_network(name, 10, channels, image_size)) == count


@pytest.mark.parametrize(
    ("name", "image_size", "embedding", "taps"),
    [
        ("AlexNet", 32, 3072, [(128, 16), (192, 8)]),
        ("AlexNet", 28, 3072, [(128, 16), (192, 8)]),
        ("VGG11", 32, 512, [(64, 32), (128, 16), (256, 8), (256, 8), (512, 4), (512, 4), (512, 2), (512, 2)]),
        ("VGG11", 28, 512, [(64, 32), (128, 16), (256, 8), (256, 8), (512, 4), (512, 4), (512, 2), (512, 2)]),
        ("VGG11", 64, 2048, [(64, 64), (128, 32), (256, 16), (256, 16), (512, 8), (512, 8), (512, 4), (512, 4)]),
        ("ResNet18", 32, 512, [(64, 32), (64, 32), (128, 16)]),
        ("ResNet18", 64, 2048, [(64, 64), (64, 64), (128, 32)]),
        ("ResNet18BN_AP", 32, 8192, [(64, 32), (64, 32), (128, 16)]),
        ("LeNet", 32, 84, [(6, 28), (16, 10)]),
        ("LeNet", 28, 84, [(6, 28), (16, 10)]),
        ("AlexCifarNet", 32, 192, [(64, 32), (64, 16)]),
        ("AlexCifarNet", 28, 192, [(64, 32), (64, 16)]),
        ("MLP", 28, 128, [(128, 1), (128, 1)]),
        ("ConvNet", 32, 2048, [(128, 32), (128, 16), (128, 8)]),
        ("ConvNet", 28, 2048, [(128, 32), (128, 16), (128, 8)]),
    ],
)
def test_taps_and_embeddings_have_the_shapes_of_the_literature(name, image_size, embedding, taps):
    with torch.device("meta"):
        found, maps = build_network(name, 10, image_size=image_size).features(torch.empty(1, 3, image_size, image_size))
    assert found.shape == (1, embedding)
    assert [tuple(tap.shape[1:]) for tap in maps] == [(width, size, size) for width, size in taps]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("AlexNet", {"image_size": 7}, "AlexNet needs images of at least 8 pixels, got 7"),
        ("VGG11", {"image_size": 31}, "VGG11 needs images of at least 32 pixels, or of 28, .*got 31"),
        ("VGG11BN", {"image_size": 8}, "VGG11 needs images of at least 32 pixels.*got 8"),
        ("ResNet18", {"image_size": 24}, "ResNet18 with instance norm needs images of at least 25 pixels, got 24"),
        ("ResNet18_AP", {"image_size": 15}, "instance norm and average pooling needs .* at least 16 pixels, got 15"),
        ("ResNet18BN_AP", {"image_size": 7}, "batch norm and average pooling needs .* at least 8 pixels, got 7"),
        ("LeNet", {"image_size": 15}, "LeNet needs images of at least 16 pixels, got 15"),
        ("MLP", {"image_size": 0}, "image_size must be at least 1, got 0"),
        ("MLP", {"channels": 0}, "channels must be at least 1, got 0"),
        ("AlexCifarNet", {"classes": 0}, "num_classes must be at least 1, got 0"),
        ("AlexNet", {"norm": "instance"}, "norm of AlexNet must be one of none, batch, got 'instance'"),
        ("VGG11", {"norm": "none"}, "norm of VGG11 must be one of instance, batch, got 'none'"),
        ("ResNet18", {"norm": "layer"}, "norm of ResNet18 must be one of instance, batch, got 'layer'"),
        ("ResNet18", {"tapped_stages": 5}, r"tapped_stages must be within 0\.\.4, got 5"),
    ],
)
def test_a_network_that_cannot_work_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_network(name, **{"classes": 2, **options})


SMALLEST = {"MLP": 1, "AlexCifarNet": 1, "LeNet": 16, "AlexNet": 8, "AlexNetBN": 8, "VGG11": 32, "VGG11BN": 32}
SMALLEST |= {"ResNet18": 25, "ResNet18BN": 25, "ResNet18_AP": 16, "ResNet18BN_AP": 8, "ConvNet": 8}


@pytest.mark.parametrize(("name", "size"), SMALLEST.items())
def test_the_smallest_image_that_is_allowed_works(name, size):
    """One pixel less is refused, but for the networks that take any size; and no image is mapped to a constant."""
    network = build_network(name, 3, image_size=size).double()
    logits = network(torch.randn(4, 3, size, size, dtype=torch.float64))
    assert logits.std(0).min() > 1e-6
    if size > 1:
        with pytest.raises(ValueError, match=f"got {size - 1}"):
            build_network(name, 3, image_size=size - 1)


# ---------------------------------------------------------------- images that are not square


@pytest.mark.parametrize("name", network_names())
@pytest.mark.parametrize(("channels", "sides"), [(5, (39, 51))])
def test_every_network_takes_images_that_are_not_square(name, channels, sides):
    network, turned = build_network(name, 3, channels, sides), build_network(name, 3, channels, sides[::-1])
    assert network.sides == sides == network.image_size
    images = torch.randn(2, channels, *sides, generator=torch.Generator().manual_seed(0))
    embedding, taps = network.eval().features(images)
    assert embedding.shape == (2, network.embedding_size) and network(images).shape == (2, 3)
    others = turned.eval().features(images.transpose(2, 3))[1]
    assert [tuple(tap.shape) for tap in taps] == [tuple(tap.transpose(2, 3).shape) for tap in others]


@pytest.mark.parametrize("name", ["AlexNet", "VGG11", "LeNet", "ResNet18", "ConvNet"])
def test_the_shorter_side_decides_what_is_too_small(name):
    options = {"depth": 3} if name == "ConvNet" else {}
    with pytest.raises(ValueError, match=r"got 6 x 40 \(height x width\)"):
        build_network(name, 3, image_size=(6, 40), **options)
    with pytest.raises(ValueError, match=r"image_size must be at least 1, got \(0, 40\)"):
        build_network(name, 3, image_size=(0, 40))


def test_a_pair_of_equal_sides_is_one_number():
    assert build_network("ConvNet", 3, 1, (28, 28)).image_size == 28
    one, two = (build_network("ConvNet", 3, 1, size) for size in (28, (28, 28)))
    assert [p.shape for p in one.parameters()] == [p.shape for p in two.parameters()]
