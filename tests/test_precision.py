"""A policy is a value with one spelling: it round-trips, and what it cannot be is refused with the legal list."""

import itertools
import subprocess
import sys

import pytest
import torch
from architectures import build, save_from

import mdplugin
from mdplugin.errors import PrecisionError, Unsupported
from mdplugin.network_e3nn import build_e3nn
from mdplugin.network_native import build_native
from mdplugin.precision import BASES, FORMATS, LAYERED, PRESETS, ROLES, Precision

CHOICES = [(role, name) for role, formats in ROLES.items() for name in formats]


def round_trip(text):
    policy = Precision.parse(text)
    assert Precision.parse(str(policy)) == policy and Precision.parse(policy.spell()) == policy
    assert Precision.parse(policy) is policy
    assert hash(Precision.parse(str(policy))) == hash(policy)
    return policy


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_their_names(name):
    policy = round_trip(name)
    assert str(policy) == name
    base, formats = PRESETS[name]
    assert all(policy.format(role, 1) == formats.get(role, "fp32") for role in ROLES)
    assert str(Precision.parse(policy.spell())) == name  # a spelt preset is called by its name
    assert policy.dtype == {"fp64": torch.float64, "fp32": torch.float32}[base]
    assert policy.compute == str(policy.dtype).removeprefix("torch.")


@pytest.mark.parametrize(("role", "name"), CHOICES)
def test_every_format_of_every_role_round_trips(role, name):
    policy = round_trip(f"fp32,{role}={name}")
    assert policy.format(role) == policy.format(role, 1) == name
    assert all(policy.format(other, 2) == "fp32" for other in ROLES if other != role)
    assert policy.choices == (() if name == "fp32" else ((role, 0, name),))
    if role in LAYERED:
        policy = round_trip(f"fp32,{role}.2={name}")
        assert [policy.format(role, layer) for layer in (1, 2, 3)] == ["fp32", name, "fp32"]


def test_two_choices_in_either_order_are_one_policy():
    for (a, x), (b, y) in itertools.combinations(CHOICES, 2):
        if a == b:
            continue
        policy = round_trip(f"fp32,{a}={x},{b}={y}")
        assert policy == round_trip(f"fp32,{b}={y},{a}={x}")
        assert str(policy) == str(Precision.parse(f"fp32,{b}={y},{a}={x}"))
        assert (policy.format(a), policy.format(b)) == (x, y)


