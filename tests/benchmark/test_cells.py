"""Every number of the paper's tables has a cell, every cell a command, and equal work is shared."""

import csv
from collections import Counter
from importlib.resources import files

import pytest
from own_helpers import own_recipe

from clreplay.benchmark.cells import WHOLE, published_cells, select
from clreplay.benchmark.cli import parser
from clreplay.benchmark.plan import plan
from clreplay.benchmark.published import NOTES, TITLES, published_rows
from clreplay.benchmark.request import TableRequest
from clreplay.recipes.recipe import RecipeError

CELLS_OF = {
    "1": 112, "2": 30, "3": 14, "4": 28, "5": 57, "6": 22, "7": 20, "8": 5, "fig3a": 6, "fig5": 14, "fig6": 12,
}  # fmt: skip


def rows_of(table):
    name = f"table{table}.csv" if table.isdigit() else f"{table}.csv"
    with (files("clreplay.benchmark") / "published" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def only(table, **wanted):
    found = [c for c in published_cells(table) if all(getattr(c, name) == value for name, value in wanted.items())]
    assert len(found) == 1, found
    return found[0]


# ---------------------------------------------------------------- what is shipped


def test_every_table_has_a_title_and_every_note_a_table():
    assert list(CELLS_OF) == list(TITLES) and set(NOTES) <= set(TITLES)


@pytest.mark.parametrize("table", TITLES)
def test_a_table_expands_to_exactly_its_published_rows(table):
    rows, all_cells = rows_of(table), published_cells(table)
    cells = [cell for cell in all_cells if cell.recipe != "ddm"]
    assert len(all_cells) == len(cells) + (sum(row["method"] == "DDM" for row in rows) if table == "1" else 0)
    assert len(cells) == len(rows) == CELLS_OF[table]
    assert len(set(all_cells)) == len(all_cells)
    for row, cell in zip(rows, cells):
        whole = row["method"] == "WholeDataset"
        assert (cell.method, cell.published) == (row["method"], row.get("mean", row.get("value")))
        assert cell.published_spread == row.get("std", "")
        assert (cell.images_per_class is None) == whole == (cell.recipe == WHOLE)
        assert whole or "ipc" not in row or str(cell.images_per_class) == row["ipc"]
        assert cell.source.startswith("DDM (WACV 2025), ")
        assert bool(cell.published) != ("drawn only" in cell.source) or table == "1"  # where the paper has dashes


@pytest.mark.parametrize(
    ("table", "wanted", "published"),
    [
        ("1", {"dataset": "cifar10", "images_per_class": 10, "recipe": "ddm-paper"}, ("53.0", "0.2")),
        ("1", {"dataset": "cifar100", "images_per_class": 50, "recipe": "dc"}, ("30.6", "0.6")),
        ("1", {"dataset": "imagenet", "images_per_class": 50, "recipe": "ddm-paper"}, ("15.6", "0.8")),
        ("1", {"dataset": "cifar10", "images_per_class": 1, "recipe": "dd"}, ("", "")),
        ("1", {"dataset": "tinyimagenet", "recipe": WHOLE}, ("37.6", "0.4")),
        ("2", {"dataset": "cifar10", "recipe": WHOLE}, ("93.07", "0.1")),
        ("3", {"dataset": "imagewoof1k", "images_per_class": 10, "recipe": "dm"}, ("31.2", "0.6")),
        ("4", {"recipe": "ddm-paper", "train_network": "VGG11", "test_network": "AlexNet"}, ("37.4", "0.3")),
        ("5", {"dataset": "cifar100", "images_per_class": 10, "recipe": "idm+sm"}, ("47.2", "0.3")),
        ("6", {"images_per_class": 50, "variant": (("k / IPC", "0.2"),)}, ("63.96", "")),
        ("7", {"recipe": "dsa", "metric": "spearman_correlation"}, ("0.68", "")),
        ("8", {"variant": (("blocks", "3"),)}, ("51.91", "0.56")),
        ("fig3a", {"method": "DM+MM+CM"}, ("52.29", "0.42")),
        ("fig5", {"dataset": "cifar100", "variant": (("alpha", "1"),)}, ("33.9", "0.2")),
        ("fig6", {"variant": (("beta", "10"), ("lambda", "5000"))}, ("53.0", "0.2")),
    ],
)
def test_some_numbers_as_the_paper_prints_them(table, wanted, published):
    cell = only(table, **wanted)
    assert (cell.published, cell.published_spread) == published


def test_what_cells_stand_for():
    assert only("8", variant=(("blocks", "2"),)).overrides == (("style_layers", (1,)),)
    assert only("8", variant=(("blocks", "1+2+3"),)).overrides == ()  # all blocks is the default
    assert only("6", images_per_class=10, variant=(("k / IPC", "0.3"),)).overrides == (("neighbours", 0.3),)
    for share in ("0.9", "1"):  # nine neighbours both: one set
        assert only("6", images_per_class=10, variant=(("k / IPC", share),)).overrides == (("neighbours", 0.9),)
    assert only("6", images_per_class=10, variant=(("k / IPC", "0.0"),)).recipe == "dm"
    assert only("fig6", variant=(("beta", "20"), ("lambda", "5000"))).overrides == (
        ("diversity_weight", 20.0),
        ("style_weight", 5000.0),
    )
    dd = only("1", dataset="cifar10", images_per_class=10, recipe="dd")
    assert (dd.train_network, dd.test_network) == ("AlexCifarNet", "AlexCifarNet")
    assert {cell.images_per_class for cell in published_cells("7")} == {50, None}


# ---------------------------------------------------------------- plans and commands


@pytest.mark.parametrize("table", [table for table in TITLES if table != "7"])
def test_every_cell_is_planned_with_the_paper_s_settings(table):
    planned = plan(TableRequest(table))
    assert [one.cell for one in planned] == list(published_cells(table))
    for one in planned:
        assert one.problem == "" and one.reduced == ()
        networks = [draw for trained in one.trained for draw in trained.draws]
        assert len(set(networks)) == len(networks) == (5 if one.cell.recipe == WHOLE else 100)
        assert len(one.specs) == (0 if one.cell.recipe == WHOLE else 5)


@pytest.mark.parametrize("table", TITLES)
def test_every_cell_can_be_asked_for_alone(table):
    """The flags name data set, budget, method and networks; what is left beside the cell are its variants."""
    for cell in published_cells(table):
        count = [] if cell.images_per_class is None else ["--ipc", str(cell.images_per_class)]
        networks = ["--train-network", cell.train_network, "--test-network", cell.test_network]
        flags = ["--table", table, "--dataset", cell.dataset, "--method", cell.recipe, *count, *networks]
        given = parser().parse_args(flags)
        found = select(
            given.table[0], given.dataset, given.ipc, given.method, given.train_network, given.test_network, ()
        )
        assert cell in found
        beside = {(c.dataset, c.images_per_class, c.recipe, c.train_network, c.test_network) for c in found}
        assert len(beside) == 1


def test_selecting_keeps_the_order_of_the_table_and_passes_whole_data():
    chosen = select("1", ["CIFAR-10"], [10], ["ddm", "DM", "whole"])
    assert [cell.method for cell in chosen] == ["DM", "DDM", "WholeDataset"]
    assert [cell.recipe for cell in chosen] == ["dm", "ddm", WHOLE]
    assert [cell.method for cell in select("1", ["cifar10"], [10])][-1] == "WholeDataset"
    assert Counter(cell.dataset for cell in select("1", ["ImageNet-1K"])) == {"imagenet": 31}


def test_table_1_has_ddm_as_the_paper_reads_it_and_as_this_library_does_and_the_others_the_paper_s():
    first, second = [cell for cell in select("1", ["cifar10"], [10]) if cell.method == "DDM"]
    assert (first.recipe, second.recipe) == ("ddm-paper", "ddm") and first.published == second.published == "53.0"
    assert (first.called, second.called) == ("DDM (ddm-paper)", "DDM")
    assert [cell.recipe for cell in select("1", ["cifar10"], [10], ["ddm"])] == ["ddm"]
    assert [cell.recipe for cell in select("1", ["cifar10"], [10], ["ddm-paper"])] == ["ddm-paper"]
    for table in ("2", "3", "4", "7", "fig3a", "fig5", "fig6"):
        cells = [cell for cell in published_cells(table) if cell.method == "DDM"]
        assert {cell.recipe for cell in cells} == {"ddm-paper"}, table
        assert select(table, methods=["ddm"]) == cells  # by the paper's name


def test_other_data_and_budgets_get_the_layout_without_numbers():
    chosen = select("1", ["digits"], [20], known_datasets=["digits"])
    assert len(chosen) == 11 and {cell.dataset for cell in chosen} == {"digits"}
    assert {cell.images_per_class for cell in chosen} == {20, None}
    assert {cell.published for cell in chosen} == {""} and {cell.source for cell in chosen} == {"not in the paper"}
    assert select("5", ["folder:/somewhere"], [1], ["dm"])[0].dataset == "folder:/somewhere"


def test_a_memory_of_one_s_own_stands_in_a_table(tmp_path):
    path = str(own_recipe(tmp_path, yaml="label: Noisy\n"))
    chosen = select("1", ["cifar10"], [10], ["dm", path])
    assert [(cell.method, cell.recipe, cell.published) for cell in chosen] == [
        ("DM", "dm", "48.9"),
        ("Noisy", path, ""),
    ]
    with pytest.raises(ValueError, match="--method of table 6 must be among dm, dm\\+icd"):
        select("6", methods=[path])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": "9"}, "table must be one of 1, 2"),
        ({"datasets": ["cifar1000"]}, "--dataset must be among cifar10, .*got 'cifar1000'"),
        ({"images_per_class": [0]}, "--ipc must be at least 1, got 0"),
        ({"methods": ["ddmm"]}, "unknown memory 'ddmm'; did you mean 'ddm'"),
        ({"table": "4", "test_networks": ["vgg16"]}, "--test-network must be among ConvNet, .*got 'vgg16'"),
        ({"table": "4", "methods": ["dm", "Whole"]}, "--method Whole: table 4 prints no whole row; choose .*dsa, dm"),
        ({"table": "8", "methods": ["whole"]}, "--method whole: table 8 prints no whole row; choose among dm, dm.sm"),
    ],
)
def test_what_is_not_there_is_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        select(**{"table": "1", **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "fast"}, "preset must be one of paper, cpu, smoke"),
        ({"protocol": "best"}, "protocol must be one of common, authors, idc"),
        ({"sets": 0}, "sets must be at least 1, got 0"),
        ({"store": "int8"}, "store must be one of uint8, float32, 4bit, .*, got 'int8'"),
        ({"store": "avif:auto"}, "store must say its quality or leave it out, got 'avif:auto': a table has no budget"),
        ({"store": "png:30"}, "png.*takes no quality"),
        ({"architectures": 5}, "architectures belongs to table 7"),
        ({"table": "7", "protocol": "idc"}, "protocol must be common for table 7"),
        ({"overrides": {"train.network": "vgg11"}}, "--set train.network: a table names its networks"),
        ({"overrides": {"iteration": 5}}, "no chosen memory has a setting 'iteration', did you mean 'iterations'"),
        ({"overrides": {"train.lr": -1.0}}, "lr must be positive, got -1"),
        ({"table": "6", "overrides": {"neighbours": 0.5}}, "--set neighbours: it is what the cells of table 6 differ"),
        ({"table": "7", "architectures": 721}, "architectures must be at most 720, got 721"),
        ({"table": "7", "overrides": {"train.depth": 2}}, "--set train.depth: it is what the cells of table 7 differ"),
        ({"table": "7", "overrides": {"width": 32}}, "--set width: it is what the cells of table 7 differ"),
    ],
)
def test_a_wrong_grid_is_told_before_any_work(arguments, message):
    with pytest.raises((ValueError, RecipeError), match=message):
        plan(TableRequest(**{"table": "1", **arguments}))


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"overrides": {"ddm.precision": "bfloat16"}}, "DDM: precision bfloat16 (paper tf32)"),
        ({"overrides": {"precision": "auto"}}, "DDM: precision auto (paper tf32)"),
        ({"overrides": {"train.lr": 0.02}}, "training (ConvNet of width 128): lr 0.02 (paper 0.01)"),
        ({"sets": 4}, "sets x networks: 4 x 20 (paper 5 x 20)"),
        ({"methods": ("whole",), "networks": 1}, "networks on all real images: 1 (paper preset 5)"),
    ],
)
def test_what_differs_from_the_paper_is_named(changes, phrase):
    grid = {"table": "1", "datasets": ("cifar10",), "images_per_class": (10,), "methods": ("ddm",)}
    (one,) = plan(TableRequest(**grid))
    assert one.reduced == ()
    (one,) = plan(TableRequest(**{**grid, **changes}))
    assert one.reduced == (phrase,)


