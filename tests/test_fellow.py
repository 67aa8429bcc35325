"""The second eye: the update is a mixed model's, pairs are left out exactly, ranges hold only where they should."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensnb.fellow import (
    FAR,
    FellowEye,
    gain,
    leave_pair_out,
    left_over,
    pair_rows,
    shared_interval,
    shared_part,
    surprise,
    typical_surprise,
)
from lensnb.intervals import MIN_PATIENTS, lower_limit, upper_limit
from lensnb.schema import InputError, NotEnoughData


def pairs(n=120, rho=0.7, seed=0, tails=None):
    """Surprises of n pairs."""
    rng = np.random.default_rng(seed)
    z = np.sqrt(rho) * rng.normal(size=(n, 1)) + np.sqrt(1 - rho) * rng.normal(size=(n, 2))
    return z if tails is None else z / np.sqrt(rng.chisquare(tails, (n, 1)) / tails)


def units(z, seed=0, singles=15):
    """The same pairs as units with different predictions and spreads, some without a fellow, shuffled."""
    rng = np.random.default_rng(seed)
    n = len(z)
    table = pd.DataFrame({"z": np.r_[z.ravel(), rng.normal(size=singles)]})
    table["patient"] = np.r_[np.repeat([f"p{i}" for i in range(n)], 2), [f"s{i}" for i in range(singles)]]
    table["eye"] = table["patient"] + np.where(table["patient"].duplicated(), "-OS", "-OD")
    table["prediction"] = rng.normal(500, 100, len(table))
    table["scale"] = rng.uniform(120, 320, len(table))
    table["y"] = table["prediction"] + table["scale"] * table["z"]
    return table.sample(frac=1, random_state=seed).reset_index(drop=True)


def asked(t):
    return [t[c].to_numpy() for c in ("prediction", "y", "scale", "patient")]


def fitted(t, **options):
    return FellowEye(**options).fit(*asked(t))


def learned(z):
    return fitted(units(z, singles=0))


def coverage(m, z, alpha=0.1):
    """Coverage and width of the range of second units, given first ones."""
    low, high = (side(0, 1, z[:, 0], alpha / 2) for side in (m.lower, m.upper))
    return ((low <= z[:, 1]) & (z[:, 1] <= high)).mean(), (high - low).mean()


# The share


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.7, 0.9])
def test_the_share_is_recovered(rho):
    found = [shared_part(pairs(150, rho, seed)) for seed in range(200)]
    assert abs(np.mean(found) - rho) < (0.05 if rho == 0 else 0.02)
    assert abs(learned(pairs(20_000, rho)).rho_ - rho) < 0.02


def test_the_share_is_the_likeliest_value_under_a_normal_law():
    z = pairs(80, 0.6, 4)
    trial = np.linspace(0.001, 0.999, 4001)
    tau = (z**2).mean()
    square, product = (z**2).sum(), z.prod(axis=1).sum()

    def loss(rho, tau):
        return len(z) * np.log(tau**2 * (1 - rho**2)) + (square - 2 * rho * product) / (tau * (1 - rho**2))

    assert abs(trial[np.argmin(loss(trial, tau))] - shared_part(z)) < 5e-4


def test_an_offset_of_all_pairs_is_shared_and_opposite_units_share_nothing():
    z = pairs(300, 0.0, 5)
    assert shared_part(z + 1.0) > 0.4 > 0.1 > shared_part(z)
    assert shared_part(np.abs(z) * [1, -1]) == 0
    assert shared_part(np.zeros((30, 2))) == 0


def test_right_and_left_may_be_exchanged_and_the_unit_of_the_spread_does_not_matter():
    z, flip = pairs(90, seed=6), np.random.default_rng(0).random(90) < 0.5
    turned = np.where(flip[:, None], z[:, ::-1], z)
    assert np.isclose(shared_part(turned), shared_part(z), rtol=1e-14)
    t = units(z)
    coarse = t.assign(scale=1.0)
    new = np.array([400.0, 900.0, -3000.0])
    plain = fitted(coarse.assign(y=t["z"] * 200 + 500, prediction=500.0))
    same = fitted(coarse.assign(y=t["z"] * 200 + 500, prediction=500.0, scale=200.0))
    assert np.allclose(plain.update(500, 1, new), same.update(500, 200, new / 200), rtol=1e-12)
    assert plain.extreme(new).tolist() == same.extreme(new / 200).tolist() == [False, True, True]


def mixed_model(rho, z1, spread1, spread2, tau):
    """Henderson's equations for one patient (a random effect in units of the spread) and one seen unit, solved."""
    R = np.array([[(1 - rho) * tau**2 * spread1**2]])
    Z, G = np.array([[spread1]]), np.array([[rho * tau**2]])
    u = np.linalg.solve(Z.T @ np.linalg.inv(R) @ Z + np.linalg.inv(G), Z.T @ np.linalg.inv(R) @ [z1 * spread1])
    return spread2 * u[0]


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-2.0, 2.0), st.floats(50, 400), st.floats(50, 400), st.floats(0.5, 2.0), st.floats(0.05, 0.95),
)
def test_the_update_is_the_mixed_models(z1, spread1, spread2, tau, rho):
    m = FellowEye()._learn(pairs(50, 0.7))
    m.rho_, m.typical_ = rho, 1.0
    assert np.isclose(m.update(500, spread2, z1)[0], 500 + mixed_model(rho, z1, spread1, spread2, tau), rtol=1e-9)