def test_a_layers_choice_goes_before_its_roles():
    for role in LAYERED:
        for x, y in itertools.product(ROLES[role], repeat=2):
            policy = round_trip(f"fp32,{role}={x},{role}.2={y}")
            assert policy == round_trip(f"fp32,{role}.2={y},{role}={x}")
            assert [policy.format(role, layer) for layer in (1, 2, 3)] == [x, y, x]
            assert (x == y) == all(
                layer == 0 for _, layer, _ in policy.choices
            )  # no choice repeats the role's


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("fp32,linear=fp32", "fp32"),
        ("fp32,linear.1=fp32", "fp32"),
        ("fp32,linear=bf16", "bf16"),
        ("fp32,linear=bf16,linear.2=bf16,radial.1=fp32", "bf16"),
        ("fp32,linear.02=w8", "fp32,linear.2=w8"),
        ("fp32,linear=w8,radial=w16", "fp32,radial=w16,linear=w8"),
        ("fp32,linear.2=w8,linear.1=w16,linear=bf16", "fp32,linear=bf16,linear.1=w16,linear.2=w8"),
        ("fp32,readout=w16,product=w16,linear=w8,radial=w16", "w8"),
        ("fp32,linear.10=w8,linear.9=w8", "fp32,linear.9=w8,linear.10=w8"),
        ("fp32,linear=w8,linear.1=fp32", "fp32,linear=w8,linear.1=fp32"),
        ("fp32, linear=w8", "fp32,linear=w8"),
        (" fp32 ,linear.1 = w8 ", "fp32,linear.1=w8"),
        (" w8\n", "w8"),
    ],
)
def test_the_canonical_form_says_nothing_twice(text, canonical):
    assert str(round_trip(text)) == canonical


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected one of fp64, fp32, bf16, fp16, w16, w8, w8a16, w8a8, fp32,ROLE=FORMAT, got ''"),
        ("int4", "expected one of fp64, .*, got 'int4'"),
        ("FP32", "got 'FP32'"),
        ("w8a18", "got 'w8a18'; did you mean w8a8"),
        ("w8,linear=bf16", "expected one of fp64, .*, fp32,ROLE=FORMAT, got 'w8,linear=bf16'"),
        ("bf16,linear=w8", "got 'bf16,linear=w8'"),
        ("linear=w8", "got 'linear=w8'"),
        ("fp64,linear=w8", "fp64 is the reference and takes no choices; begin with fp32"),
        ("fp64,linear=fp32", "fp64 is the reference and takes no choices"),
        ("fp32,", f"expected a role of {', '.join(ROLES)}, got ''"),
        ("fp32,liner=w8", f"expected a role of {', '.join(ROLES)}, got 'liner=w8'; did you mean linear?"),
        ("fp32,linear", "linear: expected one of fp32, w16, w8, bf16, fp16, w8a16, w8a8, got 'linear'"),
        ("fp32,linear=", "linear: expected one of .*, got 'linear='"),
        ("fp32,linear=w9", "linear: expected one of .*, got 'linear=w9'"),
        ("fp32,linear=fp64", "linear: expected one of .*, got 'linear=fp64'"),
        ("fp32,linear=w16a16", "linear: expected one of .*, got 'linear=w16a16'; did you mean"),
        ("fp32,radial=w8a16", "radial: expected one of fp32, w16, w8, bf16, fp16, w16a16, got 'radial=w8a16'"),
        ("fp32,messages=w8", "messages: expected one of fp32, bf16, fp16, got 'messages=w8'"),
        ("fp32,product=w8a8", "product: expected one of fp32, w16, w8, bf16, fp16, got 'product=w8a8'"),
        ("fp32,readout=w8a16", "readout: expected one of fp32, w16, w8, bf16, fp16, got"),
        ("fp32,linear=w8,linear=w8", "expected one choice of 'linear', got two"),
        ("fp32,linear.1=w8,linear.01=w16", "expected one choice of 'linear.01', got two"),
        ("fp32,linear.0=w8", "one layer as linear.1, got 'linear.0=w8'"),
        ("fp32,linear.-1=w8", "one layer as linear.1, got 'linear.-1=w8'"),
        ("fp32,linear.=w8", "one layer as linear.1, got 'linear.=w8'"),
        ("fp32,linear.x=w8", "one layer as linear.1"),
        ("fp32,readout.1=w8", "expected readout or, of radial, linear, messages, product, one layer as linear.1"),
        ("fp32,linear = w8, linear=w16", "expected one choice of 'linear', got two"),
        ("fp32, ", f"expected a role of {', '.join(ROLES)}, got ''"),
        ("fp32,line ar=w8", "got 'line ar=w8'; did you mean linear?"),
        ("fp32,linear=w8=w8", "got 'linear=w8=w8'"),
    ],
)  # fmt: skip
def test_what_is_no_policy_is_refused_with_what_is(text, said):
    with pytest.raises(PrecisionError, match=said.replace("?", r"\?")) as error:
        Precision.parse(text)
    assert "\n" not in str(error.value) and str(error.value).startswith("precision: ")


def test_every_other_word_is_refused_for_every_role():
    for role, name in itertools.product(ROLES, [*FORMATS, "w16a16", *BASES]):
        if name in ROLES[role]:
            continue
        with pytest.raises(PrecisionError, match=f"{role}: expected one of {', '.join(ROLES[role])}"):
            Precision.parse(f"fp32,{role}={name}")


