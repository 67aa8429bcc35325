"""lensnb.policy: closed forms, brute force, truth inside where it is known, nestedness, refusals, broken worlds."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensnb.bounds import MonotoneResponse, OutcomeRange, StepEffect
from lensnb.clinics import synthetic_clinics, true_vault
from lensnb.policy import (
    Inside,
    Itself,
    above,
    below,
    chosen,
    clustered_error,
    descriptions,
    dominated,
    everyone,
    highest,
    left_table,
    model_values,
    nearest_to_target,
    observed,
    replay,
    rule_contrasts,
    rule_values,
    supported_value,
    unit_contrasts,
    unit_limits,
    within_support,
)
from lensnb.schema import AssumptionError, InputError, NotEnoughData

LEVELS = (12.1, 12.6, 13.2, 13.7)
ZONE = Inside(250, 750)
LADDER = (OutcomeRange(0, 2000), MonotoneResponse(50), StepEffect(150, 1050, "mm"))


@st.composite
def pasts(draw):
    n = draw(st.integers(2, 8))
    y = draw(st.lists(st.integers(0, 200).map(lambda v: 10.0 * v), min_size=n, max_size=n))
    s = draw(st.lists(st.sampled_from(LEVELS), min_size=n, max_size=n))
    return replay(y, s, LEVELS, groups=range(n), assumptions=LADDER)


def rules_of(past):
    return st.lists(st.sampled_from(LEVELS + (np.nan,)), min_size=len(past), max_size=len(past))


gains = st.sampled_from([ZONE, below(250), above(750), Inside(0, 2000), Itself()])


# Gains


def test_gain_ends_are_what_enumeration_finds():
    grid = np.arange(0, 1001, 10.0)
    for gain in (ZONE, below(250), above(750), Itself()):
        for lower in range(0, 1000, 110):
            for upper in range(lower, 1001, 130):
                among = gain(grid[(grid >= lower) & (grid <= upper)]) if lower % 10 == 0 else None
                low, high = gain.ends(np.float64(lower), np.float64(upper))
                assert low <= among.min() and high >= among.max()
                if not isinstance(gain, Itself):
                    assert (low, high) == (among.min(), among.max())


def test_the_ends_of_a_zone_count_as_inside():
    assert ZONE(np.array([249.99, 250, 750, 750.01])).tolist() == [0, 1, 1, 0]
    assert below(250)(np.array([249, 250])).tolist() == [1, 0] and above(750)(np.array([750, 751])).tolist() == [0, 1]
    with pytest.raises(InputError):
        Inside(750, 250)


# Values and contrasts


def test_closed_forms():
    past = replay([300, 300, 700, 700, 900, 900], [12.6, 13.2] * 3, LEVELS, groups=range(6))
    rows = rule_values(past, {"a": everyone(13.2), "observed": observed}, ZONE).set_index(["rule", "rung"])
    assert rows.loc[("a", "R0"), ["lower", "upper"]].tolist() == pytest.approx([2 / 6, 5 / 6])
    assert rows.loc[("a", "R1"), ["lower", "upper"]].tolist() == pytest.approx([2 / 6, 4 / 6])
    # R2: 300 -> 390 to 930, 700 -> 790 to 1,330, 900 -> over
    assert rows.loc[("a", "R2"), ["lower", "upper"]].tolist() == pytest.approx([2 / 6, 3 / 6])
    assert np.allclose(rows.loc["observed", ["lower", "upper"]], 4 / 6)
    assert rows.loc[("a", "R1"), "changed"] == 0.5
    diff = rule_contrasts(past, {"a": everyone(13.2)}, ZONE).set_index("rung")
    assert diff.loc["R2", ["lower", "upper"]].tolist() == pytest.approx([-2 / 6, -1 / 6])
    assert diff.loc["R2", "says"] in ("open", "lower")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_nested_bounds_and_a_rule_against_itself(data):
    past, gain = data.draw(pasts()), data.draw(gains)
    a, b = (data.draw(rules_of(past)) for _ in range(2))
    low, high = unit_contrasts(past, a, b, gain)
    assert (low <= high).all() and (np.diff(low) >= -1e-9).all() and (np.diff(high) <= 1e-9).all()
    back = unit_contrasts(past, b, a, gain)
    answered = ~np.isnan(np.array(a) + np.array(b))
    if not isinstance(gain, Itself):
        assert np.isfinite(low).all() and np.isfinite(high).all()
    known = np.nan_to_num(np.array(a), nan=13.2)
    assert not np.any(unit_contrasts(past, known, known, gain))
    assert not np.any(unit_contrasts(past, observed, observed, gain))
    plain_a, plain_b = unit_limits(past, a, gain), unit_limits(past, b, gain)
    assert (low[answered] >= plain_a[0][answered] - plain_b[1][answered] - 1e-9).all()
    assert (high[answered] <= plain_a[1][answered] - plain_b[0][answered] + 1e-9).all()
    assert np.isfinite(back[0]).all()
    assert (low[answered, :2] <= 0).all() and (high[answered, :2] >= 0).all(), "R1 allows the flat world: never decided"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_joint_limits_hold_every_pair_that_the_ladder_allows(data):
    """Brute force: outcomes at all four levels on a grid, kept when every pair of levels obeys the ladder."""
    step, levels = 100, np.array([0.0, 1.0, 2.0])
    ladder = (
        OutcomeRange(0, 500),
        MonotoneResponse(data.draw(st.sampled_from([0, 100]))),
        StepEffect(data.draw(st.sampled_from([0, 100])), data.draw(st.sampled_from([100, 300])), "unit"),
    )
    y, own = data.draw(st.sampled_from([100.0, 200.0, 300.0, 400.0])), data.draw(st.sampled_from(levels))
    gain = data.draw(st.sampled_from([Inside(200, 300), above(300), below(200), Itself()]))
    past = replay([y, y], [own, own], levels, groups=[0, 1], assumptions=ladder)
    a, b = data.draw(st.permutations(list(levels)))[:2]
    grid = np.arange(0, 501, step, dtype=float)
    worlds = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), axis=-1).reshape(-1, 3)
    worlds = worlds[worlds[:, int(own)] == y]
    for r in range(3):
        fits = np.ones(len(worlds), bool)
        for s in range(3):
            for t in range(3):
                for rung in ladder[: r + 1]:
                    if s != t and r:
                        fits &= worlds[:, t] >= rung.carry_lower(worlds[:, s], levels[t] - levels[s], (0.0, 500.0))
                        fits &= worlds[:, t] <= rung.carry_upper(worlds[:, s], levels[t] - levels[s], (0.0, 500.0))
        some = gain(worlds[fits][:, int(b)]) - gain(worlds[fits][:, int(a)])
        low, high = unit_contrasts(past, everyone(b), everyone(a), gain)
        assert low[0, r] <= some.min() + 1e-9 and high[0, r] >= some.max() - 1e-9
        if r == 0:
            assert (low[0, r], high[0, r]) == (some.min(), some.max())


def test_joint_limits_of_a_mean_are_the_step_itself():
    past = replay([950, 950], [13.7, 13.7], LEVELS, groups=[0, 1], assumptions=LADDER)
    low, high = unit_contrasts(past, everyone(13.2), everyone(12.6), Itself())
    assert low[0].tolist() == pytest.approx([-2000, -50, 90]) and high[0, 2] == pytest.approx(630)


def test_row_order_units_and_rung_order_do_not_matter():
    rng = np.random.default_rng(0)
    y, s, g = rng.integers(0, 160, 60) * 10.0, rng.choice(LEVELS, 60), rng.integers(0, 40, 60)
    rule, p = rng.choice(LEVELS, 60), rng.permutation(60)
    one = rule_contrasts(replay(y, s, LEVELS, g, LADDER), {"a": rule}, ZONE)
    two = rule_contrasts(replay(y[p], s[p], LEVELS[::-1], g[p], LADDER[::-1]), {"a": rule[p]}, ZONE)
    pd.testing.assert_frame_equal(one, two)
    mm = (OutcomeRange(0, 2), MonotoneResponse(0.05), StepEffect(0.15, 1.05, "mm"))
    three = rule_contrasts(replay(y / 1000, s, LEVELS, g, mm), {"a": rule}, Inside(0.25, 0.75))
    assert np.allclose(one[["lower", "upper"]], three[["lower", "upper"]])


def test_no_answer_is_the_whole_range_and_is_counted():
    past = replay([300, 900], [12.6, 13.2], LEVELS, groups=[0, 1])
    row = rule_values(past, {"a": [np.nan, np.nan]}, ZONE).iloc[2]
    assert (row.lower, row.upper, row.answered, row.changed) == (0, 1, 0, 0)
    assert rule_contrasts(past, {"a": [12.6, np.nan]}, ZONE).changed.tolist() == [0.5] * 3


def test_refusals():
    past = replay([300, 900], [12.6, 13.2], LEVELS, groups=[0, 1])
    with pytest.raises(InputError, match="12.5 in row 1"):
        chosen(past, [12.6, 12.5])
    with pytest.raises(InputError):
        chosen(past, [12.6])
    with pytest.raises(NotEnoughData):
        replay([300, 900], [12.6, 13.2], LEVELS, groups=[0, 0])
    with pytest.raises(InputError):
        replay([300, 900], [12.6, 13.2], LEVELS, groups=[0, None])
    with pytest.raises(InputError):
        highest([[1, 2, 3]], LEVELS)
    with pytest.raises(InputError):
        model_values(past, {"a": observed}, np.zeros((2, 3)))


def test_contradicted_units_are_counted():
    past = replay([300, 2100], [12.6, 13.2], LEVELS, groups=[0, 1])
    assert past.contradicted == 1


# Rules


def test_constructors():
    assert nearest_to_target([[100, 450, 560, 900], [np.nan] * 4], LEVELS, 500)[0] == 12.6
    assert np.isnan(nearest_to_target([[np.nan] * 4], LEVELS, 500)[0])
    assert highest([[0.2, 0.5, 0.5, np.nan]], LEVELS)[0] == 12.6
    assert within_support([12.6, 13.2, np.nan], [True, False, True], [12.1] * 3).tolist() == [12.6, 12.1, 12.1]


# Truth


@pytest.fixture(scope="module")
def clinic():
    net = synthetic_clinics(7).of("alder")
    eyes = net.eyes.dropna(subset=["vault_um"]).drop_duplicates("eye_id").reset_index(drop=True)
    return eyes, np.column_stack([true_vault(net.truth, eyes.eye_id, s) for s in LEVELS])


def test_bounds_hold_the_truth_where_the_assumptions_do_and_the_matched_eyes_do_not(clinic):
    eyes, truth = clinic
    past = replay(eyes.vault_um, eyes.size_mm, LEVELS, eyes.patient_id)
    rng = np.random.default_rng(0)
    rules = {f"everyone {s}": everyone(s) for s in LEVELS} | {"dice": rng.choice(LEVELS, len(past))}
    rules["shifted"] = np.array(LEVELS)[(past.at + 1).clip(max=3)]
    at = {name: chosen(past, rule) for name, rule in rules.items()}
    i = np.arange(len(past))
    for gain in (ZONE, below(250), above(750), Itself()):
        now = gain(past.y).mean()
        for rows, base in ((rule_values(past, rules, gain), 0.0), (rule_contrasts(past, rules, gain), now)):
            real = rows.rule.map({name: gain(truth[i, a]).mean() - base for name, a in at.items()})
            ok = real.between(rows.lower - 1e-9, rows.upper + 1e-9)
            assert ok[rows.rung != "R2"].all()
            assert (rows.ci_lower <= rows.lower + 1e-9).all() and (rows.ci_upper >= rows.upper - 1e-9).all()
    same = past.at == 3
    matched = ZONE(past.y[same])
    error = clustered_error(matched, pd.factorize(past.patient[same])[0])
    assert matched.mean() - 1.96 * error > ZONE(truth[:, 3]).mean()


def test_r2_holds_the_truth_in_a_world_of_its_own():
    """Every eye has its own slope of 150 to 1,050 um per mm; vaults are clipped at contact and at 2,000 um."""
    rng = np.random.default_rng(5)
    n = 500
    latent = rng.normal(500, 300, n)[:, None] + rng.uniform(150, 1050, n)[:, None] * (np.array(LEVELS) - 12.9)
    truth, at = np.clip(latent, 0, 2000), rng.integers(0, 4, n)
    past, i = replay(truth[np.arange(n), at], np.array(LEVELS)[at], LEVELS, range(n), LADDER), np.arange(n)
    rules = {f"{s}": everyone(s) for s in LEVELS} | {"dice": rng.choice(LEVELS, n)}
    for gain in (ZONE, above(750), below(250), Itself()):
        for name, other in (("dice", "13.7"), ("12.1", "12.6"), ("13.7", "12.6"), ("13.2", "dice")):
            a, b = (chosen(past, rules[k]) for k in (name, other))
            low, high = unit_contrasts(past, rules[name], rules[other], gain)
            real = gain(truth[i, a]) - gain(truth[i, b])
            assert (low <= real[:, None] + 1e-9).all() and (high >= real[:, None] - 1e-9).all(), "unit by unit"


def test_a_false_assumption_makes_the_bounds_miss():
    """A flat world: size does nothing. R2 (150 um per mm at least) is false there and its bound misses; R1 holds."""
    rng = np.random.default_rng(1)
    y = np.clip(np.round(rng.normal(500, 200, 800), -1), 0, 2000)
    past = replay(y, rng.choice([12.1, 12.6], 800), LEVELS, range(800), LADDER)
    rows = rule_values(past, {"a": everyone(13.7)}, above(650)).set_index("rung")
    truth = above(650)(y).mean()
    assert rows.lower["R1"] <= truth <= rows.upper["R1"] and rows.ci_lower["R2"] > truth


def test_a_falling_world_breaks_r1():
    rng = np.random.default_rng(2)
    base = rng.normal(700, 150, 600)
    past = replay(base, np.full(600, 12.6), LEVELS, range(600), LADDER)
    truth = Itself()(base - 300).mean()                    # 13.2 sits 300 um lower
    assert rule_values(past, {"a": everyone(13.2)}, Itself()).set_index("rung").lower["R1"] > truth


def test_intervals_cover_and_follow_the_patient_bootstrap():
    rng = np.random.default_rng(3)
    y, s = rng.integers(0, 160, 200) * 10.0, rng.choice(LEVELS, 200)
    patient = np.repeat(np.arange(100), 2)
    rule = rng.choice(LEVELS, 200)
    low, _ = unit_contrasts(replay(y, s, LEVELS, patient, LADDER), rule, observed, ZONE)
    sums = low[:, 1].reshape(100, 2).sum(axis=1)
    boot = [sums[rng.integers(0, 100, 100)].mean() / 2 for _ in range(2000)]
    assert clustered_error(low, patient)[1] == pytest.approx(np.std(boot), rel=0.08)


# Inside support


def test_doubly_robust_is_right_when_one_of_two_is():
    rng = np.random.default_rng(4)
    n = 6000
    x = rng.uniform(-1, 1, n)
    e = np.column_stack([1 / (1 + np.exp(1.5 * x)), 1 / (1 + np.exp(-1.5 * x))])
    t = (rng.uniform(size=n) < e[:, 1]).astype(float)
    m = np.column_stack([400 + 100 * x, 500 + 100 * x])
    v = m + rng.normal(0, 50, (n, 1))
    ladder = (OutcomeRange(0, 2000), MonotoneResponse(0))
    past = replay(v[np.arange(n), t.astype(int)], t, [0, 1], range(n), ladder)
    half = np.full((n, 2), 0.5)
    flat = np.full((n, 2), 450.0)
    yes = np.ones((n, 2), bool)
    for chance, expected, right in ((e, flat, True), (half, m, True), (half, flat, False)):
        r = supported_value(past, everyone(1), Itself(), chance, expected, yes).iloc[0]
        assert (abs(r.value - v[:, 1].mean()) < 5) == right
    assert r.share == 1 and r.lower == r.upper == pytest.approx(r.value)


def test_inside_support_refuses():
    past = replay([300.0] * 30 + [900.0], [0] * 30 + [1], [0, 1], range(31), (OutcomeRange(0, 2000),))
    yes, p = np.ones((31, 2), bool), np.full((31, 2), 0.5)
    with pytest.raises(AssumptionError, match="weight"):
        supported_value(past, everyone(1), ZONE, p, p, yes)
    with pytest.raises(NotEnoughData):
        supported_value(past, everyone(1), ZONE, p, p, ~yes)
    with pytest.raises(InputError):
        supported_value(past, everyone(0), ZONE, p[:, :1], p, yes)
    r = supported_value(past, everyone(0), ZONE, p, p, yes & (np.arange(31) < 20)[:, None]).iloc[0]
    assert r.share == pytest.approx(20 / 31) and r.lower < r.upper


# Dominated levels


@st.composite
def limit_tables(draw):
    ends = [sorted(draw(st.lists(st.integers(0, 10), min_size=2, max_size=2))) for _ in range(4)]
    return pd.DataFrame({"unit": 0, "level": LEVELS}).assign(
        p_zone_lower=[a / 10 for a, _ in ends], p_zone_upper=[b / 10 for _, b in ends]
    )


@settings(max_examples=40, deadline=None)
@given(limit_tables(), st.sampled_from([0, 0.1]))
def test_dominated_levels(table, margin):
    out = dominated(table, margin=margin).to_numpy()[0]
    low, high = table.p_zone_lower.to_numpy(), table.p_zone_upper.to_numpy()
    assert (~out).sum() >= 1
    for s in range(4):
        beaten = any(low[t] >= high[s] + margin and not low[s] >= high[t] + margin for t in range(4) if t != s)
        assert out[s] == beaten
    d = descriptions(table, margin=margin).iloc[0]
    assert d.left == (~out).sum() and 0 <= d.regret <= 1
    if margin == 0 and not np.isnan(d.maximin):
        assert not out[list(LEVELS).index(d.maximin)]
    assert left_table(descriptions(table)).share.sum() == 1
