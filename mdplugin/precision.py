"""Precision policy: a frozen value with a string form that round-trips, one parser, one table of names.

    fp32,linear=w8,radial=w16            base type, then choices per role
    fp32,linear=w8a16,linear.1=bf16      a choice for one layer (1 is the first) goes before that of its role

A *role* is a block of the network, a *format* how its numbers are stored, multiplied and summed. Formats that round
parameters alone leave the energy smooth and equivariant, and forces its exact gradient; formats that round state
(activations) add noise to forces: docs/precision.md.
"""

import difflib
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mdplugin.errors import PrecisionError

if TYPE_CHECKING:  # imported where it is needed: a verb that only names policies starts without its seconds
    import torch


@dataclass(frozen=True)
class Tolerance:
    """How far an artifact may be from mace-torch in float64 before `export` refuses to write it.

    Errors are max norms, scaled as `mdplugin.export.measure_fidelity` says.
    """

    energy_eV_per_atom: float
    force_eV_per_A: float
    stress_eV_per_A3: float


@dataclass(frozen=True)
class Format:
    """How the numbers of one role are kept.

    Attributes:
        storage: of the parameters. compute: of the products. accumulate: of the sums.
        state: None where parameters alone are rounded, else what is rounded at run time.
        note: what a user should know.
    """

    storage: str
    compute: str
    accumulate: str
    state: str | None
    note: str


BASES = ("fp64", "fp32")
FORMATS = {
    "fp32": Format("float32", "float32", "float32", None, "the base type"),
    "w16": Format("int16", "float32", "float32", None, "fixed point, 16 bits per parameter"),
    "w8": Format("int8", "float32", "float32", None, "fixed point, 8 bits per parameter"),
    "bf16": Format("bfloat16", "bfloat16", "float32", "bfloat16", "operands rounded to bfloat16"),
    "fp16": Format(
        "float16", "float32", "float32", "float16", "operands rounded to float16, scaled by powers of two"
    ),
    "w8a16": Format(
        "int8", "int16", "int32", "int16", "8-bit weights times activations of 16 bits, exact sums"
    ),
    "w8a8": Format("int8", "int8", "int32", "int8", "8-bit weights times activations of 8 bits, exact sums"),
}
_FLOATS = {
    name: Format(
        FORMATS[name].storage, "float32", "float32", None, f"parameters rounded to {FORMATS[name].storage}"
    )
    for name in ("bf16", "fp16")
}
_PARAMETERS = {**{name: FORMATS[name] for name in ("fp32", "w16", "w8")}, **_FLOATS}
_KNOTS = {
    **_PARAMETERS,
    "w16a16": Format("int16", "int16", "int32", "int16", "16-bit knots times weights of 16 bits, exact sums"),
}
_MATRICES = {name: FORMATS[name] for name in ("fp32", "w16", "w8", "bf16", "fp16")}
# role -> the formats that it can have
ROLES: dict[str, dict[str, Format]] = {
    "radial": _KNOTS,  # knots of the radial tables
    "linear": FORMATS,  # matrices that mix channels between convolution and contraction
    "messages": {
        "fp32": FORMATS["fp32"],
        **{
            name: Format("float32", "float32", "float32", FORMATS[name].storage, "node features are rounded")
            for name in ("bf16", "fp16")
        },
    },  # node features that the convolution gathers along edges
    "product": _PARAMETERS,  # path weights of the symmetric contraction
    "readout": _MATRICES,  # matrices of the readouts
}
_FIXED_POINT = tuple(name for name, each in FORMATS.items() if each.storage.startswith("int"))
LAYERED = ("radial", "linear", "messages", "product")

# name -> choices: the rows of docs/precision.md
PRESETS: dict[str, tuple[str, dict[str, str]]] = {
    "fp64": ("fp64", {}),
    "fp32": ("fp32", {}),
    "bf16": ("fp32", {"linear": "bf16"}),
    "fp16": ("fp32", {"linear": "fp16"}),
    "w16": ("fp32", {"radial": "w16", "linear": "w16", "product": "w16", "readout": "w16"}),
    "w8": ("fp32", {"radial": "w16", "linear": "w8", "product": "w16", "readout": "w16"}),
    "w8a16": ("fp32", {"radial": "w16a16", "linear": "w8a16", "product": "w16", "readout": "w16"}),
    "w8a8": ("fp32", {"radial": "w16a16", "linear": "w8a8", "product": "w16", "readout": "w16"}),
}

