"""A folder, a zip or a tar archive as one kind of tree: class folders are read from each without unpacking."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tarfile
import zipfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from clreplay.data.errors import InvalidDataError
from clreplay.data.readers.image_files import EXTENSIONS, Batch, BytesBatch, FileBatch, ZipBatch
from clreplay.runtime.files import replacing, user_cache

_logger = logging.getLogger(__name__)
_BATCH = 64
_ARCHIVES = (".zip", ".tgz", ".tar.gz", ".tar")


class Tree(Protocol):
    """Files below a common top; paths are relative to it, with `/`, and hidden ones are left out."""

    where: str
    """Absolute path, for messages."""

    def folders(self, under: str) -> list[str]:
        """Names of the folders directly in `under`, sorted; empty if there is no such folder."""
        ...

    def files(self, under: str) -> list[str]:
        """Paths of all files at any depth in `under`, sorted."""
        ...

    def read(self, path: str) -> bytes | None:
        """The content of a small file; None if there is no such file."""
        ...

    def fingerprint(self, paths: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Values of which one changes whenever one of the files changes; they do not depend on where the tree is."""
        ...

    def batches(self, paths: Sequence[str]) -> Iterator[Batch]:
        """The encoded images at `paths`, each exactly once, in any order; rows are positions in `paths`."""
        ...


def open_tree(path: Path) -> Tree:
    """The tree in a folder or an archive.

    Raises:
        InvalidDataError: the archive is damaged, or of a kind that is not read.
    """
    if path.is_dir():
        return FolderTree(path)
    if not path.name.lower().endswith(_ARCHIVES):
        raise InvalidDataError(f"{path} must be a folder or an archive ({', '.join(_ARCHIVES)})")
    return ZipTree(path) if path.name.lower().endswith(".zip") else TarTree(path)


def is_image(path: str) -> bool:
    """Whether a file's name ends like an image's."""
    return PurePosixPath(path).suffix.lower() in EXTENSIONS


