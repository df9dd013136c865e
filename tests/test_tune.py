"""mdplugin tune: the search against brute force, and the choice on planted times."""

import itertools

import numpy as np
import pytest

from mdplugin.bounds import QUANTITIES
from mdplugin.compare import Effort
from mdplugin.errors import BoundError
from mdplugin.precision import Precision
from mdplugin.tune.blocks import Block, combine, list_blocks
from mdplugin.tune.budget import excess, hold, parse_budget
from mdplugin.tune.search import Measured, Option, Prediction, choose, is_faster, pareto, rank
from mdplugin.tune.timing import LEAST_HALF, Timing, summarize
from mdplugin.tune.tuner import tune

# ------------------------------------------------------------------------------------ search


def random_problem(seed, n_blocks=4, n_quantities=2):
    """Options of every block, some of them slower than the base type and some dominated."""
    random = np.random.default_rng(seed)
    return {
        f"block {b}": [
            Option(f"format {k}", random.uniform(-0.2, 1.0), tuple(random.uniform(0, 1, n_quantities) ** 2))
            for k in range(random.integers(1, 5))
        ]
        for b in range(n_blocks)
    }


def every_policy(options, base):
    """(time, squares, formats) of all combinations under the additive model."""
    none = Option("", 0.0, (0.0,) * len(base.squares))
    for chosen in itertools.product(*([none, *each] for each in options.values())):
        ms = base.ms - sum(option.saved_ms for option in chosen)
        squares = np.array(base.squares) + np.sum([option.added for option in chosen], axis=0)
        names = zip(options, (option.name for option in chosen), strict=True)
        yield ms, squares, {block: name for block, name in names if name}


@pytest.mark.parametrize("seed", range(20))
def test_the_ranking_is_that_of_brute_force(seed):
    """Dropping dominated formats loses no policy that is not beaten by another inside the limits."""
    options, base, limits = random_problem(seed), Prediction({}, 10.0, (0.1, 0.01)), (0.9, 0.7)
    inside = [each for each in every_policy(options, base) if (each[1] <= limits).all()]
    ranking = list(rank(options, base, limits))
    assert ranking[0].ms == pytest.approx(min(ms for ms, _, _ in inside), abs=1e-12)
    assert [each.ms for each in ranking] == sorted(each.ms for each in ranking)
    assert all((np.array(each.squares) <= limits).all() for each in ranking)
    found = [each.formats for each in ranking]
    assert len(found) == len({tuple(each.items()) for each in found})
    for ms, squares, formats in inside:
        beaten = any(
            each.ms <= ms + 1e-12 and (np.array(each.squares) <= squares + 1e-12).all() for each in ranking
        )
        assert formats in found or beaten


def test_equally_fast_policies_are_ranked_by_error():
    options = {"a": [Option("coarse", 1.0, (0.5,))], "b": [Option("useless", 0.0, (0.1,))]}
    assert [each.formats for each in rank(options, Prediction({}, 5.0, (0.0,)), (1.0,))] == [
        {"a": "coarse"},
        {},
    ]


def test_nothing_is_ranked_where_the_base_type_is_outside():
    assert list(rank(random_problem(0), Prediction({}, 10.0, (1.0, 0.0)), (0.9, 0.7))) == []


def policy(name, ms, half, force_rmse, is_inside=True):
    return Measured(name, ms, ms - half, ms + half, force_rmse, is_inside)


def test_a_policy_is_faster_only_beyond_the_noise():
    slow, fast, blurred = (
        policy("slow", 10, 0.2, 0),
        policy("fast", 9, 0.2, 1),
        policy("blurred", 9.7, 0.2, 2),
    )
    assert is_faster(fast, slow) and not is_faster(slow, fast)
    assert choose([slow, fast]) is fast
    assert choose([slow, blurred]) is slow  # the error buys no time that was measured
    assert choose([slow, fast, policy("out", 5, 0.1, 0, is_inside=False)]) is fast
    assert choose([policy("out", 5, 0.1, 0, is_inside=False)]) is None


@pytest.mark.parametrize("seed", range(20))
def test_nothing_inside_the_budget_is_faster_than_the_choice(seed):
    random = np.random.default_rng(seed)
    policies = [
        policy(
            str(i), random.uniform(9, 10), random.uniform(0, 0.3), random.uniform(), random.uniform() < 0.7
        )
        for i in range(12)
    ]
    chosen = choose(policies)
    assert chosen.is_inside and not any(is_faster(each, chosen) for each in policies if each.is_inside)
    assert choose(policies[::-1]) == chosen


def test_the_front_is_what_no_other_point_beats():
    points = [(3.0, 1.0), (1.0, 9.0), (2.0, 9.5), (2.0, 4.0), (4.0, 1.0)]
    assert pareto(points) == [1, 3, 0]


# ------------------------------------------------------------------------------------ times


def test_what_slows_a_whole_round_is_no_difference_between_policies():
    random = np.random.default_rng(0)
    load = random.uniform(1, 3, size=31)
    timings = summarize([{"a": 10 * x, "b": 11 * x, "c": 12 * x} for x in load])
    for name, expected in (("a", 10 / 11), ("c", 12 / 11)):
        assert timings[name].ms / timings["b"].ms == pytest.approx(expected)
        half = (timings[name].high_ms - timings[name].low_ms) / 2
        assert half == pytest.approx(LEAST_HALF * timings[name].ms)  # no noise is left


