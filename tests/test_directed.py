"""lensnb.directed: direction of every move, nested sets, agreement with the ladder, coverage where the truth is known,
a wrong sign that must break, refusals, speed."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensnb.bounds import MonotoneResponse, OutcomeRange, carry_limits
from lensnb.directed import (
    LIMITS,
    ConformalMachine,
    KnownSigns,
    Mover,
    anchor_in_words,
    carried,
    choose_sources,
    move_prices,
    nearest_sources,
    nest,
    settle,
    supported_at,
    tight_frame,
    tighten,
    tighten_risks,
    vault_signs,
)
from lensnb.intervals import CrossConformal
from lensnb.overlap import SupportEstimator
from lensnb.schema import InputError

LEVELS = np.array([1.0, 2.0, 3.0, 4.0])
DRIVERS = ["chooser", "width", "depth"]
NAMES = ["level", "width", "depth"]
SIGNS = KnownSigns({"width": -1, "depth": 1, "chooser": 0}, {"chooser": 20.0})


# A world: the level follows `chooser`; the outcome falls with width, rises with depth and level


def world(n: int, seed: int, slope: float = -150.0, direct: float = 0.0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, 3)) @ np.linalg.cholesky([[1, 0.67, 0.3], [0.67, 1, 0.2], [0.3, 0.2, 1]]).T
    X = pd.DataFrame(z, columns=DRIVERS)
    place = np.searchsorted([-2.2, -0.7, 0.9], X["chooser"] + 0.35 * rng.standard_normal(n))
    mean = 700 + slope * X["width"] + 40 * X["depth"] + direct * X["chooser"]
    truth = (mean.to_numpy()[:, None] + 250 * (LEVELS - 3) + 220 * rng.standard_normal((n, 1))).clip(0, 2000)
    return X.assign(level=LEVELS[place], y=truth[np.arange(n), place], patient=np.arange(n)), truth


class Line:
    def fit(self, X, y, sample_weight=None):
        self.coef = np.linalg.lstsq(np.column_stack([np.ones(len(X)), X]), y, rcond=None)[0]
        return self

    def predict(self, X):
        return np.column_stack([np.ones(len(X)), X]) @ self.coef


class Fitted:
    def __init__(self, units):
        y, level, patient = (units[c].to_numpy() for c in ("y", "level", "patient"))
        self.conformal = CrossConformal(Line, 10, outcome_range=(0, 2000)).fit(units[NAMES], y, level, patient)
        self.model = Line().fit(units[NAMES], y)
        self.support = SupportEstimator(LEVELS).fit(units[DRIVERS], level, patient)
        self.loss = dict(zip(NAMES[1:], self.model.coef[2:]))

    def ask(self, new, signs=SIGNS, **options):
        def features(rows, level, drivers):
            moved = pd.DataFrame(drivers, columns=DRIVERS)
            return pd.DataFrame({"level": level, "width": moved["width"], "depth": moved["depth"]})

        machine = ConformalMachine(self.conformal, self.model.predict, features, LEVELS)
        anchors = Mover(self.support, signs, self.loss).move(new).only(self.conformal.patients(LEVELS) >= 19)
        known = machine.known(anchors, new[DRIVERS].to_numpy(), 0.1)
        options = {"hi": 2000.0, "step": (0.0, 500.0), **options}
        return tighten(machine, anchors, known, 0.1, 0.0, **options), known, machine


@pytest.fixture(scope="module")
def fitted():
    return Fitted(world(450, 1)[0])


@pytest.fixture(scope="module")
def answer(fitted):
    return fitted.ask(world(250, 2)[0])


# The assumption


def test_signs_are_data():
    assert KnownSigns.from_dict(json.loads(json.dumps(SIGNS.to_dict()))) == SIGNS
    assert SIGNS.sentence == (
        "given the others, the outcome does not rise with width; does not fall with depth; "
        "changes by at most 20 for one unit of chooser"
    )
    assert "does not depend on a" in KnownSigns({"a": 0}).sentence
    assert KnownSigns({"a": 0}, words="as the surgeon says").sentence == "as the surgeon says"


@pytest.mark.parametrize(
    "signs, most", [({"a": 2}, {}), ({"a": 1}, {"b": 1.0}), ({"a": 0}, {"a": -1.0}), ({"a": 0}, {"a": np.nan})]
)
def test_bad_signs_are_refused(signs, most):
    with pytest.raises(InputError):
        KnownSigns(signs, most)


def test_white_to_white_is_neutral_only_beside_an_inner_width():
    assert vault_signs(["wtw_mm", "acd_mm", "ata_mm"]).signs == {"wtw_mm": 0, "acd_mm": 1, "ata_mm": -1}
    assert vault_signs(["wtw_mm", "sts_h_mm"]).most == {"wtw_mm": 75.0}
    assert vault_signs(["wtw_mm", "acd_mm"]).signs == {"wtw_mm": -1, "acd_mm": 1}
    assert "aca_deg" not in vault_signs(["ata_mm", "aca_deg"]).signs


@given(st.sampled_from([-1, 0, 1]), st.sampled_from([None, 0.0, 30.0]))
def test_prices_mirror_each_other(sign, most):
    price = move_prices(KnownSigns({"a": sign}, {} if most is None else {"a": most}), ["a", "b"])
    assert (price[0] == price[1][:, ::-1]).all() and np.isinf(price[:, 1]).all()
    assert (price[0, 0] == 0).any() or (sign == 0 and most)


# Moves


def test_no_anchor_moves_against_its_sign(fitted):
    new = world(300, 3)[0]
    strict = KnownSigns({"width": -1, "depth": 1})
    a = Mover(fitted.support, strict, fitted.loss).move(new)
    go = a.at - new[DRIVERS].to_numpy()[:, None, None]
    assert (go[:, :, 0, 1] >= 0).all() and (go[:, :, 0, 2] <= 0).all()
    assert (go[:, :, 1, 1] <= 0).all() and (go[:, :, 1, 2] >= 0).all()
    assert (go[..., 0] == 0).all() and (a.cost == 0).all()
    assert (a.found & ~a.own[:, :, None]).any()


def test_anchors_are_supported_and_units_with_support_stay(fitted):
    new = world(300, 3)[0]
    a = Mover(fitted.support, SIGNS, fitted.loss).move(new)
    status = (fitted.support.predict(new[DRIVERS])["status"] == "supported").to_numpy().reshape(-1, 4)
    assert (a.own == status).all()
    assert (a.at[a.own] == np.repeat(new[DRIVERS].to_numpy()[:, None], 4, 1)[a.own][:, None]).all()
    for j in range(4):
        Z = fitted.support._standardize(pd.DataFrame(a.at[:, j].reshape(-1, 3), columns=DRIVERS))
        assert supported_at(fitted.support, Z, j)[a.found[:, j].ravel()].all()
    assert np.allclose(a.cost[..., 0], 20 * np.abs(a.at[..., 0, 0] - new["chooser"].to_numpy()[:, None]))


def test_more_declared_directions_never_lose_an_anchor_or_units_their_order(fitted):
    new = world(200, 4)[0]
    few = Mover(fitted.support, KnownSigns({}), fitted.loss).move(new)
    assert not few.found[~few.own].any()
    a = Mover(fitted.support, SIGNS, fitted.loss).move(new)
    turned = Mover(fitted.support, SIGNS, fitted.loss).move(new.iloc[::-1])
    one = Mover(fitted.support, SIGNS, fitted.loss).move(new.iloc[[7]])
    assert np.array_equal(a.at, Mover(fitted.support, SIGNS, fitted.loss).move(new[DRIVERS].to_numpy()).at)
    assert np.array_equal(a.at, turned.at[::-1]) and np.array_equal(a.at[[7]], one.at)
    assert np.array_equal(a.at, Mover(fitted.support, SIGNS, fitted.loss).move(new, chunk=7).at)


def test_units_of_measurement_do_not_matter(fitted):
    units = world(450, 1)[0]
    scaled = units.assign(width=units["width"] * 10)
    other = SupportEstimator(LEVELS).fit(scaled[DRIVERS], units["level"].to_numpy(), units["patient"])
    new = world(150, 4)[0]
    loss = {**fitted.loss, "width": fitted.loss["width"] / 10}
    a = Mover(fitted.support, SIGNS, fitted.loss).move(new)
    b = Mover(other, SIGNS, loss).move(new.assign(width=new["width"] * 10))
    assert np.array_equal(a.found, b.found) and np.allclose(a.at[..., 1] * 10, b.at[..., 1])


def test_gaps_are_refused(fitted):
    new = world(5, 4)[0]
    with pytest.raises(InputError, match="moved.*`width`"):
        Mover(fitted.support, SIGNS).move(new.assign(width=[1, np.nan, 1, 1, 1]))
    with pytest.raises(InputError, match="no column `depth`"):
        Mover(fitted.support, SIGNS).move(new.drop(columns="depth"))


# Sources and sets


@given(st.lists(st.booleans(), min_size=4, max_size=4), st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_sources_respect_the_order_of_levels(found, mean):
    yes, mean = np.array([found]), np.array([mean], float)
    for side in (0, 1):
        chosen, near = choose_sources(yes, mean, LEVELS, side)[0], nearest_sources(yes, side)[0]
        assert ((chosen >= 0) == (near >= 0)).all()
        for t, s in enumerate(chosen):
            if s < 0:
                continue
            reach = [u for u in range(4) if yes[0, u] and (u <= t if side == 0 else u >= t)]
            assert s in reach and mean[0, s] == (max if side == 0 else min)(mean[0, reach])


numbers = st.integers(0, 20).map(lambda v: 100.0 * v)


@given(*(st.tuples(numbers, numbers) for _ in range(3)))
def test_nested_and_never_empty(inner, outer, full):
    outer = tuple(sorted(outer))
    cell = lambda pair: [np.array([[v]]) for v in pair]
    low, high, clash = nest(tuple(cell(inner)), tuple(cell(outer)), cell(full), 0.0, 2000.0)
    assert outer[0] <= low <= high <= outer[1]
    if clash:
        assert (low, high) == outer


def test_a_silent_side_gives_its_risk_to_the_other():
    one = lambda v: np.array([[v]])
    assert settle([one(0.0), one(900.0)], [one(40.0), one(820.0)], 0, 2000) == (0, 820)
    assert settle([one(300.0), one(2000.0)], [one(360.0), one(1900.0)], 0, 2000) == (360, 2000)
    assert settle([one(300.0), one(900.0)], [one(360.0), one(820.0)], 0, 2000) == (300, 900)


def test_a_limit_at_the_floor_is_not_carried_by_a_step():
    limit, source = np.array([[0.0, 0, 0, 0]]), np.zeros((1, 4), int)
    assert (carried(limit, source, LEVELS, 0, 0, 2000, (100, 200)) == 0).all()
    assert carried(limit + 50, source, LEVELS, 0, 0, 2000, (100, 200)).tolist() == [[50, 150, 250, 350]]


def test_sets_are_nested_finite_and_ordered(answer):
    tight, known, machine = answer
    sets = list(tight.sets.values())
    assert list(tight.sets) == ["R1", "R1+", "R2+"]
    for low, high, _ in sets:
        assert np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all() and (low >= 0).all()
    for (a, b, _), (c, d, _) in zip(sets, sets[1:]):
        assert (c >= a).all() and (d <= b).all()
    away = ~tight.anchors.own
    assert np.median((sets[1][1] - sets[1][0])[away]) < 0.85 * np.median((sets[0][1] - sets[0][0])[away])


def test_base_is_the_ladders(answer):
    tight, known, machine = answer
    n = len(tight.anchors.own)
    limits = pd.DataFrame({"unit": np.repeat(np.arange(n), 4), "level": np.tile(LEVELS, n)})
    limits = limits.assign(supported=tight.anchors.own.ravel(), **{name: known[name].ravel() for name, _, _ in LIMITS})
    ladder = carry_limits(limits, LEVELS, [OutcomeRange(0, 2000), MonotoneResponse(0)]).query("rung == 'R1'")
    both = ladder.merge(tight_frame(tight).query("rung == 'R1'"), on=["unit", "level"])
    assert len(both) == 4 * n
    assert np.allclose(both["lower_x"], both["lower_y"]) and np.allclose(both["upper_x"], both["upper_y"])
    assert (both["certified_under_x"] == both["certified_under_y"]).all()


def test_without_a_move_nothing_but_the_floor_is_gained(fitted):
    tight, _, _ = fitted.ask(world(120, 5)[0], KnownSigns({}), step=None)
    low, high, _ = tight.sets["R1"]
    plus = tight.sets["R1+"]
    assert (plus[0] >= low).all() and (plus[1] <= high).all() and list(tight.sets) == ["R1", "R1+"]
    assert not (tight.anchors.found & ~tight.anchors.own[:, :, None]).any()


def test_outcome_range_of_each_unit(fitted):
    new = world(120, 5)[0]
    ends = np.where(np.arange(120) % 2, 900.0, 2000.0)
    free, _, _ = fitted.ask(new)
    capped, _, _ = fitted.ask(new, hi=ends)
    for rung in free.sets:
        assert (capped.sets[rung][1] <= ends[:, None]).all()
        assert np.array_equal(capped.sets[rung][1][::2], free.sets[rung][1][::2])


def test_frame_and_words(answer):
    tight, _, _ = answer
    table = tight_frame(tight)
    assert len(table) == 3 * tight.anchors.own.size
    assert set(table["certified_under"]) <= {"R0", "R1", "R1+", "R2+", "supported"}
    moved = table.query("rung == 'R1+' and moved_lower > 0")
    assert len(moved) and (moved["anchor_lower"] <= moved["level"]).all() and (moved["status"] == "bounded").all()
    row = moved.iloc[0]
    x = np.zeros(3)
    words = anchor_in_words(tight, int(row["unit"]), int(row["level"]) - 1, 0, x, words={"width": "WIDTH"})
    assert words.startswith(f"given {row['anchor_lower']:g}, with ") and "WIDTH" in words


# Coverage


def misses(slope=-150.0, direct=0.0, seeds=range(5), signs=SIGNS) -> pd.DataFrame:
    parts = []
    for seed in seeds:
        fit, (new, truth) = Fitted(world(450, seed, slope, direct)[0]), world(400, seed + 100, slope, direct)
        tight, _, _ = fit.ask(new, signs)
        unit, level = np.nonzero(~tight.anchors.own)
        rests = tight.told.sources["R1+"][0][unit, level]
        far = np.abs(tight.anchors.at[unit, rests, 0, 1] - new["width"].to_numpy()[unit]) * (rests >= 0)
        for rung, (low, high, _) in tight.sets.items():
            cells = dict(rung=rung, level=level, below=(truth < low)[unit, level], above=(truth > high)[unit, level])
            parts.append(pd.DataFrame(cells | {"far": far, "patient": unit, "width": (high - low)[unit, level]}))
    return pd.concat(parts)


@pytest.fixture(scope="module")
def right():
    return misses()


def test_bounds_hold_in_unsupported_cells(right):
    holds = (~(right["below"] | right["above"])).groupby(right["rung"]).mean()
    assert holds["R1"] >= 0.975 and holds["R1+"] >= 0.95 and holds["R2+"] >= 0.95
    by_level = right.query("rung == 'R1+'").groupby("level")[["below", "above"]].mean()
    assert (by_level.sum(axis=1) <= 0.10).all() and (by_level <= 0.075).all(axis=None)


def test_a_wrong_sign_breaks_the_bound(right):
    wrong = misses(slope=150.0)
    moved = lambda t: t[(t["rung"] == "R1+") & (t["far"] > 0.5)]["below"].mean()
    assert moved(right) < 0.05 and moved(wrong) > 0.12


def test_a_false_neutrality_breaks_the_bound_and_a_fair_price_mends_it(right):
    holds = lambda t: 1 - (t["below"] | t["above"])[t["rung"] == "R1+"].mean()
    false = misses(direct=150.0)
    priced = misses(direct=150.0, signs=KnownSigns(SIGNS.signs, {"chooser": 300.0}))
    assert holds(false) < holds(right) - 0.04
    assert holds(priced) > holds(false) + 0.03 and holds(priced) >= 0.94


# Risks


def test_risks_are_probabilities_and_nested(fitted):
    new, truth = world(300, 9)
    tight, _, machine = fitted.ask(new)
    own, x = tight.anchors.own, new[DRIVERS].to_numpy()
    unit, level = np.nonzero(own)
    low, high = np.zeros(own.shape), np.zeros(own.shape)
    low[unit, level], high[unit, level] = machine.rows(unit, level, x[unit], np.zeros(len(unit))).risks(300, 900)
    r1, plus = (tighten_risks(tight, low, high, (300, 900), 2000, rung) for rung in ("R1", "R1+"))
    for name in ("p_low", "p_zone", "p_high"):
        for t in (r1, plus):
            assert (t[name + "_lower"] >= 0).all() and (t[name + "_upper"] <= 1).all()
            assert (t[name + "_lower"] <= t[name + "_upper"] + 1e-12).all()
        assert (plus[name + "_lower"] >= r1[name + "_lower"] - 1e-12).all()
        assert (plus[name + "_upper"] <= r1[name + "_upper"] + 1e-12).all()
    away = ~own
    for name, yes in (("p_low", truth < 300), ("p_high", truth > 900)):
        least, most = plus[name + "_lower"][away].mean(), plus[name + "_upper"][away].mean()
        assert least - 0.04 <= yes[away].mean() <= most + 0.04
    capped = tighten_risks(tight, low, high, (300, 900), 800.0)
    assert (capped["p_high_upper"] == 0).all() and (capped["p_high_lower"] == 0).all()


def test_deeper_anchors_are_farther(fitted):
    new = world(300, 3)[0]
    shallow, deep = (Mover(fitted.support, SIGNS, fitted.loss, depth).move(new) for depth in (1.0, 3.0))
    both = (shallow.found & deep.found)[~shallow.own]
    assert deep.found[~deep.own].sum() <= shallow.found[~shallow.own].sum() and both.any()
    assert deep.distance[~deep.own][both].mean() > shallow.distance[~shallow.own][both].mean()
    assert (deep.own == shallow.own).all()


# Speed


def test_speed(fitted):
    new = world(4000, 10)[0]
    mover = Mover(fitted.support, SIGNS, fitted.loss)
    start = time.perf_counter()
    mover.move(new)
    assert time.perf_counter() - start < 4.0
    one = new.iloc[[0]]
    spent = []
    for _ in range(20):
        start = time.perf_counter()
        mover.move(one)
        spent.append(time.perf_counter() - start)
    assert min(spent) < 0.02