class FolderTree:
    """A folder on disk; links to folders are followed."""

    def __init__(self, folder: Path) -> None:
        self.where = str(folder.absolute())
        self._seen: dict[str, tuple[int, int]] = {}  # size and time of change of every file listed

    def folders(self, under: str) -> list[str]:
        path = Path(self.where, under)
        if not path.is_dir():
            return []
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())

    def files(self, under: str) -> list[str]:
        if not Path(self.where, under).is_dir():
            return []
        return sorted(self._walk(under))

    def read(self, path: str) -> bytes | None:
        file = Path(self.where, path)
        return file.read_bytes() if file.is_file() else None

    def fingerprint(self, paths: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for path in paths:
            yield path, *self._seen[path]

    def batches(self, paths: Sequence[str]) -> Iterator[Batch]:
        for first in range(0, len(paths), _BATCH):
            chosen = tuple(paths[first : first + _BATCH])
            yield FileBatch(tuple(range(first, first + len(chosen))), self.where, chosen)

    def _walk(self, under: str) -> Iterator[str]:
        with os.scandir(Path(self.where, under)) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = f"{under}/{entry.name}" if under else entry.name
                if entry.is_dir():
                    yield from self._walk(path)
                elif entry.is_file():
                    state = entry.stat()
                    self._seen[path] = (state.st_size, state.st_mtime_ns)
                    yield path


class _Archive:
    """The common part of zip and tar: a table of members, without the one folder that may contain them all."""

    def __init__(self, path: Path, members: list[str]) -> None:
        self.where = str(path.absolute())
        state = path.stat()
        self._state = (path.name, state.st_size, state.st_mtime_ns)
        shown = [name for name in members if not _hidden(name)]
        tops = {name.split("/", 1)[0] for name in shown}
        wrapped = len(tops) == 1 and all("/" in name for name in shown)
        self._top = f"{tops.pop()}/" if wrapped else ""
        self._paths = sorted(name[len(self._top) :] for name in shown)

    def folders(self, under: str) -> list[str]:
        skip = len(under) + 1 if under else 0
        return sorted({path[skip:].split("/", 1)[0] for path in self.files(under) if "/" in path[skip:]})

    def files(self, under: str) -> list[str]:
        first = bisect_left(self._paths, f"{under}/") if under else 0
        after = bisect_left(self._paths, f"{under}0") if under else None  # 0 comes right after / in ASCII
        return self._paths[first:after]

    def fingerprint(self, paths: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        yield self._state
        yield from ((path,) for path in paths)


class ZipTree(_Archive):
    """A zip archive."""

    def __init__(self, path: Path) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                members = [name for name in archive.namelist() if not name.endswith("/")]
        except (zipfile.BadZipFile, OSError) as error:
            raise _damaged(path, error) from error
        super().__init__(path, members)

    def read(self, path: str) -> bytes | None:
        with zipfile.ZipFile(self.where) as archive:
            try:
                return archive.read(self._top + path)
            except KeyError:
                return None
            except Exception as error:  # zlib and zipfile each have their own kinds
                raise _damaged(Path(self.where), error) from error

    def batches(self, paths: Sequence[str]) -> Iterator[Batch]:
        for first in range(0, len(paths), _BATCH):
            names = tuple(self._top + path for path in paths[first : first + _BATCH])
            yield ZipBatch(tuple(range(first, first + len(names))), self.where, names)


class TarTree(_Archive):
    """A tar archive, compressed or not. It must be read from its start, so its table is kept in the user's cache."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _tar_members(path))

    def read(self, path: str) -> bytes | None:
        wanted = self._top + path
        for name, file in self._stream():
            if name == wanted:
                return file.read()
        return None

    def batches(self, paths: Sequence[str]) -> Iterator[Batch]:
        rows = {self._top + path: row for row, path in enumerate(paths)}
        found: list[tuple[int, str, bytes]] = []
        for name, file in self._stream():
            if (row := rows.pop(name, None)) is None:
                continue
            found.append((row, f"{self.where}: {name}", file.read()))
            if len(found) == _BATCH:
                yield BytesBatch(*zip(*found, strict=True))
                found = []
        if found:
            yield BytesBatch(*zip(*found, strict=True))

    def _stream(self) -> Iterator[tuple[str, Any]]:
        try:
            with tarfile.open(self.where, "r:*") as archive:
                for member in archive:
                    if member.isfile():
                        yield _member_name(member), archive.extractfile(member)
                _check_end(archive)
        except Exception as error:  # gzip, lzma, zlib and tarfile each raise their own kinds
            raise _damaged(Path(self.where), error) from error


def _tar_members(path: Path) -> list[str]:
    state = path.stat()
    key = hashlib.blake2b(json.dumps([path.name, state.st_size, state.st_mtime_ns]).encode(), digest_size=12)
    kept = user_cache() / "images" / f"members-{key.hexdigest()}.json"
    try:
        return json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass  # the archive was not read before, or the stored table is damaged
    try:
        with tarfile.open(path, "r:*") as archive:
            members = [_member_name(member) for member in archive if member.isfile()]
            _check_end(archive)
    except Exception as error:
        raise _damaged(path, error) from error
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as partial:
            partial.write_text(json.dumps(members), encoding="utf-8")
    except OSError as error:
        _logger.warning("cannot keep the table of %s in %s: %s", path, kept.parent, error)
    return members


def _check_end(archive: tarfile.TarFile) -> None:
    # tarfile takes an archive that ends within the name of a member for a complete one.
    file: Any = archive.fileobj
    file.seek(archive.offset)
    if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("unexpected end of data")


def _member_name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")


def _hidden(path: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def _damaged(path: Path, error: Exception) -> InvalidDataError:
    return InvalidDataError(f"{path} is damaged or not complete: {error or type(error).__name__}; fetch it again")
