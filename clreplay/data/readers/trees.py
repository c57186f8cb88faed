"""A folder, a zip or a tar archive as one kind of tree: class folders are read from each without unpacking."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import posixpath
import tarfile
import zipfile
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from clreplay.data.errors import InvalidDataError
from clreplay.data.readers.bounds import check_size, read_small
from clreplay.data.readers.image_files import EXTENSIONS, Batch, BytesBatch, FileBatch, ZipBatch
from clreplay.runtime.checksum import read_sealed, write_sealed
from clreplay.runtime.files import user_cache

_logger = logging.getLogger(__name__)
_BATCH = 64
_DEEPEST = 40  # folders in folders; links may lead in a circle
_TABLE_VERSION = 2
_LARGEST_HEADER = 1 << 20
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
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
        try:
            return read_small(file) if file.is_file() else None
        except ValueError as error:
            raise InvalidDataError(f"{file}: {error}") from error

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
                if path.count("/") > _DEEPEST:
                    raise InvalidDataError(
                        f"{self.where}/{path[:100]}... is more than {_DEEPEST} folders deep; does a link lead back up?"
                    )
                if _is_folder(entry):
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
                members = [name for name in dict.fromkeys(archive.namelist()) if not name.endswith("/")]
        except Exception as error:  # zipfile raises ValueError, NotImplementedError and struct.error as well
            raise _damaged(path, error) from error
        super().__init__(path, members)

    def read(self, path: str) -> bytes | None:
        try:
            with zipfile.ZipFile(self.where) as archive:
                if self._top + path not in archive.NameToInfo:
                    return None
                check_size(archive.getinfo(self._top + path).file_size)  # no more than that is unpacked
                return archive.read(self._top + path)
        except Exception as error:  # zlib and zipfile each have their own kinds
            raise _damaged(Path(self.where), error) from error

    def batches(self, paths: Sequence[str]) -> Iterator[Batch]:
        for first in range(0, len(paths), _BATCH):
            names = tuple(self._top + path for path in paths[first : first + _BATCH])
            yield ZipBatch(tuple(range(first, first + len(names))), self.where, names)


class TarTree(_Archive):
    """A tar archive, compressed or not. It must be read from its start, so its table is kept in the user's cache."""

    def __init__(self, path: Path) -> None:
        self._sources = _tar_members(path)
        super().__init__(path, list(self._sources))

    def read(self, path: str) -> bytes | None:
        wanted = self._sources.get(self._top + path)
        if wanted is None:
            return None
        for name, read in self._stream():
            if name == wanted:
                return read()
        return None

    def batches(self, paths: Sequence[str]) -> Iterator[Batch]:
        rows: dict[str, list[tuple[int, str]]] = {}  # of every file that is there, the links to it among them
        for row, path in enumerate(paths):
            rows.setdefault(self._sources[self._top + path], []).append((row, self._top + path))
        found: list[tuple[int, str, bytes]] = []
        for name, read in self._stream():
            wanted = rows.pop(name, None)
            if wanted is None:
                continue
            content = read()
            found += [(row, f"{self.where}: {each}", content) for row, each in wanted]
            if len(found) >= _BATCH:
                yield BytesBatch(*zip(*found, strict=True))
                found = []
        if found:
            yield BytesBatch(*zip(*found, strict=True))

    def _stream(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Every file, and what reads it while it is the one at hand."""
        try:
            with tarfile.open(self.where, "r:*", tarinfo=_Member) as archive:
                for member in archive:
                    if member.isfile():
                        yield _member_name(member), partial(self._content, archive, member)
                _check_end(archive)
        except InvalidDataError:
            raise
        except Exception as error:  # gzip, lzma, zlib and tarfile each raise their own kinds
            raise _damaged(Path(self.where), error) from error

    def _content(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
        try:
            check_size(member.size)
            file = archive.extractfile(member)
            if file is None:
                raise tarfile.ReadError("it is no file")
            return file.read()
        except Exception as error:
            raise _damaged(Path(self.where, member.name), error) from error


class _Member(tarfile.TarInfo):
    """A member whose headers are bounded: tarfile reads long names and extended headers whole, whatever their size."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED and not 0 <= self.size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]  # of tarfile, not of its stubs
        return member


def _tar_members(path: Path) -> dict[str, str]:
    """Every file of an archive by its path, and the one that has its bytes: of links the one that they lead to.

    Raises:
        InvalidDataError: it is damaged, or an image is a link to what is not there.
    """
    state = path.stat()
    parts = [_TABLE_VERSION, path.name, state.st_size, state.st_mtime_ns]
    key = hashlib.blake2b(json.dumps(parts).encode(), digest_size=12)
    kept = user_cache() / "images" / f"members-{key.hexdigest()}.json"
    try:
        return _table_in(read_sealed(kept))
    except (OSError, ValueError, RecursionError):
        pass  # the archive was not read before, or the stored table is damaged
    members: dict[str, str] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:*", tarinfo=_Member) as archive:
            for member in archive:
                name = _member_name(member)
                if member.isfile():
                    members[name] = name
                elif member.islnk():
                    links[name] = member.linkname.removeprefix("./")
                elif member.issym():
                    links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            _check_end(archive)
    except Exception as error:
        raise _damaged(path, error) from error
    members |= _resolved(path, members, links)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(kept, json.dumps(members).encode())
    except OSError as error:
        _logger.warning("cannot keep the table of %s in %s: %s", path, kept.parent, error)
    return members


def _table_in(content: bytes) -> dict[str, str]:
    found = json.loads(content)
    if not isinstance(found, dict) or not all(isinstance(source, str) and source in found for source in found.values()):
        raise ValueError("no table of an archive")
    return found


def _resolved(path: Path, members: Mapping[str, str], links: Mapping[str, str]) -> dict[str, str]:
    """Links to files of the archive, with the file that each leads to, over other links maybe.

    Raises:
        InvalidDataError: an image is a link that leads nowhere inside, or a link is to a folder with images.
    """
    folders = {part for name in members if is_image(name) for part in _above(name)}
    found = {}
    for name, target in links.items():
        passed = {name}
        while target in links and target not in passed:
            passed.add(target)
            target = links[target]
        if target in members:
            found[name] = target
        elif is_image(name) or target in folders:
            raise InvalidDataError(
                f"{path}: {name} is a link to {target}, which is no file of the archive; pack it again with what links "
                "lead to (tar --dereference)"
            )
    return found


def _above(name: str) -> Iterator[str]:
    folder = posixpath.dirname(name)
    while folder:
        yield folder
        folder = posixpath.dirname(folder)


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


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link that leads to itself
        raise InvalidDataError(f"{entry.path} cannot be followed ({error.strerror}); remove the link") from error


def _damaged(path: Path, error: Exception) -> InvalidDataError:
    reason = " ".join(str(error).split()) or type(error).__name__  # tarfile says it on several lines
    return InvalidDataError(f"{path} is damaged or not complete: {reason}; fetch it again")
