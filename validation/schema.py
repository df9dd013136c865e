"""What a case may say, as Markdown: its keys, the observables, the limits. `mdplugin validate --schema` prints it."""

import dataclasses
import inspect
import re

from mdplugin.validation.case import OBSERVABLES, Case
from mdplugin.validation.criteria import CRITERIA, PARTS
from mdplugin.validation.limits import LIMITS
from mdplugin.validation.report import format_table

_ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)  # of the docstring's attributes


def describe_schema() -> str:
    """Three tables: keys of a case, names for `observables`, names for `limits`."""
    return "\n\n".join(
        [
            "**Keys**",
            format_table(["key", "default", "what"], _list_keys()),
            "**Observables**, names for `observables`",
            format_table(["name", "in", "what is judged", "limit"], _list_observables()),
            "**Limits**, names for `limits`",
            format_table(["name", "value", "reason"], _list_limits()),
        ]
    )


def _list_keys() -> list[list[str]]:
    attributes = inspect.getdoc(Case).partition("Attributes:")[2]
    meanings = {name: " ".join(text.split()) for name, text in _ENTRY.findall(attributes)}
    return [[f"`{field.name}`", _default(field), meanings[field.name]] for field in dataclasses.fields(Case)]


def _default(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return "none"
    if field.default is dataclasses.MISSING:
        return "required"
    if field.default in (None, ()):
        return "none"
    return str(list(field.default)) if isinstance(field.default, tuple) else str(field.default)


def _list_observables() -> list[list[str]]:
    names = dict.fromkeys(name for chosen in OBSERVABLES.values() for name in chosen)
    rows = []
    for name in names:
        criteria = [CRITERIA[part] for part in PARTS.get(name, (name,))]
        titles = [each.title + (f", {each.unit}" if each.unit else "") for each in criteria]
        limits = dict.fromkeys(limit for each in criteria for limit in (each.limit, each.floor) if limit)
        where = ", ".join(ensemble for ensemble, chosen in OBSERVABLES.items() if name in chosen)
        rows.append([f"`{name}`", where, "; ".join(titles), ", ".join(f"`{limit}`" for limit in limits)])
    return rows


def _list_limits() -> list[list[str]]:
    return [
        [f"`{limit.name}`", f"{limit.value:.4g} {limit.unit}".strip(), limit.reason]
        for limit in LIMITS.values()
    ]