def test_how_the_same_is_computed_is_no_difference():
    options = {"kernels": "eager", "layout": "contiguous", "classes_at_once": 2}
    assert {one.reduced for one in plan(TableRequest("1", ("cifar10",), (10,), ("ddm",), overrides=options))} == {()}


def test_wherever_all_real_images_are_trained_on_the_length_is_told():
    (whole,) = plan(TableRequest("1", ("cifar10",), methods=("whole",)))
    assert whole.notes == (
        "On all real images 5 networks are trained for 200 epochs (201, as DM's authors count); "
        "the papers do not say how many, nor for how long.",
    )
    searched = plan(TableRequest("7", methods=("dm",), preset="cpu"))
    assert all("60 updates on condensed images and 400 updates on all real ones" in one.notes[0] for one in searched)


def test_what_cannot_be_had_fails_with_its_reason_and_the_rest_goes_on(monkeypatch):
    from clreplay.benchmark import plan as planning

    def without_cafe(name):
        if name == "cafe":
            raise RecipeError("unknown memory 'cafe'")
        return load(name)

    load = planning.load_recipe
    monkeypatch.setattr(planning, "load_recipe", without_cafe)
    monkeypatch.setattr(planning, "DATASETS", {"cifar10": None})
    by_problem = Counter(one.problem.partition(":")[0][:28] for one in plan(TableRequest("1")))
    assert by_problem["no memory of that name"] == 12
    assert by_problem["clreplay does not load cifar"] == by_problem["clreplay does not load tinyi"] == 28
    assert by_problem[""] == 28


