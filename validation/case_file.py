"""YAML or mapping <-> `Case`: keys are the fields of `Case`, anything else is refused.

ensemble: nvt
models: [water-fp32.pt]        # relative to the working directory, as on the command line
reference: water
length_ps: 20
limits: {diffusion: 0.3}
"""

import dataclasses
import difflib
import re
from pathlib import Path

import yaml

from mdplugin.errors import CaseError
from mdplugin.validation.case import Case
from mdplugin.validation.criteria import find_limits
from mdplugin.validation.potential import find_own_pressure

BUNDLED = Path(__file__).resolve().parent / "cases"
_FIELDS = {each.name: each for each in dataclasses.fields(Case)}
_INTEGER, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_TEXTS = ("ensemble", "reference", "engine", "structure")


class _Loader(yaml.SafeLoader):
    """Plain values; a key that is there twice, of which YAML's own loader drops one, is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise yaml.YAMLError(
                        f"line {line}: expected every key once, got '{key.value}' again: remove one"
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


# numbers as YAML 1.2 has them: in 1.1, PyYAML's, 1:30 is 90, 010 is 8, and 2e0 is a text
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INTEGER, _FLOAT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INTEGER, re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def bundled_cases() -> tuple[str, ...]:
    """Names of the cases that come with the package."""
    return tuple(sorted(file.stem for file in BUNDLED.glob("*.yaml")))


def read_case(source: str, **changes) -> Case:
    """Read a YAML file, or a bundled case by name; `changes` (command line) replace its values.

    In npt the pressure of a bundled potential in its own box is what it has there, unless one is given.

    Raises:
        CaseError: no such file, not YAML, an unknown key, a value of the wrong kind, or one that the case would ignore.
    """
    path = BUNDLED / f"{source}.yaml" if source in bundled_cases() else Path(source)
    try:
        content = yaml.load(path.read_text(), _Loader)
    except FileNotFoundError as error:
        raise CaseError(
            f"{source}: expected a YAML file or one of {', '.join(bundled_cases())}; no such file"
        ) from error
    except RecursionError as error:
        raise CaseError(f"{source}: not a case: its lists and mappings are nested too deeply") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CaseError(f"{source}: not a YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise CaseError(f"{source}: expected keys and values, got {type(content).__name__}")
    content |= changes
    reference = content.get("reference")
    if (
        content.get("ensemble") == "npt"
        and content.get("pressure_bar") is None
        and isinstance(reference, (str, Path))
    ):
        content["pressure_bar"] = find_own_pressure(reference, content.get("structure"))
    case = parse_case(content, source)
    _require_used(content, case, source)
    return case


def _require_used(content: dict, case: Case, where: str) -> None:
    """Raise CaseError for a pressure or a limit that the case would ignore."""
    if case.ensemble != "npt" and content.get("pressure_bar") is not None:
        raise CaseError(
            f"{where}: pressure_bar: expected none in {case.ensemble}, which has no barostat, got "
            f"{content['pressure_bar']!r}: remove it, or run npt"
        )
    used = find_limits(case.sound_observables)
    for name in case.limits:
        if name not in used:
            raise CaseError(
                f"{where}: limits: expected one that {case.ensemble} with these observables has ({', '.join(used)}), got "
                f"'{name}': remove it"
            )


def parse_case(content: dict, where: str) -> Case:
    """A mapping as a `Case`.

    Raises:
        CaseError: an unknown or missing key, or a value of the wrong kind; names the key.
    """
    for key in content:
        if key not in _FIELDS:
            near = difflib.get_close_matches(str(key), _FIELDS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; the keys are {', '.join(_FIELDS)}"
            raise CaseError(f"{where}: unknown key '{key}'{hint}")
    missing = [name for name in ("ensemble", "models", "reference") if content.get(name) in (None, [], ())]
    if missing:
        raise CaseError(f"{where}: expected a value for {', '.join(missing)}, got none")
    values = {name: _convert(name, value, where) for name, value in content.items() if value is not None}
    try:
        return Case(**values)
    except CaseError as error:
        raise CaseError(f"{where}: {error}") from error


def _convert(name: str, value, where: str):
    """Lists as tuples; the kind of texts, lists and mappings checked (numbers are checked by Case)."""
    if name in ("models", "observables", "repeat"):
        if not isinstance(value, (list, tuple)):
            raise CaseError(f"{where}: {name}: expected a list, got {value!r}")
        texts = name != "repeat"
        if texts and not all(isinstance(item, (str, Path)) for item in value):
            raise CaseError(f"{where}: {name}: expected a list of names, got {value!r}")
        return tuple(str(item) if texts else item for item in value)
    if name in _TEXTS and not isinstance(value, (str, Path)):
        raise CaseError(f"{where}: {name}: expected a text, got {value!r}")
    if name == "limits" and not isinstance(value, dict):
        raise CaseError(f"{where}: limits: expected names and numbers, got {value!r}")
    return str(value) if name in _TEXTS else value


def describe_case(case: Case) -> dict:
    """The case as plain values, which `parse_case` reads back."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(case).items()
    }