# mace-torch keeps the couplings of a network trained in float32 rounded to it, ours are exact: 6e-8 for each of the
# half dozen couplings in a product. Measured on three such networks: up to 1.3e-8 eV/atom, 2.4e-8 eV/Å.
ROUNDED_COUPLINGS = Tolerance(1e-7, 1e-6, 1e-7)
# fp64: mace-torch and the artifact differ by summation order only. fp32: unit roundoff 6e-8, amplified by
# some hundred additions and the cancellation between edges; measured on water 8e-6 eV/Å, bound 13x that.
_BASE_TOLERANCE = {"fp64": Tolerance(1e-9, 1e-8, 1e-9), "fp32": Tolerance(1e-5, 1e-4, 1e-5)}
# What the coarsest format of a policy may add, in eV/Å and, a tenth of it, in eV/atom and eV/Å³: a gate against broken
# files (overflow, a wrong scale). Measured by `measure_fidelity` on water and the six worst of 31 architectures with
# random weights, largest force errors: bf16 0.013, fp16 0.0013, w16 0.0007, w8 and w8a16 0.033, w8a8 0.049 (water);
# energies reach 0.4 of their bound. Knots cost more, for dR/dr is their difference over a step: radial=w8 0.40,
# radial=bf16 0.09. How good a policy is, `compare` says.
_FORMAT_TOLERANCE = {
    "fp32": 0.0,
    "w16": 0.005,
    "w16a16": 0.005,
    "fp16": 0.02,
    "bf16": 0.2,
    "w8": 0.4,
    "w8a16": 0.4,
    "w8a8": 0.6,
}

Choice = tuple[str, int, str]  # role, layer (0: all), format