# ---------------------------------------------------------------- shared work


def keys(table, sets=2, networks=2, **grid):
    """By cell: keys of its sets and of its networks, as they are with nothing left to measure."""
    options = {"kernels": "eager", "layout": "contiguous", "parallel": "operators"}
    grid = TableRequest(table, sets=sets, networks=networks, overrides=options, datasets=("cifar10",), **grid)
    found = {}
    for one in plan(grid):
        networks = {key for trained in one.trained for key in trained.unit.keys}
        found[one.cell] = ({spec.key for spec in one.specs}, networks)
    return found


def of(found, **wanted):
    (hit,) = [v for cell, v in found.items() if all(getattr(cell, name) == value for name, value in wanted.items())]
    return hit


def test_tables_share_the_sets_and_networks_that_are_the_same():
    ipc = {"images_per_class": (10,)}
    main = keys("1", methods=("dm", "ddm-paper"), **ipc)
    across = keys("4", methods=("ddm",))
    hosts = keys("5", methods=("dm+sm",), **ipc)
    blocks = keys("8")
    ddm = of(main, recipe="ddm-paper")
    assert of(across, train_network="ConvNet", test_network="ConvNet") == ddm
    other = of(across, train_network="ConvNet", test_network="VGG11")
    assert other[0] == ddm[0] and not other[1] & ddm[1]
    assert not of(across, train_network="VGG11", test_network="ConvNet")[0] & ddm[0]
    assert of(blocks, variant=(("blocks", "1+2+3"),)) == of(hosts, recipe="dm+sm")
    assert of(blocks, variant=(("blocks", "none"),)) == of(main, recipe="dm")
    assert of(keys("fig6"), variant=(("beta", "0"), ("lambda", "5000"))) == of(hosts, recipe="dm+sm")
    assert of(keys("fig5"), variant=(("alpha", "1"),)) == ddm