def test_the_update_is_the_conditional_mean_of_all_patients_at_once():
    """Known mean, 2 x 2 blocks of all patients in one covariance matrix, solved by brute force."""
    z = pairs(25, 0.6, 8)
    m = learned(z)
    n = len(z)
    whole = np.kron(np.eye(n), np.array([[1, m.rho_], [m.rho_, 1]]))
    seen, unseen = np.arange(0, 2 * n, 2), np.arange(1, 2 * n, 2)
    brute = whole[np.ix_(unseen, seen)] @ np.linalg.solve(whole[np.ix_(seen, seen)], z[:, 0])
    assert np.allclose(m.update(np.zeros(n), np.ones(n), z[:, 0]), brute, rtol=1e-12)


def test_the_line_of_least_squares_beats_every_other_share():
    z = pairs(200, 0.7, 9)
    best = shared_part(z)
    loss = {s: ((z - s * z[:, ::-1]) ** 2).sum() for s in (best, best - 0.02, best + 0.02, 0, 1)}
    assert min(loss, key=loss.get) == best


def test_nothing_shared_changes_nothing():
    z = np.abs(pairs(60, 0.0)) * [1, -1]
    t = units(z)
    m = fitted(t)
    assert m.rho_ == 0 and m.scale_factor_ == 1
    assert np.array_equal(m.update(t["prediction"], t["scale"], np.linspace(-3, 3, len(t))), t["prediction"])
    assert np.allclose(np.sort(m.residuals_), np.sort(z, axis=None), atol=1e-12)


def test_the_bootstrap_of_the_share():
    hit = [a <= 0.7 <= b for a, b in (shared_interval(pairs(110, 0.7, s), resamples=300, seed=s) for s in range(200))]
    assert 0.88 < np.mean(hit) < 0.99
    m = learned(pairs())
    assert m.rho_interval(0.5)[0] > m.rho_interval(0.95)[0] and m.rho_interval(seed=1) == m.rho_interval(seed=1)
    with pytest.raises(InputError, match="between 0 and 1"):
        m.rho_interval(95)


# Leaving a pair out


def test_leaving_a_pair_out_is_exact():
    for seed, n in ((0, 24), (1, 25), (2, 60)):
        z = pairs(n, seed=seed)
        z[0] *= 9  # an extreme pair
        rest = [np.delete(z, i, axis=0) for i in range(n)]
        assert np.allclose(shared_part(z, True), [shared_part(r) for r in rest], rtol=1e-12)
        assert np.array_equal(typical_surprise(z, True), [typical_surprise(r) for r in rest])
        reach = np.array([FAR * typical_surprise(r) for r in rest])[:, None]
        brute = z - np.array([[shared_part(r)] for r in rest]) * np.clip(z[:, ::-1], -reach, reach)
        assert np.allclose(left_over(z), brute, atol=1e-12)


def test_ties_do_not_disturb_the_median():
    z = np.random.default_rng(0).integers(-3, 4, (31, 2)).astype(float)
    assert np.array_equal(typical_surprise(z, True), [typical_surprise(np.delete(z, i, axis=0)) for i in range(31)])


def test_the_table_is_that_of_machines_that_never_saw_the_pair():
    t = units(pairs(30, seed=3), singles=6)
    judged = leave_pair_out(*asked(t), alpha=0.2, outcome_range=(0, 2000))
    assert len(judged) == 60 and set(judged["group"].str[0]) == {"p"}
    assert np.array_equal(judged["y"], t["y"].iloc[judged.index])
    for name, pair in list(t[t["patient"].str.startswith("p")].groupby("patient"))[:8]:
        m = FellowEye((0, 2000)).fit(*asked(t[t["patient"] != name]))
        given = pair["prediction"].to_numpy(), pair["scale"].to_numpy(), pair["z"].to_numpy()[::-1]
        mine = judged.loc[pair.index]
        assert np.allclose(mine["updated"], m.update(*given), rtol=1e-12)
        assert np.allclose(mine["lower"], m.lower(*given, 0.1)) and np.allclose(mine["upper"], m.upper(*given, 0.1))
    assert (judged["lower_before"] <= judged["upper_before"]).all()


