"""Every shipped memory in one class-incremental run on the digits: it fills its slots and a network learns from it."""

import pandas as pd
import pytest

from clreplay.incremental.run import run_experiment
from clreplay.incremental.settings import ContinualSettings
from clreplay.recipes.recipe import recipe_names
from clreplay.runtime.progress import Reporter


@pytest.mark.parametrize("name", recipe_names())
def test_every_memory_goes_through_the_steps_within_its_budget(name, tmp_path):
    settings = ContinualSettings(
        dataset="digits",
        memories=(name,),
        images_per_class=2,
        steps=2,
        networks=1,
        preset="smoke",
        host="none",
        device="cpu",
    )
    folder = run_experiment(settings, tmp_path / "run", Reporter(None))
    rows = pd.read_csv(folder / "results.csv")
    assert rows.memory.tolist() == [name, name]
    assert rows.classes_seen.tolist() == [5, 10]
    assert rows.memory_images.tolist() == [10, 20]  # stored: what a memory decodes them to costs nothing
    assert (rows.memory_bytes <= 20 * (32 * 32 + 8)).all()
    assert rows.accuracy.iloc[0] > 30 and rows.accuracy.iloc[1] > 15  # chance: 20 and 10