def test_the_interval_of_a_median_narrows_with_rounds():
    random = np.random.default_rng(1)

    def width(n_rounds):
        rounds = [dict(zip("abcde", random.normal(10, 0.5, 5), strict=True)) for _ in range(n_rounds)]
        return np.mean([each.high_ms - each.low_ms for each in summarize(rounds).values()])

    assert width(400) == pytest.approx(width(25) / 4, rel=0.4)


# ------------------------------------------------------------------------------------ blocks and budget


def test_blocks_are_the_roles_in_every_layer_without_messages():
    names = [str(block) for block in list_blocks(2)]
    assert names == ["radial.1", "radial.2", "linear.1", "linear.2", "product.1", "product.2", "readout"]


def test_combined_formats_are_policies_that_round_trip_and_find_their_names():
    policy = combine({Block("linear", 1): "w8", Block("readout"): "bf16"}, 2)
    assert str(policy) == "fp32,linear.1=w8,readout=bf16" and Precision.parse(str(policy)) == policy
    assert str(combine({Block("linear", layer): "bf16" for layer in (1, 2)}, 2)) == "bf16"
    assert str(combine({block: "w16" for block in list_blocks(2)}, 2)) == "w16"
    assert str(combine({}, 2)) == "fp32"


@pytest.mark.parametrize(
    "text", ["speed=2", "force-rmse=1eV/A", "force-rmse=1,force-rmse=2", "force-rmse", ""]
)
def test_a_budget_that_makes_no_sense_is_refused_with_what_is_legal(text):
    with pytest.raises(BoundError, match=r"^budget: .*expected") as refusal:
        parse_budget(text)
    assert "force-rmse" in str(refusal.value)


def row_of(force_rmse, noise=0.0, is_resolved=True, roughness=0.0):
    """What `hold` reads of a row, zero where the arguments do not say otherwise."""
    row = {"float64": {}, "equivariance": {}, "smoothness": {}, "file_MB": 1.0}
    for quantity in QUANTITIES.values():
        part, field = quantity.field
        row[part][field] = 0.0
    row["float64"]["force_rmse_meV_per_A"] = force_rmse
    row["smoothness"] |= {"force_noise_meV_per_A": noise, "is_noise_resolved": is_resolved}
    row["smoothness"]["force_roughness_meV_per_A"] = roughness
    return row


def test_an_unresolved_noise_is_judged_by_the_roughness():
    budget = {"force-noise": 1.0}
    assert hold(row_of(0, noise=5.0, is_resolved=False, roughness=0.5), budget)[0].outcome == "pass"
    assert hold(row_of(0, noise=0.0, is_resolved=False, roughness=1.5), budget)[0].outcome == "fail"
    assert hold(row_of(0, noise=5.0, is_resolved=True, roughness=0.5), budget)[0].outcome == "fail"
    assert hold(row_of(0, is_resolved=False), budget)[0].name == "force-roughness"
    assert hold(row_of(0, is_resolved=True), budget)[0].name == "force-noise"


def test_the_excess_is_of_the_worst_finding():
    times, finding = excess(hold(row_of(3.0, noise=0.5), {"force-noise": 1.0, "force-rmse": 1.5}))
    assert (times, finding.name) == (2.0, "force-rmse")


# ------------------------------------------------------------------------------------ the tuner in a planted world


class PlantedWorkshop:
    """Policies of one layer whose savings and squared errors add exactly, and times without noise."""

    class checkpoint:  # noqa: N801
        n_layers, name = 1, "planted"

    def __init__(self, seed):
        random = np.random.default_rng(seed)
        self.effects = {
            (block.role, name): (random.uniform(0.0, 2.0), random.uniform(0, 1))
            for block in list_blocks(1)
            for name in block.formats
        }

    def evaluate(self, policy):
        """Time in ms, and force error."""
        if policy.base == "fp64":
            return 20.0, 1e-7
        effects = [self.effects[role, name] for role, _, name in policy.choices]
        return 10.0 - sum(e[0] for e in effects), float(np.sqrt(1e-6 + sum(e[1] ** 2 for e in effects)))

    def measure(self, policy, effort):
        return row_of(self.evaluate(policy)[1])

    def time(self, policies, effort):
        return {each: Timing(*[self.evaluate(each)[0]] * 3) for each in policies}


def every_fp32_policy():
    blocks = list_blocks(1)
    for names in itertools.product(*(("fp32", *block.formats) for block in blocks)):
        yield combine(dict(zip(blocks, names, strict=True)), 1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bound", [0.2, 0.6, 1.2])
def test_in_a_planted_additive_world_the_fastest_policy_of_all_is_found(seed, bound):
    workshop = PlantedWorkshop(seed)
    outcome = tune(workshop, {"force-rmse": bound}, Effort(), 8)
    best = min(ms for ms, error in map(workshop.evaluate, every_fp32_policy()) if error <= bound)
    assert outcome.chosen.timing.ms == pytest.approx(best, abs=1e-9) and outcome.chosen.is_inside


def test_budgets_that_only_presets_meet_give_those_and_an_impossible_one_names_the_nearest():
    workshop = PlantedWorkshop(0)
    for bound, name in ((1.01e-3, "fp32"), (1e-4, "fp64")):
        assert str(tune(workshop, {"force-rmse": bound}, Effort(), 4).chosen.policy) == name
    outcome = tune(workshop, {"force-rmse": 1e-9}, Effort(), 4)
    assert outcome.chosen is None and str(outcome.nearest.policy) == "fp64" and outcome.singles == ()
