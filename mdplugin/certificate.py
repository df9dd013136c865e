"""What was found about an artifact -> certificates in its archive -> the line that both engines print.

A certificate is one finding of `mdplugin compare` or `mdplugin validate`: what was measured, on which structures, the
bounds, the verdict, the versions. It is bound to the file by the content hash (archive.py): certificates are a record
of their own, `extra/mdplugin-certificates.json`, so that adding one leaves the content, and the others, as they are.
A certificate whose hash is not that of the file around it says nothing about this file: neither engine shows it. (The
hash finds mistakes. It is no signature: who wants to forge a certificate can.)
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mdplugin.archive import CERTIFICATES, content_sha256, put_record, read_record
from mdplugin.errors import ArtifactError

SCHEMA = 1
NOT_VALIDATED = "not validated"
FOREIGN = "carries a certificate that is not this file's, ignored"


@dataclass(frozen=True)
class Certificate:
    """One finding.

    Attributes:
        kind: "compare", "tune", "validate nve" and so on. A new finding takes the place of one of the same kind on the same
            structures.
        outcome: "pass", "fail" or "inconclusive". line: the finding in a few words, without line breaks.
        content_sha256: of the artifact that was measured.
        structures: name, sha256 of the file's bytes, and what else is known of them.
        reference: what the artifact was held against.
        measured, bounds: numbers by name, units in the names.
        provenance: versions, processor, time.
    """

    kind: str
    outcome: str
    line: str
    content_sha256: str
    structures: dict
    reference: dict
    measured: dict
    bounds: dict
    provenance: dict

    @property
    def subject(self) -> tuple:
        """What two certificates share if the later replaces the earlier."""
        return self.kind, self.structures.get("sha256")


@dataclass(frozen=True)
class Certificates:
    """The certificates of one file.

    Attributes:
        valid: those whose hash is the file's. n_foreign: how many others it carries, or 1 where the record of them is
            damaged or of a later version.
    """

    valid: tuple[Certificate, ...] = ()
    n_foreign: int = 0

    @property
    def line(self) -> str:
        """One line for people, the same in ASE and in LAMMPS."""
        lines = [certificate.line for certificate in self.valid] or [NOT_VALIDATED]
        return "; ".join([*lines, FOREIGN] if self.n_foreign else lines)

    def as_dicts(self) -> list[dict]:
        """The valid certificates as plain values."""
        return [dataclasses.asdict(each) for each in self.valid]

    def to_text(self) -> str:
        """All that the valid certificates hold, a fact per line."""
        parts = [line for each in self.valid for line in (f"certificate: {each.line}", *_facts(each))]
        if self.n_foreign:
            parts.append(f"certificates: {FOREIGN} ({self.n_foreign})")
        return "\n".join(parts or [f"certificates: {NOT_VALIDATED}"])


def _facts(certificate: Certificate) -> Iterator[str]:
    content = dataclasses.asdict(certificate)
    del content["line"]
    yield from _lines(content, 1)


def _lines(content: dict, indent: int) -> Iterator[str]:
    for name, value in content.items():
        if isinstance(value, dict) and any(isinstance(each, dict) for each in value.values()):
            yield f"{'  ' * indent}{name}:"
            yield from _lines(value, indent + 1)
        elif isinstance(value, dict):
            yield f"{'  ' * indent}{name}: " + ", ".join(
                f"{key} {_text(each)}" for key, each in value.items()
            )
        else:
            yield f"{'  ' * indent}{name}: {_text(value)}"


def _text(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_text, value)) if isinstance(value, list) else "-" if value is None else str(value)


def read_certificates(path: str | os.PathLike) -> Certificates:
    """The certificates of an artifact; the content is hashed only where there are any.

    Raises:
        ArtifactError: not an archive.
    """
    data = read_record(path, CERTIFICATES)
    if data is None:
        return Certificates()
    try:
        all_of_them = _parse(data)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Certificates(n_foreign=1)
    sha256 = content_sha256(path)
    valid = tuple(each for each in all_of_them if each.content_sha256 == sha256)
    return Certificates(valid, len(all_of_them) - len(valid))


def _parse(data: bytes) -> list[Certificate]:
    stored = json.loads(data)
    if not stored["schema"] <= SCHEMA:
        raise ValueError("certificates of a later version")
    names = {field.name for field in dataclasses.fields(Certificate)}
    certificates = [
        Certificate(**{name: value for name, value in each.items() if name in names})
        for each in stored["certificates"]
    ]
    if not all(isinstance(each.line, str) and each.line.isprintable() for each in certificates):
        raise ValueError("a line that is none")
    return certificates


def certify(path: str | os.PathLike, certificates: Sequence[Certificate]) -> Certificates:
    """Add certificates to the artifact they were made for; what the file holds now.

    Certificates of other files that it carries are dropped.

    Raises:
        ArtifactError: the file is not the one that was measured any more, or cannot be written.
    """
    sha256 = content_sha256(path)
    for certificate in certificates:
        if certificate.content_sha256 != sha256:
            raise ArtifactError(
                f"{path}: expected the artifact that was measured (content {certificate.content_sha256[:16]}...), got "
                f"another (content {sha256[:16]}...): measure it again"
            )
    kept = {each.subject: each for each in (*read_certificates(path).valid, *certificates)}
    result = Certificates(tuple(kept.values()))
    stored = {"schema": SCHEMA, "certificates": result.as_dicts()}
    put_record(Path(path), CERTIFICATES, json.dumps(stored, indent=1, allow_nan=False).encode())
    return result