def test_an_outcome_does_not_reach_its_own_row():
    t = units(pairs(30, seed=3), singles=0)
    at = t.index[t["patient"] == "p4"][0]
    moved = t.assign(y=t["y"].mask(t.index == at, 9000.0))
    a, b = (leave_pair_out(*asked(x)).loc[at] for x in (t, moved))
    names = ["updated", "lower", "upper", "lower_before", "upper_before"]
    assert np.array_equal(a[names].astype(float), b[names].astype(float)), "only its fellow hears of it"


def test_the_gain_is_there_for_pairs_and_not_for_strangers():
    theory, found, chance = 1 - np.sqrt(1 - 0.7**2), [], []
    for seed in range(16):
        z = pairs(110, 0.7, seed)
        g = gain(leave_pair_out(*asked(units(z, singles=0))), resamples=400)
        assert np.isclose(g.loc["mae", "gain"], 1 - g.loc["mae", "after"] / g.loc["mae", "before"])
        found.append(g.loc["mae", ["gain_lower", "gain", "gain_upper"]].to_numpy(float))
        order = np.random.default_rng(seed).permutation(110)
        strangers = units(np.column_stack([z[:, 0], z[order, 1]]), singles=0)
        chance.append(gain(leave_pair_out(*asked(strangers)), resamples=10).loc["mae", "gain"])
    low, middle, high = np.array(found).T
    assert abs(middle.mean() - theory) < 0.04 and (low > 0).all()
    assert ((low < theory) & (theory < high)).sum() >= 13, "a 95 % interval"
    assert np.mean(chance) < 0.02


# Ranges


@pytest.mark.parametrize("tails", [None, 5])
@pytest.mark.parametrize("n", [30, 110])
def test_ranges_hold_for_new_second_units(n, tails):
    for alpha in (0.1, 0.2):
        hits = [coverage(learned(z[:n]), z[n:], alpha)[0] for z in (pairs(n + 100, 0.7, s, tails) for s in range(80))]
        assert 1 - alpha - 0.012 < np.mean(hits) < 1 - alpha + 2 / (n + 1) + 0.012


def test_ranges_made_of_first_units_are_much_too_wide():
    z = pairs(300, 0.75, 1)
    right, wrong = learned(z), learned(z)
    wrong.residuals_ = np.sort(z, axis=None)
    fresh = pairs(4000, 0.75, 2)
    (good, width), (much, waste) = coverage(right, fresh), coverage(wrong, fresh)
    assert 0.88 < good < 0.93 and much > 0.96 and waste > 1.25 * width


def test_ranges_learned_from_strangers_gain_nothing():
    z = pairs(300, 0.7, 3)
    m = learned(np.column_stack([z[:, 0], np.roll(z[:, 1], 7)]))
    assert m.rho_ < 0.15
    assert coverage(m, pairs(4000, 0.7, 4))[1] > 1.2 * coverage(learned(z), pairs(4000, 0.7, 4))[1]


def test_limits_are_those_of_the_intervals_room():
    z = pairs(41, seed=5)
    m = learned(z)
    e = left_over(np.sort(z, axis=1)).ravel()
    guesses = (500 + 220 * (m.rho_ * 1.1 + e))[None]
    for alpha in (0.03, 0.05, 0.1, 0.5):
        assert np.isclose(m.lower(500, 220, 1.1, alpha)[0], lower_limit(guesses, np.full(82, 0.5), alpha)[0])
        assert np.isclose(m.upper(500, 220, 1.1, alpha)[0], upper_limit(guesses, np.full(82, 0.5), alpha)[0])
    between = FellowEye(interpolate=True)._learn(z)
    assert between.lower(500, 220, 1.1, 0.05)[0] != m.lower(500, 220, 1.1, 0.05)[0]


def test_too_few_pairs_for_a_risk_give_the_outcome_range():
    m = fitted(units(pairs(19), singles=0), outcome_range=(0, 2000))
    assert m.lower(500, 200, 0.5, 0.05)[0] > 0 and m.upper(500, 200, 0.5, 0.05)[0] < 2000
    assert m.lower(500, 200, 0.5, 0.04)[0] == 0 and m.upper(500, 200, 0.5, 0.04)[0] == 2000
    assert fitted(units(pairs(19))).lower(500, 200, 0.5, 0.04)[0] == -np.inf


