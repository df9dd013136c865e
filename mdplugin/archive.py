"""The zip archive of an artifact: its content hash, a record added at its end, a file that appears whole.

*Content hash*: SHA-256 over the records in the order of their names (as bytes), certificates left out, each as

    length of the name, name, length of the data, data            lengths: 8 bytes, little-endian

with names as torch knows them (without the archive's first directory) and data as it is after decompression. So it
covers weights, code and manifest, and neither compression nor alignment. `lammps_pair/artifact.cpp` computes the same.

A record is added behind the others, which keep every byte and so the alignment that torch gave them.

Torch also writes where each line of code came from, with the paths of this machine, and a hash of all that: an artifact
has neither, so that one policy of one potential, exported first in a process, has one content in every place. (Torch
numbers the classes that a process has compiled; later exports have other names for them.)
"""

import contextlib
import hashlib
import io
import os
import struct
import tempfile
import zipfile
from pathlib import Path

from mdplugin.errors import ArtifactError

CERTIFICATES = "extra/mdplugin-certificates.json"


def _name(entry: zipfile.ZipInfo) -> str:
    """'archive/data/0' -> 'data/0'."""
    return entry.filename.partition("/")[2]


def content_sha256(path: str | os.PathLike) -> str:
    """The content hash of an artifact, in hexadecimal.

    Raises:
        ArtifactError: not an archive, or a damaged one.
    """
    digest = hashlib.sha256()
    with _open(path) as archive:
        entries = [(_name(entry).encode(), entry) for entry in archive.infolist()]
        for name, entry in sorted(entries, key=lambda each: each[0]):
            if name == CERTIFICATES.encode():
                continue
            for part in (name, archive.read(entry)):
                digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def read_record(path: str | os.PathLike, name: str) -> bytes | None:
    """The data of a record, None where the archive has none of this name.

    Raises:
        ArtifactError: not an archive, or a damaged one.
    """
    with _open(path) as archive:
        entry = next((each for each in archive.infolist() if _name(each) == name), None)
        return None if entry is None else archive.read(entry)


@contextlib.contextmanager
def _open(path: str | os.PathLike):
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file") from error
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ArtifactError(f"{path}: expected a whole archive, got a damaged one ({error})") from error


def put_record(path: str | os.PathLike, name: str, data: bytes) -> None:
    """Write a record of JSON behind all others, in the place of one that this function wrote before; atomically.

    Raises:
        ArtifactError: not an archive, or it cannot be written.
    """
    path = Path(path).resolve()
    with _open(path) as archive:
        prefix = archive.infolist()[0].filename.partition("/")[0]
    content = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(content, "a", zipfile.ZIP_STORED) as archive:
        last = archive.infolist()[-1]
        if _name(last) == name:
            # behind it is the directory alone, which is written anew where the record began
            archive.filelist.remove(last)
            del archive.NameToInfo[last.filename]
            archive.start_dir = last.header_offset
            content.truncate(last.header_offset)
        archive.writestr(zipfile.ZipInfo(f"{prefix}/{name}"), data)
    write_whole(path, content.getbuffer())


ALIGNMENT = 64  # of the data of a record, as torch has it


def strip_origins(content: bytes) -> bytes:
    """An archive of torch without the origins of its code; compressed records stay so, others stay aligned."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w") as archive:
        for entry in source.infolist():
            if entry.filename.endswith(".debug_pkl") or _name(entry) == ".data/serialization_id":
                continue
            record = zipfile.ZipInfo(entry.filename)
            record.compress_type = entry.compress_type
            # local header: 30 bytes, name, then an extra field ("FB", as torch's) that fills up to the alignment
            used = target.tell() + 30 + len(entry.filename.encode()) + 4
            record.extra = b"FB" + struct.pack("<H", padding := -used % ALIGNMENT) + bytes(padding)
            archive.writestr(record, source.read(entry))
            record.extra = b""  # the directory needs none
    return target.getvalue()


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file atomically: it appears whole or not at all.

    Raises:
        ArtifactError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
            part = Path(scratch) / path.name
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror}; choose another place with -o") from error