@dataclass(frozen=True)
class Precision:
    """The number type of each part of the network.

    Geometry enters and energies and forces leave in float64 whatever the policy; E0s and the sum over atoms are float64
    always; sums over neighbours are never below float32.

    Attributes:
        base: "fp64" or "fp32", the type of all that no choice names.
        choices: role, layer (0: all layers) and format, in the order of `ROLES`, without what is the base's anyway.
    """

    base: str
    choices: tuple[Choice, ...] = ()

    @classmethod
    def parse(cls, text: "str | Precision") -> "Precision":
        """The policy that `text` names: a preset, or a base with choices.

        Raises:
            PrecisionError: no such preset, base, role or format, or they do not go together; the message lists the legal
                ones.
        """
        if isinstance(text, Precision):
            return text
        first, *rest = [part.strip() for part in str(text).split(",")]
        if not rest and first in PRESETS:
            base, formats = PRESETS[first]
            return cls.make(base, {(role, 0): name for role, name in formats.items()})
        if first not in BASES:
            legal = (*PRESETS, f"{BASES[1]},ROLE=FORMAT")
            hint = _hint(first, PRESETS)
            if first in PRESETS:
                hint = f"; a preset takes no choices: begin with {cls.parse(first).spell()}"
            elif first == "mixed":
                hint = "; `mdplugin tune` finds a mixed policy and exports it"
            raise PrecisionError(f"precision: expected one of {', '.join(legal)}, got '{text}'{hint}")
        choices: dict[tuple[str, int], str] = {}
        for word in rest:
            key, name = _parse_choice(word)
            if key in choices:
                raise PrecisionError(
                    f"precision: expected one choice of '{word.split('=')[0].strip()}', got two in '{text}'"
                )
            choices[key] = name
        return cls.make(first, choices)

    @classmethod
    def make(cls, base: str, choices: "dict[tuple[str, int], str]") -> "Precision":
        """The policy of formats by (role, layer), 0 for all layers.

        Raises:
            PrecisionError: choices beside fp64.
        """
        if base == "fp64" and choices:
            raise PrecisionError("precision: fp64 is the reference and takes no choices; begin with fp32")
        kept = [
            (role, layer, name)
            for (role, layer), name in choices.items()
            if name != (choices.get((role, 0), "fp32") if layer else "fp32")
        ]
        return cls(base, tuple(sorted(kept, key=lambda c: (list(ROLES).index(c[0]), c[1]))))

    def __str__(self) -> str:
        return self._names.get(self, self.spell())

    def spell(self) -> str:
        """Base and choices, also where the policy has a name."""
        return ",".join([self.base, *map(_spell_choice, self.choices)])

    def explain(self) -> list[str]:
        """Lines for a reader: the full spelling, every choice with its types, what that means; none for a base alone."""
        if not self.choices:
            return []
        lines = [self.spell()]
        for choice in self.choices:
            role, _, name = choice
            kept = ROLES[role][name]
            types = f"stored {kept.storage}, multiplied {kept.compute}, summed {kept.accumulate}"
            lines.append(f"{_spell_choice(choice)}: {types}; {kept.note}")
        meaning = (
            "rounds state: forces carry noise, and are not the exact gradient of an energy"
            if self.rounds_state
            else "rounds parameters only: forces stay the exact gradient of a smooth, equivariant energy"
        )
        return [*lines, meaning]

    @property
    def _names(self) -> "dict[Precision, str]":
        return {Precision.parse(name): name for name in PRESETS}

    def format(self, role: str, layer: int = 0) -> str:
        """Name of the format of a role, in a layer (1 is the first) where the role has layers."""
        found = {where: name for kind, where, name in self.choices if kind == role}
        return found.get(layer, found.get(0, "fp32"))

    @property
    def rounds_state(self) -> bool:
        """Whether anything but parameters is rounded below the base type."""
        return any(ROLES[role][name].state for role, _, name in self.choices)

    def require_layers(self, n_layers: int) -> None:
        """Refuse a choice for a layer that the network does not have.

        Raises:
            PrecisionError: names it.
        """
        for role, layer, name in self.choices:
            if layer > n_layers:
                raise PrecisionError(f"precision: {role}.{layer}={name}: the network has {n_layers} layers")

    @property
    def can_calibrate(self) -> bool:
        """Whether matrices between the layers are kept in fixed point: these are what calibration rounds."""
        return any(role == "linear" and name in _FIXED_POINT for role, _, name in self.choices)

    def require_fixed_point(self) -> None:
        """Refuse to calibrate where no matrix between the layers is kept in fixed point.

        Raises:
            PrecisionError: says which formats are.
        """
        if not self.can_calibrate:
            raise PrecisionError(
                f"calibrate: expected a policy with linear={' or '.join(_FIXED_POINT)}, got {self}"
            )

    def allowed(self, trained_dtype: str) -> Tolerance:
        """The tolerance for a network trained in "float32" or "float64"."""
        added = max(
            (_FORMAT_TOLERANCE[name] * (4 if role == "radial" else 1) for role, _, name in self.choices),
            default=0.0,
        )
        base = _BASE_TOLERANCE[self.base]
        tolerance = Tolerance(
            base.energy_eV_per_atom + added / 10,
            base.force_eV_per_A + added,
            base.stress_eV_per_A3 + added / 10,
        )
        if trained_dtype == "float64":
            return tolerance
        return Tolerance(*map(max, astuple(tolerance), astuple(ROUNDED_COUPLINGS)))

    @property
    def compute(self) -> str:
        """Name of the base type."""
        return {"fp64": "float64", "fp32": "float32"}[self.base]

    @cached_property
    def dtype(self) -> "torch.dtype":
        """The torch type of `compute`."""
        import torch

        return getattr(torch, self.compute)


def _spell_choice(choice: Choice) -> str:
    role, layer, name = choice
    return f"{role}.{layer}={name}" if layer else f"{role}={name}"


def _parse_choice(word: str) -> tuple[tuple[str, int], str]:
    where, _, name = map(str.strip, word.partition("="))
    role, dot, layer = where.partition(".")
    if role not in ROLES:
        raise PrecisionError(
            f"precision: expected a role of {', '.join(ROLES)}, got '{word}'{_hint(role, ROLES)}"
        )
    if dot and not (layer.isdecimal() and int(layer) > 0 and role in LAYERED):
        raise PrecisionError(
            f"precision: expected {role} or, of {', '.join(LAYERED)}, one layer as linear.1, got '{word}'"
        )
    if name not in ROLES[role]:
        raise PrecisionError(
            f"precision: {role}: expected one of {', '.join(ROLES[role])}, got '{word}'{_hint(name, ROLES[role])}"
        )
    return (role, int(layer) if dot else 0), name


def _hint(text: str, legal) -> str:
    close = difflib.get_close_matches(text, list(legal), n=1)
    return f"; did you mean {close[0]}?" if close else ""