def test_chances_are_counted_and_agree_with_the_limits():
    m = fitted(units(pairs(99)), outcome_range=(0, 2000))
    p, s, z = np.full(50, 500.0), np.full(50, 220.0), np.linspace(-2, 2, 50)
    low, high = m.probabilities(p, s, z, (250, 750))
    assert ((low > 0) & (high > 0) & (low + high < 1)).all()
    assert (np.diff(low) <= 0).all() and (np.diff(high) >= 0).all(), "the higher the first, the higher the second"
    guesses = m.update(p, s, z)[:, None] + 220 * m.residuals_
    assert np.allclose(low, ((guesses < 250).sum(axis=1) / 2 + 0.5) / 100)
    assert np.allclose(high, ((guesses > 750).sum(axis=1) / 2 + 0.5) / 100)
    none, some = m.probabilities(p, s, z, (0, 2000))
    assert (none == 0).all() and (some == 0).all()
    at_limit = m.lower(500, 220, 1.0, 0.05)[0]
    assert m.probabilities(500, 220, 1.0, (at_limit, 2000))[0][0] <= 0.05 + 1e-9
    with pytest.raises(InputError, match="in order"):
        m.probabilities(p, s, z, (750, 250))


def test_chances_come_true():
    m, z = learned(pairs(4000, 0.7, 1)), pairs(20_000, 0.7, 2)
    low, high = m.probabilities(np.zeros(len(z)), np.ones(len(z)), z[:, 0], (-0.8, 1.0))
    for told, happened in ((low, z[:, 1] < -0.8), (high, z[:, 1] > 1.0)):
        for part in np.array_split(np.argsort(told), 5):
            assert abs(told[part].mean() - happened[part].mean()) < 0.03


# What a first unit may not do


def test_a_missing_first_result_says_nothing():
    m = fitted(units(pairs()), outcome_range=(0, 2000))
    z = np.array([np.nan, 0.0])
    assert m.update(500, 200, z).tolist() == [500, 500]
    assert m.lower(500, 200, z, 0.05)[0] == 0 and m.upper(500, 200, z, 0.05)[0] == 2000
    assert m.lower(500, 200, z, 0.05)[1] > 0
    low, high = m.probabilities(500, 200, z, (250, 750))
    assert np.isnan(low[0]) and np.isnan(high[0]) and low[1] > 0
    assert not m.extreme(z).any()


def test_an_absurd_first_result_is_held_and_flagged():
    m = learned(pairs(500))
    edge = FAR * m.typical_
    assert m.update(0, 1, 50.0) == m.update(0, 1, edge) == pytest.approx(m.rho_ * edge)
    assert m.extreme([edge * 1.001, -50, edge * 0.999, 0]).tolist() == [True, True, False, False]
    straight = np.linspace(-edge, edge, 9)
    assert np.allclose(m.update(0, 1, straight), m.rho_ * straight)


def test_holding_costs_nothing_when_all_is_well_and_saves_when_not():
    m, z = learned(pairs(300, 0.7, 1)), pairs(20_000, 0.7, 2)
    def mae(first, line=False):
        return np.abs(z[:, 1] - (m.rho_ * first if line else m.update(0, 1, first))).mean()

    assert mae(z[:, 0]) < 1.002 * mae(z[:, 0], line=True)
    wrong = np.where(np.random.default_rng(0).random(len(z)) < 0.05, -10.0, z[:, 0])
    assert mae(wrong) < 0.85 * mae(wrong, line=True)


def test_a_few_absurd_pairs_do_not_move_the_reach():
    z = pairs(200, 0.7, 1)
    spoilt = np.concatenate([z, np.tile([60.0, -60.0], (6, 1))])
    assert typical_surprise(spoilt) < 1.1 * typical_surprise(z) and spoilt.std() > 10


# Refusals and keeping


def test_pairs_are_found_and_triplets_and_doubles_refused():
    assert pair_rows(["b", "a", "c", "a", "b"]).tolist() == [[1, 3], [0, 4]]
    assert pair_rows([]).shape == pair_rows(["a", "b"]).shape[:0] + (0, 2)
    with pytest.raises(InputError, match="more than two units.*Received 3.*row 1"):
        pair_rows(["b", "a", "a", "b", "a"])
    with pytest.raises(InputError, match="same unit.*row 3"):
        pair_rows(["b", "a", "b", "a"], units=["b1", "a1", "b2", "a1"])
    with pytest.raises(InputError, match="gaps"):
        pair_rows(["a", None, "a"])


