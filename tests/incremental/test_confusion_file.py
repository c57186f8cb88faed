"""The record of what networks take test images for: written whole, read with suspicion, the same through both hosts."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from run_helpers import QUIET, one, tiny_settings

from clreplay.data.load import load_dataset
from clreplay.incremental.confusion_file import Tested, read_confusions, write_confusions
from clreplay.incremental.plan import plan_experiment
from clreplay.incremental.run import run_experiment
from clreplay.incremental.run_folder import read_confusion, read_results


@given(data=st.data(), steps=st.integers(1, 3), networks=st.integers(1, 3))
def test_what_is_written_step_by_step_comes_back(data, steps, networks, tmp_path_factory):
    path, wanted = tmp_path_factory.mktemp("run") / "confusion.safetensors", []
    for step in range(steps):
        classes = tuple(range(2 * step + 2))[::-1]
        most = data.draw(st.sampled_from([5, 70_000]))
        counts = [torch.randint(0, most, (len(classes), 6)) for _ in range(networks)]
        tested = [Tested("a/b", 0, step, network, classes, each) for network, each in enumerate(counts)]
        write_confusions(path, tested[:1])  # a step that is done again takes its own place
        write_confusions(path, tested)
        wanted += tested
    found = read_confusions(path)
    assert [one[:5] for one in found] == [one[:5] for one in wanted]
    assert all(torch.equal(a.counts, b.counts) for a, b in zip(found, wanted))


def test_a_damaged_file_and_none_are_told_by_name(tmp_path):
    path = tmp_path / "confusion.safetensors"
    with pytest.raises(FileNotFoundError, match="confusion.safetensors; runs of earlier versions left none"):
        read_confusions(path)
    write_confusions(path, [Tested("dm", 0, 0, 0, (1, 0), torch.eye(2, dtype=torch.int64))])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="confusion.safetensors is damaged"):
        read_confusions(path)


def test_both_hosts_count_the_same_and_what_results_say(tmp_path):
    wanted = one(
        tiny_settings(), memories=("random",), networks=2, steps=2, overrides={"train.width": 4, "train.updates": 4}
    )
    frames = []
    for host in ("none", "avalanche"):
        folder = run_experiment(replace(wanted, host=host), tmp_path / host, QUIET)
        frames.append(read_confusion(folder).drop(columns="run"))
        rows = read_results(folder).set_index(["step", "network"]).accuracy
        right = frames[-1].query("label == taken_for").groupby(["step", "network"])["count"].sum()
        total = frames[-1].groupby(["step", "network"])["count"].sum()
        assert (100 * right / total).to_dict() == pytest.approx(
            rows.to_dict(), abs=1e-4
        )  # a results.csv has six digits
    pd.testing.assert_frame_equal(*frames)
    seen, classes = frames[0], plan_experiment(wanted).classes(0)
    assert set(seen[seen.step == 0].label) == set(classes[0])
    arrived = {label: step for step, part in enumerate(classes) for label in part}
    assert (seen.arrived == seen.label.map(arrived)).all()
    late = seen.taken_for.map(arrived) > seen.step
    assert (seen.taken_for_arrived == seen.taken_for.map(arrived).where(~late, -1)).all()
    test = torch.bincount(load_dataset("digits").test.labels)
    sums = seen[seen.step == 1].groupby(["network", "label"])["count"].sum()
    assert all(sums[network, label] == int(test[label]) for network in range(2) for label in range(10))
