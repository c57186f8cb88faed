"""Several tables asked for at once: each measures what it prints of what is asked for, and says what it leaves out.

And which data a name means.
"""

import pytest
from own_helpers import own_recipe

from clreplay.benchmark.cells import select
from clreplay.benchmark.plan import plan
from clreplay.benchmark.published import NOTES, TITLES
from clreplay.benchmark.request import CellFilter, TableRequest, split_request
from clreplay.data import DATASETS


def taken(tables=TITLES, protocol="common", **asked):
    """What each table takes, as numbers of cells, and what is said."""
    asked = [CellFilter(table, **asked) for table in tables]
    found, said = split_request(asked, protocol, tuple(DATASETS))
    cells = {one.table: plan(TableRequest(**vars(one), architectures=1 if one.table == "7" else None)) for one in found}
    return {table: len(planned) for table, planned in cells.items()}, said


def test_each_of_several_tables_measures_the_methods_that_it_prints():
    counts, said = taken(methods=("whole",))
    assert counts == {"1": 4, "2": 3, "3": 2, "5": 3, "7": 4}
    assert said == [f"table {table} has no whole: skipped" for table in ("4", "6", "8", "fig3a", "fig5", "fig6")]
    counts, said = taken(("4", "5", "6"), methods=("ddm", "WholeDataset"))
    assert counts == {"4": 16, "5": 3}
    assert said == [
        "table 4 has no WholeDataset: left out there",
        "table 5 has no ddm: left out there",
        "table 6 has no ddm, WholeDataset: skipped",
    ]


def test_each_of_several_tables_measures_the_data_that_it_prints():
    counts, said = taken(datasets=("CIFAR-10",), methods=("dm", "ddm"))
    assert "3" not in counts and len(counts) == len(TITLES) - 1
    assert "table 3 has no CIFAR-10: skipped" in said
    counts, said = taken(("1", "3"), datasets=("ImageNette",))
    assert counts == {"3": 7} and said == ["table 1 has no ImageNette: skipped"]
    assert taken(("1", "4"), datasets=("cifar10", "cifar100"))[0] == {"1": 62, "4": 28}


def test_a_table_asked_for_alone_measures_other_data_and_memories_in_its_layout():
    asked = [CellFilter("3", ("cifar10",), ("ddm", "herding"))]
    assert split_request(asked, "common", tuple(DATASETS)) == (asked, [])
    assert {(cell.dataset, cell.published) for cell in select("3", ["cifar10"], known_datasets=["cifar10"])} == {
        ("cifar10", "")
    }


def test_data_and_memories_of_one_s_own_go_to_every_table_that_suits_them(tmp_path):
    path = str(own_recipe(tmp_path, yaml="label: Noisy\n"))
    counts, said = taken(("1", "2", "3"), datasets=("digits", "folder:/x"), methods=("dm", path))
    assert set(counts) == {"1", "2", "3"} and said == []
    counts, said = taken(("1", "6"), methods=("dm", path), datasets=("cifar10",))
    assert counts == {"1": 6, "6": 2} and said == [f"table 6 has no {path}: left out there"]


def test_networks_and_protocols_leave_tables_out_too():
    counts, said = taken(test_networks=("VGG11",))
    assert counts == {"4": 7} and len(said) == len(TITLES) - 1
    counts, said = taken(("7", "8"), protocol="idc")
    assert counts == {"8": 5} and said == ["table 7 has a protocol of its own, not idc: skipped"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"datasets": ("cifar100",)},
            "none of the tables 4, 6 has any of what is requested, .*: table 4 has no cifar100",
        ),
        ({"datasets": ("cifar1000",)}, "--dataset must be among cifar10, .*got 'cifar1000'"),
        ({"methods": ("ddmm",)}, "unknown memory 'ddmm'; did you mean 'ddm'"),
        ({"test_networks": ("vgg16",)}, "--test-network must be among ConvNet, .*got 'vgg16'"),
    ],
)
def test_a_name_that_no_table_has_is_an_error(asked, message):
    with pytest.raises(ValueError, match=message):
        taken(("4", "6"), **asked)


# ---------------------------------------------------------------- names of data


@pytest.mark.parametrize("spelling", ["ImageNette", "IMAGENETTE", "Image-Nette", "imagenette1k", "ImageNette1K"])
def test_the_paper_s_own_name_of_a_data_set_takes_the_paper_s_data(spelling):
    (cell,) = select("3", [spelling], [10], ["ddm"], known_datasets=tuple(DATASETS))
    assert (cell.dataset, cell.published) == ("imagenette1k", "58.1")


def test_the_other_release_of_the_same_classes_is_had_by_its_exact_name():
    cells = select("3", ["imagenette", "imagewoof", "ImageWoof"], [10], ["ddm"], known_datasets=tuple(DATASETS))
    found = [(cell.dataset, bool(cell.published)) for cell in cells]
    assert found == [("imagenette", False), ("imagewoof", False), ("imagewoof1k", True)]
    (note,) = NOTES["3"]
    assert "--dataset imagenette imagewoof, in small letters, takes fast.ai's release" in note


@pytest.mark.parametrize(
    ("table", "share", "message"),
    [("1", 1.0, "the held-out share must be within"), ("7", 0.1, "--held-out: table 7 ranks networks by")],
)
def test_a_share_that_cannot_be_held_out_is_an_error(table, share, message):
    with pytest.raises(ValueError, match=message):
        TableRequest(table, held_out=share)