def test_too_few_pairs_are_refused():
    t = units(pairs(MIN_PATIENTS - 1), singles=50)
    with pytest.raises(NotEnoughData, match="Received 18.*at least 19 pairs"):
        fitted(t)
    assert fitted(units(pairs(MIN_PATIENTS))).n_pairs_ == 19
    with pytest.raises(NotEnoughData):
        leave_pair_out(*asked(units(pairs(MIN_PATIENTS))))


def test_a_double_teaches_that_eyes_are_identical_unless_it_is_named():
    t = units(pairs(60, 0.0, 2), singles=0)
    alone = t[~t["patient"].duplicated()]
    doubled = pd.concat([alone, alone], ignore_index=True)
    assert fitted(doubled).rho_ == 1, "the trap"
    with pytest.raises(InputError, match="same unit"):
        FellowEye().fit(*asked(doubled), units=doubled["eye"])


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(scale=0.0), "positive"),
        (dict(scale=-1.0), "positive"),
        (dict(y=np.nan), "gaps"),
        (dict(prediction=np.inf), "finite"),
        (dict(patient=None), "gaps"),
    ],
)
def test_unusable_training_units_are_refused_by_row(change, words):
    t = units(pairs(30)).astype({"patient": object})
    for column, value in change.items():
        t.loc[5, column] = value
    with pytest.raises(InputError, match=words) as refusal:
        fitted(t)
    assert refusal.value.row == 5


def test_unusable_questions_are_refused():
    m = learned(pairs(30))
    for call, words in (
        (lambda: m.update(np.nan, 200, 1), "gaps"),
        (lambda: m.update(500, 0, 1), "positive"),
        (lambda: m.update(500, 200, np.inf), "finite or missing"),
        (lambda: m.update(np.zeros((2, 2)), 200, 1), "One value"),
        (lambda: m.lower(500, 200, 1, 5), "between 0 and 1"),
        (lambda: FellowEye().update(500, 200, 1), "Nothing was learned"),
        (lambda: FellowEye().to_dict(), "Nothing was learned"),
        (lambda: FellowEye((2000, 0)), "low, high"),
        (lambda: FellowEye.from_dict({"kind": "LogScale"}), "not a saved FellowEye"),
        (lambda: surprise([1.0], [1.0, 2.0], [1.0]), "one value a row"),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_levels_are_counted_and_change_no_number():
    t = units(pairs(50), singles=4)
    size = np.where(t["patient"].isin(["p1", "p2"]) & t["eye"].str.endswith("OS"), 13.7, 13.2)
    m, plain = FellowEye().fit(*asked(t), by=size), fitted(t)
    assert (m.n_alike_, m.n_pairs_, plain.n_alike_) == (48, 50, None) and m.rho_ == plain.rho_


@pytest.mark.parametrize("ends", [(-np.inf, np.inf), (0, 2000)])
def test_kept_to_the_last_bit_in_any_order_of_the_rows(ends):
    t = units(pairs(57, tails=4), seed=3)
    m = fitted(t, outcome_range=ends)
    shuffled = fitted(t.sample(frac=1, random_state=5), outcome_range=ends)
    text = json.dumps(m.to_dict(), allow_nan=False)
    assert json.dumps(shuffled.to_dict(), allow_nan=False) == text
    again = FellowEye.from_dict(json.loads(text))
    given = np.linspace(100, 900, 40), np.linspace(90, 300, 40), np.r_[np.nan, np.linspace(-6, 6, 39)]
    for ask in (
        lambda f: f.update(*given),
        lambda f: f.lower(*given, 0.05),
        lambda f: f.upper(*given, 0.1),
        lambda f: f.probabilities(*given, (250, 750)),
        lambda f: (f.rho_, f.n_pairs_, f.scale_factor_, f.rho_interval(resamples=100)[0]),
    ):
        assert np.array_equal(ask(m), ask(again), equal_nan=True)
    assert json.dumps(again.to_dict()) == text
    with pytest.raises(InputError, match="not a saved"):
        FellowEye.from_dict({**m.to_dict(), "version": 2})


def test_a_million_questions_are_quick():
    import time

    m, n = learned(pairs()), 1_000_000
    rng = np.random.default_rng(0)
    given = rng.normal(500, 100, n), rng.uniform(100, 300, n), rng.normal(size=n)
    start = time.perf_counter()
    low, high = m.lower(*given, 0.05), m.upper(*given, 0.05)
    assert (low < high).all() and time.perf_counter() - start < 5