def test_only_parameters_are_rounded_or_it_is_said():
    """rounds_state: whether forces keep being the exact gradient of a smooth energy."""
    rounding = {"bf16", "fp16", "w8a16", "w8a8"}
    assert {name for name in PRESETS if Precision.parse(name).rounds_state} == rounding
    for role, name in CHOICES:
        short = name in {"linear": rounding, "readout": {"bf16", "fp16"}, "messages": {"bf16", "fp16"},
                         "radial": {"w16a16"}, "product": set()}[role]  # fmt: skip
        for where in (role, f"{role}.1") if role in LAYERED else (role,):
            assert Precision.parse(f"fp32,{where}={name}").rounds_state == short
    assert Precision.parse("fp32,linear=w8,linear.2=w8a8").rounds_state


def test_a_policy_is_explained_by_its_spelling_and_a_line_per_choice():
    assert Precision.parse("fp64").explain() == Precision.parse("fp32").explain() == []
    spelling, *choices, meaning = Precision.parse("fp32,radial=w16a16,linear=w8,linear.1=fp32").explain()
    assert spelling == "fp32,radial=w16a16,linear=w8,linear.1=fp32"
    assert choices == [
        "radial=w16a16: stored int16, multiplied int16, summed int32; 16-bit knots times weights of 16 bits, exact sums",
        "linear=w8: stored int8, multiplied float32, summed float32; fixed point, 8 bits per parameter",
        "linear.1=fp32: stored float32, multiplied float32, summed float32; the base type",
    ]
    assert meaning.startswith("rounds state: forces carry noise")
    for text in ("w8", "fp32,radial=bf16"):
        assert Precision.parse(text).explain()[-1].startswith("rounds parameters only: forces stay the exact")


def test_tolerances_grow_with_what_is_rounded():
    for trained in ("float32", "float64"):
        fp32 = Precision.parse("fp32").allowed(trained)
        for role, name in CHOICES:
            allowed = Precision.parse(f"fp32,{role}={name}").allowed(trained)
            assert allowed == fp32 if name == "fp32" else allowed.force_eV_per_A > fp32.force_eV_per_A


# --- what a network cannot have ---


def test_a_layer_that_the_network_has_not_is_refused():
    policy = Precision.parse("fp32,linear.3=w8")
    policy.require_layers(3)
    with pytest.raises(PrecisionError, match=r"precision: linear\.3=w8: the network has 2 layers"):
        policy.require_layers(2)
    with pytest.raises(PrecisionError, match=r"radial\.3=w16: the network has 2 layers"):
        build_native(build("plain-residual"), Precision.parse("fp32,radial.3=w16"))


@pytest.mark.parametrize("text", ["w8", "bf16", "fp32,messages.1=fp16"])
def test_mace_torchs_blocks_are_not_sold_as_low_precision(tmp_path, text):
    """They would compute in float32 under the policy's name."""
    target = tmp_path / "a.pt"
    with pytest.raises(PrecisionError, match=f"backend e3nn computes in fp64, fp32 alone, got '{text}'"):
        build_e3nn(build("plain-residual"), Precision.parse(text))
    with pytest.raises(PrecisionError, match="backend e3nn computes in fp64, fp32 alone"):
        mdplugin.export_model("no such model", target, text, backend="e3nn")  # before any work
    assert not target.exists()


def test_low_precision_never_falls_back(tmp_path):
    block = "RealAgnosticResidualNonLinearInteractionBlock"
    source = save_from(tmp_path / "jump.model", first=block, later=block, apply_cutoff=True)
    for backend in ("auto", "native"):
        with pytest.raises(Unsupported) as error:
            mdplugin.export_model(source, tmp_path / "a.pt", "w8", backend=backend)
        assert "\n" not in str(error.value) and block in str(error.value)
        if backend == "auto":
            assert "as w8: low precision takes the native engine, which has no" in str(error.value)
            assert str(error.value).endswith("try --precision fp32")
    assert not (tmp_path / "a.pt").exists()


@pytest.mark.parametrize(
    "code", ["from mdplugin import cli; cli.build_parser()", "import mdplugin.validation.workspace"]
)
def test_what_only_names_policies_starts_without_torch(code):
    """`mdplugin --help`, and each of a validation's runs in LAMMPS, which loads torch's libraries itself."""
    check = f"import sys; {code}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-P", "-c", check], check=True)
