"""Where files are kept if there is no place for them."""

import subprocess
import sys
from pathlib import Path

import pytest

from clreplay.runtime import files

HOMELESS = """
import os, pathlib, sys
for name in ("HOME", "CLREPLAY_CACHE", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
if len(sys.argv) > 1:
    os.environ["CLREPLAY_CACHE"] = sys.argv[1]
os.path.expanduser = lambda path: path  # as for a user without an entry in the password file
from clreplay.runtime.files import user_cache
found = user_cache()
assert user_cache() == found
found.mkdir(parents=True)
print(found, oct(found.parent.stat().st_mode)[-3:])
"""


@pytest.mark.parametrize("more", [(), ("~/cache",)], ids=["nothing set", "tilde"])
def test_without_a_home_there_is_a_cache_for_one_process_and_one_warning(more):
    ran = subprocess.run([sys.executable, "-c", HOMELESS, *more], capture_output=True, text=True, check=True)
    place, mode = ran.stdout.split()
    assert "clreplay-" in place and mode == "700"
    assert not Path(place).parent.exists(), "it ends with its process"
    assert ran.stderr.count("nothing is cached for later processes") == 1 and "set CLREPLAY_CACHE" in ran.stderr


def test_the_temporary_folder_is_one_a_process(monkeypatch):
    here = files.temporary_folder()
    assert files.temporary_folder() == here
    monkeypatch.setattr(files.os, "getpid", lambda: -1)
    assert files.temporary_folder() != here
