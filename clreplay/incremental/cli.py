"""The command line of the class-incremental scripts; they only parse, the library works."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clreplay.runtime.command_line import exit_code, started_as


def continual_parser(
    dataset: str | None, description: str, program: str | None = None, domains: bool = False
) -> argparse.ArgumentParser:
    """Flags of ``runs/cifar100_5step.py`` and its siblings; without a data set there is a flag for it.

    Args:
        dataset, description, program: as of :func:`continual_main`.
        domains: whether domains come in steps, not classes.
    """
    parser = argparse.ArgumentParser(
        prog=started_as(program), description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--memory",
        nargs="+",
        default=["ddm"],
        metavar="NAME",
        help="memories to compare, such as random herding dsa dm ddm (all of them: clreplay memories), or .yaml "
        "recipes, which may bring a method of your own (default: ddm)",
    )
    add("--images-per-class", type=int, metavar="N", help="images kept of every class (default: 20; 5 for digits)")
    add("--mem-size", type=int, metavar="N", help="total budget in images instead; quotas shrink as classes arrive")
    add("--bytes-per-class", type=int, metavar="N", help="budget in bytes of every class instead, all that is stored")
    add("--mem-bytes", type=int, metavar="N", help="total budget in bytes instead; shares shrink as classes arrive")
    add(
        "--store",
        default="uint8",
        metavar="NAME",
        help="how images are kept: uint8, float32 (condensed ones), 4bit, 2bit, png, jpeg, webp, avif (default: uint8)",
    )
    add(
        "--quality",
        type=_quality,
        metavar="N",
        help="of jpeg, webp or avif (default: 75, 75, 50); auto: as high as the bytes allow",
    )
    add("--pixels", type=int, metavar="N", help="keep images at N x N pixels and enlarge them again to be trained on")
    if domains:
        _add_domains(parser)
    else:
        _add_class_steps(parser)
    add("--networks", type=int, metavar="N", help="networks trained a step (default: 3; 1 with smoke)")
    add(
        "--preset",
        choices=("auto", "paper", "cpu", "smoke"),
        default="auto",
        help="auto: paper on a GPU, cpu otherwise; cpu: narrow and short, minutes a memory; smoke: seconds, no meaning",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add(
        "--host",
        choices=("auto", "avalanche", "none"),
        default="auto",
        help="drive the steps through Avalanche, or without it (default: avalanche where installed)",
    )
    add(
        "--protocol",
        choices=("common", "idc"),
        default="common",
        help="how the networks of all memories are trained: as DM does, or as IDC does (CutMix, batches of 64, two "
        "late drops of the learning rate; without Avalanche) (default: common)",
    )
    add("--data-root", metavar="DIR", help="where the data is (default: $CLREPLAY_DATA, then ./data)")
    add(
        "--out",
        metavar="DIR",
        help="the run's folder (default: out/...); started again with the same folder a run goes on",
    )
    add(
        "--cache",
        metavar="DIR",
        help="where condensed classes are kept for other class orders and runs (default: ~/.cache/clreplay)",
    )
    add("--no-cache", action="store_true", help="condense everything anew and keep nothing for other runs")
    add(
        "--tensorboard",
        action="store_true",
        help="write losses, accuracies, bytes and pictures of the memory for TensorBoard into the run's folder, too "
        "(needs clreplay[tensorboard])",
    )
    add("--seed", type=int, default=0, help="of everything but the class orders (default: 0)")
    add(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a setting: iterations=500, ddm.style_weight=1000, train.updates=400",
    )
    if dataset == "digits":
        add("--channels", type=int, choices=(1, 3), default=1, help="channels of the digits (default: 1)")
    if dataset is None and not domains:
        add(
            "--dataset",
            required=True,
            metavar="NAME",
            help="such as tinyimagenet or mnist (docs/data.md has the table), or folder:PATH, class folders of your "
            "own (folder:PATH@64 resizes them, @48x64 to height x width)",
        )
        add("--channels", type=int, choices=(1, 3), help="of grey sets (default: 1) and folders (default: 3)")
    elif dataset is not None:
        parser.set_defaults(dataset=dataset)
    return parser


def _add_class_steps(parser: argparse.ArgumentParser) -> None:
    """Which classes come when."""
    add = parser.add_argument
    add(
        "--steps",
        type=int,
        default=5,
        help="experiences the classes are split into (default: 5; the paper also has 10)",
    )
    add("--first-step", type=int, metavar="N", help="classes of the first step; the others share the rest evenly")
    add(
        "--class-order",
        metavar="FILE|LIST",
        help="an order of classes of your own: labels or names between commas, or a file of them",
    )
    add(
        "--class-orders",
        type=int,
        metavar="N",
        help="class orders to average over (default: 5 with paper, 1 otherwise)",
    )


def _add_domains(parser: argparse.ArgumentParser) -> None:
    """Which domains come, one after another."""
    add = parser.add_argument
    add(
        "--domains",
        nargs="+",
        required=True,
        metavar="DOMAIN",
        help="in the order in which they come: transforms of --dataset (none, rotate:0,30,60, invert, blur:1, "
        "background:0.6, rotate:30+blur), or data sets of the same classes (folder:photos@32 folder:sketches@32)",
    )
    add("--dataset", metavar="NAME", help="the data set that is transformed; not where all domains are data sets")
    add("--channels", type=int, choices=(1, 3), help="of grey sets (default: 1) and folders (default: 3)")


def _quality(text: str) -> int | str:
    return text if text == "auto" else int(text)


def continual_main(
    dataset: str | None,
    description: str,
    argv: Sequence[str] | None = None,
    program: str | None = None,
    domains: bool = False,
) -> int:
    """Parse and run; user errors are one line on standard error and exit status 2.

    Args:
        dataset: the one of a script; None for a flag.
        description: for ``--help``.
        argv: arguments; None takes the process's.
        program: how it was started, where that is not a script of its own (``clreplay run digits-5step``).
        domains: whether domains come in steps, not classes.
    """
    parser = continual_parser(dataset, description, program, domains)
    options = parser.parse_args(argv)
    command = recorded_command(parser, program or sys.argv[0], sys.argv[1:] if argv is None else argv)

    def work() -> int:
        from clreplay.incremental.run import run_experiment  # after parsing: --help must not wait for torch

        run_experiment(continual_settings(options), options.out, command=command, tensorboard=options.tensorboard)
        return 0

    return exit_code(work)


def continual_settings(options: argparse.Namespace) -> Any:
    """The experiment that parsed flags describe."""
    from clreplay.incremental.settings import ContinualSettings
    from clreplay.recipes.overrides import parse_set
    from clreplay.runtime.files import user_cache

    budgets = {
        name: getattr(options, name) for name in ("images_per_class", "mem_size", "bytes_per_class", "mem_bytes")
    }
    if not any(value is not None for value in budgets.values()) and options.dataset == "digits":
        budgets["images_per_class"] = 5  # ten easy classes: with 20 images a class all memories would be equally good
    return ContinualSettings(
        dataset=options.dataset or "",
        memories=tuple(options.memory),
        **budgets,
        store=options.store,
        quality=options.quality,
        pixels=options.pixels,
        **_stream(options),
        networks=options.networks,
        preset=None if options.preset == "auto" else options.preset,
        device=None if options.device == "auto" else options.device,
        host=None if options.host == "auto" else options.host,
        protocol=options.protocol,
        seed=options.seed,
        channels=getattr(options, "channels", None),
        data_root=options.data_root,
        cache=None if options.no_cache else options.cache or user_cache(),
        overrides=parse_set(options.overrides),
    )


def _stream(options: argparse.Namespace) -> dict[str, Any]:
    """What comes when."""
    from clreplay.incremental.class_steps import read_class_order

    if hasattr(options, "domains"):
        return {"domains": tuple(options.domains)}
    order = None if options.class_order is None else read_class_order(options.class_order)
    names = ("steps", "first_step", "class_orders")
    return {"class_order": order, **{name: getattr(options, name) for name in names}}


COMMAND = "clreplay run "
"""Beginning of the sub-commands that stand for scripts."""
PLACES = ("--data-root", "--out", "--cache")
"""Flags whose values are paths, which say something only on this machine."""
_FOLDER = re.compile(r"folder:.+?(?P<rest>(@[0-9]+(x[0-9]+)?)?(#.*)?)")


def recorded_command(parser: argparse.ArgumentParser, program: str, argv: Sequence[str]) -> str:
    """The command line with ``DIR`` for the values of flags that are places; all other words stay as they are.

    Args:
        parser: has taken these arguments.
        program: the script, or the words of a sub-command.
        argv: its arguments.
    """
    words, flag = [], None
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word.partition("=")
            flag = _whole(parser, name)
            words.append(f"{name}={_without_place(flag, value)}" if equals else word)
            flag = None if equals else flag
        else:
            words.append(_without_place(flag, word))
            flag = None if flag in PLACES else flag
    return " ".join([program if program.startswith(COMMAND) else shlex.quote(program), *map(shlex.quote, words)])


def _without_place(flag: str | None, value: str) -> str:
    if flag in PLACES:
        return "DIR"
    if flag == "--class-order" and Path(value).is_file():
        return "FILE"
    if flag in ("--dataset", "--domains") and (found := _FOLDER.fullmatch(value)):
        return f"folder:DIR{found['rest']}"
    return value


def _whole(parser: argparse.ArgumentParser, name: str) -> str:
    """The flag that a word means: argparse takes an unambiguous beginning, too."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    return name if name in flags else next((flag for flag in flags if flag.startswith(name)), name)