def test_every_setting_that_decides_the_outcome_is_part_of_the_key():
    def of_ddm(**grid):
        grid = {"table": "1", "methods": ("ddm",), "images_per_class": (10,), "sets": 1, "networks": 1, **grid}
        table, overrides = grid.pop("table"), {"kernels": "eager", "layout": "contiguous", "parallel": "operators"}
        asked = TableRequest(table, datasets=("cifar10",), overrides={**overrides, **grid.pop("overrides", {})}, **grid)
        (one,) = plan(asked)
        (trained,) = one.trained
        return trained.spec.key, trained.unit.keys[0]

    first = of_ddm()
    assert of_ddm() == first
    for change in ({"overrides": {"iterations": 7}}, {"seed": 1}, {"preset": "cpu"}, {"images_per_class": (1,)}):
        sets, networks = of_ddm(**change)
        assert sets != first[0] and networks != first[1], change
    for change in ({"overrides": {"train.lr": 0.5}}, {"protocol": "idc"}, {"store": "uint8"}):
        sets, networks = of_ddm(**change)
        assert sets == first[0] and networks != first[1], change


def test_the_version_of_the_arithmetic_is_part_of_the_key(monkeypatch):
    from clreplay.benchmark import sets as specs
    from clreplay.benchmark import units

    grid = TableRequest("1", ("cifar10",), (10,), ("random", "whole"), sets=1, networks=1)

    def found():
        return [trained.unit.keys[0] for one in plan(grid) for trained in one.trained]

    before = found()
    monkeypatch.setattr(units, "TRAINING_ARITHMETIC", 99)
    trained_otherwise = found()
    monkeypatch.undo()
    monkeypatch.setattr(specs, "ARITHMETIC", 99)
    condensed_otherwise = found()
    assert not set(before) & set(trained_otherwise)
    assert condensed_otherwise[0] != before[0] and condensed_otherwise[1] == before[1]


def test_reductions_are_named():
    (cpu,) = plan(TableRequest("1", ("cifar10",), (10,), ("ddm",), preset="cpu", networks=2))
    told = "; ".join(cpu.reduced)
    for phrase in ("sets x networks: 1 x 2 (paper 5 x 20)", "iterations 120 (paper 20000)", "width 32 (paper 128)"):
        assert phrase in told
    assert "300 updates (paper 1000 epochs)" in told and "kernels" not in told
    (whole,) = plan(TableRequest("1", ("cifar10",), (10,), ("whole",), preset="cpu"))
    assert "2000 updates (paper 200 epochs)" in "; ".join(whole.reduced)


def test_the_numbers_of_a_row_are_text_as_printed():
    assert published_rows("6")[2]["mean"] == "49.90"
