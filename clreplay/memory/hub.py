"""Memories on the Hugging Face hub: a data set there, with the memory's own file beside it."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from clreplay.memory.export import Exported, export
from clreplay.memory.formats.pictures import Exportable

SCHEME = "hf://"
OWN_FILE = "memory.safetensors"
_NAME = re.compile(r"(datasets/)?(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?")


class Pushable(Exportable, Protocol):
    """A memory that can write its own file."""

    def save(self, path: str | Path) -> None: ...


@dataclass(frozen=True)
class Pushed:
    """What a push put on the hub; as a text, the line that says it.

    Attributes:
        repo: its name there, ``ORG/NAME``.
        url: its page.
        exported: what was uploaded beside the memory's own file; its path is gone.
    """

    repo: str
    url: str
    exported: Exported

    def __str__(self) -> str:
        return (
            f"{self.url}: {self.exported.images:,} images of {self.exported.classes} classes; "
            f'read back with ReplayMemory.load("{SCHEME}{self.repo}")'
        )


def push(memory: Pushable, repo: str, *, private: bool = False, token: str | None = None) -> Pushed:
    """Put a memory on the hub as a data set, a new one or the next revision of one's own.

    It holds the memory's own file, which :meth:`clreplay.ReplayMemory.load` reads back exactly, and the folder that
    ``export(memory, folder, "parquet")`` writes, which all others read.

    Args:
        memory: a :class:`clreplay.ReplayMemory`.
        repo: ``ORG/NAME``, also with ``hf://`` before it.
        private: whether a new data set is seen by its owner only.
        token: of the hub; None takes the one of ``hf auth login`` or ``$HF_TOKEN``.

    Raises:
        ValueError: the name is none, ``huggingface_hub`` is not installed, or the memory cannot be exported.
        OSError: the hub cannot be reached, or refuses; nothing is changed there or here.
    """
    name, revision, file = split_repo(repo)
    if revision or file:
        raise ValueError(f"repo must be ORG/NAME, got {repo!r}")
    hub = _hub()
    with tempfile.TemporaryDirectory(prefix="clreplay-push-") as place:
        folder = Path(place) / "memory"
        exported = export(memory, folder, "parquet", address=f"{SCHEME}{name}")
        memory.save(folder / OWN_FILE)
        try:
            api = hub.HfApi(token=token)
            api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
            api.upload_folder(
                repo_id=name,
                repo_type="dataset",
                folder_path=folder,
                commit_message=f"A memory of {exported.images} images",
            )
        except Exception as error:  # of the client, of its transport, of the network
            raise OSError(_one_line(f"{name} was not pushed", error)) from error
    return Pushed(name, f"{_endpoint(hub)}/datasets/{name}", exported)


def fetch(address: str) -> Path:
    """The files of a memory on the hub, in its client's cache: the memory's own file, or the folder of all files.

    Args:
        address: ``hf://ORG/NAME``, ``hf://ORG/NAME@REVISION``, or one of its files, ``hf://ORG/NAME/FILE``.

    Raises:
        ValueError: the address is none, or ``huggingface_hub`` is not installed.
        OSError: the hub cannot be reached and the files are not in the cache, or there are none.
    """
    name, revision, file = split_repo(address)
    hub = _hub()
    where: dict[str, Any] = {"repo_id": name, "repo_type": "dataset", "revision": revision}
    try:
        try:
            return Path(hub.hf_hub_download(filename=file or OWN_FILE, **where))
        except hub.errors.EntryNotFoundError:
            if file:
                raise
            return Path(hub.snapshot_download(allow_patterns=["*.parquet", "*.png", "*.npz", "*.json"], **where))
    except Exception as error:
        raise OSError(_one_line(f"{address} cannot be had", error)) from error


def split_repo(address: str) -> tuple[str, str | None, str | None]:
    """Name, revision and file of an address.

    Raises:
        ValueError: it is none.
    """
    match = _NAME.fullmatch(address.removeprefix(SCHEME)) if isinstance(address, str) else None
    if match is None:
        raise ValueError(f"a place on the hub must be like ORG/NAME or {SCHEME}ORG/NAME@REVISION, got {address!r}")
    return match["repo"], match["revision"], match["file"]


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ValueError(
            f"the Hugging Face hub needs the package huggingface_hub ({error}): pip install 'clreplay[hub]'"
        ) from error
    return huggingface_hub


def _endpoint(hub: Any) -> str:
    return str(hub.constants.ENDPOINT).rstrip("/")


def _one_line(what: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{what}: {type(error).__name__}: {text}" if text else f"{what}: {type(error).__name__}"
