"""``clreplay evaluate``: what networks trained on a memory get right."""

from __future__ import annotations

import json
from typing import Any

import click

from clreplay.command.base import SettingsCommand, common_options, dataset_words, works


@click.command("evaluate", cls=SettingsCommand)
@click.argument("memory", metavar="MEMORY", type=click.Path())
@click.option(
    "--dataset",
    metavar="NAME",
    shell_complete=dataset_words,
    help="test images: a data set's name, or a folder with train/ and test/ (PATH@64 resizes it); "
    "default: the one that the memory was made of",
)
@click.option(
    "--network",
    default="convnet",
    metavar="NAME",
    help="resnet18, vgg11, ..., torchvision:resnet18, or your own FILE.py:FUNCTION (default: convnet)",
)
@click.option("--networks", type=int, default=5, metavar="N", help="how many are trained (default: 5)")
@click.option(
    "--protocol",
    type=click.Choice(["common", "idc"]),
    default="common",
    help="how: as DM does, or as IDC does (CutMix) (default: common)",
)
@common_options("the learner, such as epochs=300")
@click.option("--json", "as_json", is_flag=True, help="print the outcome as JSON and nothing else")
@works(goes_on=False)
def command(**options: Any) -> int:
    """Train networks from scratch on MEMORY and test them.

    MEMORY is a memory's file, a run's folder with one memory in it, or pictures: a folder with one folder a class, or
    a .npz or .parquet file with images and labels.

    It is the learner of the tables and of the class-incremental runs: the accuracy is that after the last epoch,
    on the test images of all classes in memory.

    \b
      clreplay evaluate memory.safetensors --dataset cifar10 --network resnet18 --networks 5
      clreplay evaluate memory.safetensors --dataset my/plants@32 --preset smoke --set updates=100
    """
    from clreplay.memory.replay_memory import ReplayMemory
    from clreplay.recipes.overrides import parse_set
    from clreplay.runtime.device import device_name
    from clreplay.runtime.progress import Reporter, counted, duration
    from clreplay.scoring import plan_evaluation

    reporter = Reporter(None if options["quiet"] or options["as_json"] else click.echo)
    memory = ReplayMemory.load(options["memory"])
    dataset = options["dataset"] or memory.info.get("dataset")
    if dataset is None or (dataset.startswith("folder-") and not options["dataset"]):
        made = (
            f"it was made of {dataset}, whose place it does not say" if dataset else "the memory does not say its data"
        )
        raise ValueError(f"--dataset is missing: {made}; name the data set or folder to test on")
    settings = parse_set(options["overrides"])
    plan = plan_evaluation(
        memory,
        dataset,
        options["network"],
        {key.removeprefix("train."): value for key, value in settings.items()},
        options["networks"],
        options["seed"],
        None if options["device"] == "auto" else options["device"],
        protocol=options["protocol"],
        preset=None if options["preset"] == "auto" else options["preset"],
        channels=None if options["channels"] is None else int(options["channels"]),
        data_root=options["data_root"],
    )
    made_by = memory.info.get("method", "unknown")
    reporter.line(
        f"Evaluating {options['memory']}: {made_by}, {counted(len(memory), 'image')} of "
        f"{counted(len(memory.classes), 'class')}"
        + (f", decoded to {len(memory.labels)}" if len(memory.labels) != len(memory) else "")
    )
    tested = counted(len(plan.test[1]), "test image")
    reporter.line(f"  data      {plan.test_source.rstrip('.')}; {tested}")
    reporter.line(
        f"  learner   {plan.network}, {counted(plan.networks, 'network')}, {plan.length()}, protocol {plan.protocol}"
    )
    reporter.line(f"  device    {plan.device} ({device_name(plan.device, threads=True)}), preset {plan.preset}")
    for remark in plan.remarks:
        reporter.line(f"  note      {remark}")
    if reporter.out is not None:
        reporter.line(f"  time      {plan.expected()} (from a short trial on this machine)")

    def finished(number: int, value: float) -> None:
        reporter.line(f"  network {number + 1}/{plan.networks}: {value:.2f} %")

    with reporter.task(f"training {counted(plan.networks, 'network')}") as task:
        found = plan.run(task, finished)
    if options["as_json"]:
        click.echo(json.dumps(found.as_plain(), indent=1))
        return 0
    spread = "" if found.std is None else f" (std {found.std:.2f} over {len(found.accuracies)} networks)"
    each = "" if found.std is None else "; each: " + " ".join(f"{value:.2f}" for value in found.accuracies)
    click.echo(f"Accuracy {found.mean:.2f} %{spread}, last epoch{each}; trained in {duration(found.seconds)}")
    return 0
