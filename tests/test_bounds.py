"""lensnb.bounds: random ladders, a brute-force linear program, coverage where the truth is known, refusals, speed."""

import itertools
import json
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensnb.bounds import (
    STEP_PRESETS,
    VAULT_LADDER,
    MonotoneResponse,
    OutcomeRange,
    StepEffect,
    assumption_from_dict,
    bound_outcomes,
    bound_probabilities,
    carry_limits,
    contradictions,
    ladder_table,
    mean_bounds,
)
from lensnb.schema import AssumptionError, InputError, NotEnoughData

LEVELS = np.array([12.1, 12.6, 13.2, 13.7])
LIMITS = ["lower_half", "upper_half", "lower_full", "upper_full"]
KEY = ["unit", "level", "rung"]


# Random worlds

numbers = st.floats(0, 2000, allow_nan=False).map(lambda v: round(v, 1))


@st.composite
def ladders(draw, tolerance=None):
    a, b = sorted([draw(st.floats(0, 1500)), draw(st.floats(0, 1500))])
    tol = draw(st.floats(0, 200)) if tolerance is None else tolerance
    return [
        OutcomeRange(0, 2000),
        MonotoneResponse(tol),
        StepEffect(a, b, "mm", tolerance=draw(st.sampled_from([0.0, 30.0]))),
    ]


@st.composite
def replays(draw):
    n = draw(st.integers(1, 6))
    y = draw(st.lists(st.one_of(numbers, st.sampled_from([0.0, 2000.0])), min_size=n, max_size=n))
    s = draw(st.lists(st.sampled_from(list(LEVELS)), min_size=n, max_size=n))
    return np.array(y), np.array(s)


@st.composite
def limit_frames(draw):
    rows = []
    for unit in range(draw(st.integers(1, 4))):
        for level in LEVELS:
            lower, a, b, upper = sorted(draw(st.lists(st.floats(-200, 2300), min_size=4, max_size=4)))
            ok = draw(st.booleans())
            rows.append([unit, level, ok] + ([lower, upper, a, b] if ok else [np.nan] * 4))
    return pd.DataFrame(rows, columns=["unit", "level", "supported", *LIMITS])


def nested(frame):
    """Whether each rung's set lies inside that of the rung below."""
    wide = frame.set_index(KEY)[["lower", "upper"]].unstack("rung")
    rungs = sorted(frame["rung"].unique())
    return all(
        (wide["lower"][a] <= wide["lower"][b]).all() and (wide["upper"][b] <= wide["upper"][a]).all()
        for a, b in zip(rungs, rungs[1:])
    )


def sound(frame):
    """Never missing, never upside down."""
    return frame[["lower", "upper"]].notna().all().all() and (frame["lower"] <= frame["upper"]).all()


# Replay


@settings(max_examples=40)
@given(replays(), ladders())
def test_replay_sets_are_nested_and_hold_the_factual_value(world, ladder):
    y, s = world
    f = bound_outcomes(y, s, LEVELS, ladder)
    assert sound(f) and nested(f) and not len(contradictions(f))
    own = f[f["level"] == np.repeat(s, 12)]
    assert (own["status"] == "observed").all() and (own["certified_under"] == "observed").all()
    assert np.array_equal(own["lower"], np.repeat(y, 3)) and np.array_equal(own["upper"], np.repeat(y, 3))


@settings(max_examples=40)
@given(replays(), st.floats(0, 200), st.floats(0, 200))
def test_wider_tolerance_gives_wider_sets(world, a, b):
    y, s = world
    narrow, wide = (
        bound_outcomes(y, s, LEVELS, [OutcomeRange(0, 2000), MonotoneResponse(t), StepEffect(150, 1050)])
        for t in sorted([a, b])
    )
    assert (wide["lower"] <= narrow["lower"]).all() and (wide["upper"] >= narrow["upper"]).all()


@settings(max_examples=40)
@given(replays(), ladders(tolerance=0.0))
def test_limits_rise_with_the_level(world, ladder):
    f = bound_outcomes(*world, LEVELS, [*ladder[:2], StepEffect(ladder[2].lo, ladder[2].hi)])
    for (_, rung), g in f.groupby(["unit", "rung"]):
        if rung != "R0":
            assert (np.diff(g["lower"]) >= -1e-9).all() and (np.diff(g["upper"]) >= -1e-9).all()


@settings(max_examples=40)
@given(replays(), ladders())
def test_counterfactual_limits_rise_with_the_level_under_any_tolerance(world, ladder):
    f = bound_outcomes(*world, LEVELS, ladder)
    for _, g in f[(f["status"] == "bounded") & (f["rung"] != "R0")].groupby(["unit", "rung"]):
        assert (np.diff(g["lower"]) >= -1e-9).all() and (np.diff(g["upper"]) >= -1e-9).all()


@settings(max_examples=40)
@given(replays(), st.floats(0, 1500))
def test_equal_step_limits_give_a_point_between_floor_and_cap(world, slope):
    y, s = world
    f = bound_outcomes(y, s, LEVELS, [OutcomeRange(0, 2000), StepEffect(slope, slope)])
    f = f[(f["rung"] == "R2") & np.repeat((y > 0) & (y < 2000), 4 * 2)]
    assert np.array_equal(f["lower"], f["upper"])


@settings(max_examples=40)
@given(replays(), ladders(), st.randoms(use_true_random=False))
def test_row_order_and_units_do_not_matter(world, ladder, random):
    y, s = world
    names = [f"eye {i}" for i in range(len(y))]
    order = list(range(len(y)))
    random.shuffle(order)
    f = bound_outcomes(y, s, LEVELS, ladder, units=names)
    g = bound_outcomes(y[order], s[order], LEVELS[::-1], ladder[::-1], units=[names[i] for i in order])
    pd.testing.assert_frame_equal(f.sort_values(KEY).reset_index(drop=True), g.sort_values(KEY).reset_index(drop=True))
    r0, r1, r2 = ladder
    mm = [
        OutcomeRange(0, 2),
        MonotoneResponse(r1.tolerance / 1000),
        StepEffect(r2.lo / 1000, r2.hi / 1000, "mm", r2.tolerance / 1000),
    ]
    assert np.allclose(
        bound_outcomes(y / 1000, s, LEVELS, mm, units=names)[["lower", "upper"]] * 1000, f[["lower", "upper"]]
    )
    um = [r0, r1, StepEffect(r2.lo / 1000, r2.hi / 1000, "um", r2.tolerance)]
    assert np.allclose(
        bound_outcomes(y, s * 1000, LEVELS * 1000, um, units=names)[["lower", "upper"]], f[["lower", "upper"]]
    )


@settings(max_examples=40)
@given(replays(), ladders(), st.integers(0, 10_000))
def test_every_world_that_obeys_the_ladder_lies_in_its_sets(world, ladder, seed):
    """Draw latent paths inside R2, cut them at floor and cap, show one outcome: the others are in their sets."""
    rng, r2 = np.random.default_rng(seed), ladder[2]
    start = rng.uniform(-500, 2500, 200)
    steps = rng.uniform(r2.lo, r2.hi, (200, 3)) * np.diff(LEVELS)
    v = np.clip(np.column_stack([start, start[:, None] + steps.cumsum(axis=1)]), 0, 2000)
    at = rng.integers(0, 4, 200)
    f = bound_outcomes(v[np.arange(200), at], LEVELS[at], LEVELS, ladder)
    truth = np.repeat(v.ravel(), 3)
    assert (truth >= f["lower"] - 1e-9).all() and (truth <= f["upper"] + 1e-9).all()


def test_the_example_by_hand():
    f = bound_outcomes([820], [13.2], LEVELS, units=["eye"]).set_index(["level", "rung"])
    want = {
        (12.1, "R0"): (0, 2000),
        (12.1, "R1"): (0, 870),
        (12.1, "R2"): (0, 655),
        (12.6, "R1"): (0, 870),
        (12.6, "R2"): (190, 730),
        (13.2, "R2"): (820, 820),
        (13.7, "R1"): (770, 2000),
        (13.7, "R2"): (895, 1345),
    }
    for key, limits in want.items():
        assert np.allclose(f.loc[key, ["lower", "upper"]].astype(float), limits)
    assert set(f["mode"]) == {"replay"} and set(f["anchor"]) == {13.2}


def test_floor_and_cap_are_censored_not_contradicted():
    f = bound_outcomes([0, 2000], [12.6, 13.2], LEVELS).query("rung == 'R2'").set_index(["unit", "level"])
    assert set(f["status"]) == {"observed", "bounded"}
    assert np.allclose(
        f.loc[(0, 13.2), ["lower", "upper"]].astype(float), (0, 630)
    )  # not lifted by 90 um: latent may be far below 0
    assert np.allclose(f.loc[(0, 12.1), ["lower", "upper"]].astype(float), (0, 0))
    assert np.allclose(f.loc[(1, 12.6), ["lower", "upper"]].astype(float), (1370, 2000))


def test_contradictions_are_named_and_keep_the_last_consistent_set():
    f = bound_outcomes([2600, 500, -1], [13.2, 13.2, 12.1], LEVELS, units=["a", "b", "c"])
    assert contradictions(f).to_dict("list") == {"unit": ["a", "c"], "rung": ["R0", "R0"]}
    assert (f.loc[f["unit"] != "b", "status"] == "contradiction").all() and (
        f.loc[f["unit"] == "b", "status"] != "contradiction"
    ).all()
    assert sound(f) and f.query("unit == 'a' and level == 13.2")["upper"].eq(2600).all()
    g = bound_outcomes([800], [12.6], LEVELS, [OutcomeRange(0, 2000), MonotoneResponse(50), StepEffect(-600, -300)])
    assert contradictions(g)["rung"].tolist() == ["R2"] and sound(g) and nested(g)
    assert g.query("rung == 'R1'")["status"].isin(["observed", "bounded"]).all()


def test_certified_under_is_the_weakest_rung_with_that_set():
    f = bound_outcomes([2000.0], [13.2], LEVELS).set_index(["level", "rung"])["certified_under"]
    assert f[(12.6, "R1")] == "R0" and f[(12.6, "R2")] == "R2" and f[(13.2, "R1")] == "observed"
    g = bound_outcomes([600.0], [13.2], LEVELS, [OutcomeRange(0, 2000), MonotoneResponse(0), StepEffect(0, 9999)])
    assert g.query("level == 13.7 and rung == 'R2'")["certified_under"].item() == "R1"


@pytest.mark.parametrize(
    "y, s, kwargs, words",
    [
        ([800, np.nan], [13.2, 13.2], {}, ["`y`", "row 1"]),
        ([800, 700], [13.2, None], {}, ["`treatment`", "row 1"]),
        ([800, "wide"], [13.2, 13.2], {}, ["wide", "row 1"]),
        ([800, 700], [13.2, 12.5], {}, ["12.5", "12.1, 12.6, 13.2, 13.7", "row 1"]),
        ([800, 700], [13.2, 13.2], {"units": ["x", "x"]}, ["units", "x"]),
        ([800], [13.2], {"mode": "prospective"}, ["replay", "carry_limits"]),
        ([800], [13.2, 13.2], {}, ["`treatment`", "2 values"]),
        ([800], [13.2], {"assumptions": [MonotoneResponse(5)]}, ["OutcomeRange"]),
        ([800], [13.2], {"assumptions": [OutcomeRange(0, 1), OutcomeRange(0, 2)]}, ["R0, R0"]),
    ],
)
def test_refusals_name_the_row_and_the_value(y, s, kwargs, words):
    with pytest.raises(InputError) as e:
        bound_outcomes(y, s, LEVELS, **kwargs)
    assert all(w in str(e.value) for w in words), str(e.value)


def test_assumptions_are_data():
    for a in (*VAULT_LADDER, *STEP_PRESETS.values(), OutcomeRange(0, 1), MonotoneResponse(0)):
        assert assumption_from_dict(json.loads(json.dumps(a.to_dict()))) == a and a.sentence and a.rung
        with pytest.raises(AttributeError):
            a.words = "changed"
    assert {k: (p.lo, p.hi) for k, p in STEP_PRESETS.items()} == {
        "mechanical": (0, 1100),
        "literature-CI": (150, 1050),
        "literature-point": (250, 800),
    }
    assert all(p.provenance for p in STEP_PRESETS.values()) and VAULT_LADDER[2] == STEP_PRESETS["literature-CI"]
    assert ladder_table(VAULT_LADDER[::-1])["rung"].tolist() == ["R0", "R1", "R2"]
    for bad in (
        lambda: StepEffect(2, 1),
        lambda: OutcomeRange(1, 1),
        lambda: MonotoneResponse(float("nan")),
        lambda: assumption_from_dict({"kind": "R9"}),
    ):
        with pytest.raises(InputError):
            bad()


# Means against a linear program


def program(p, grid, tolerance, t, sign):
    """Extreme of E[V(t)] over all joint laws of (treatment, V(0), V(1), V(2)) that reproduce P(S = s, Y = y)."""
    from scipy.optimize import linprog

    types = [
        (s, *v)
        for s in range(3)
        for v in itertools.product(range(len(grid)), repeat=3)
        if tolerance is None
        or all(grid[v[j]] >= grid[v[i]] - tolerance for i, j in itertools.combinations(range(3), 2))
    ]
    a = np.zeros((p.size, len(types)))
    for k, (s, *v) in enumerate(types):
        a[s * len(grid) + v[s], k] = 1
    out = linprog([sign * grid[x[1 + t]] for x in types], A_eq=a, b_eq=p.ravel(), bounds=(0, None), method="highs")
    assert out.status == 0
    return sign * out.fun


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tolerance", [None, 0, 1])
def test_mean_bounds_equal_a_brute_force_linear_program(seed, tolerance):
    rng, grid = np.random.default_rng(seed), np.arange(4.0)
    s, y = rng.integers(0, 3, 60), rng.integers(0, 4, 60)
    p = np.zeros((3, 4))
    np.add.at(p, (s, y), 1 / 60)
    ladder = [OutcomeRange(0, 3)] + ([] if tolerance is None else [MonotoneResponse(tolerance)])
    got = mean_bounds(y, s, [0, 1, 2], ladder, groups=np.arange(60))
    got = got[got["rung"] == ladder[-1].rung]
    want = [[program(p, grid, tolerance, t, 1), program(p, grid, tolerance, t, -1)] for t in range(3)]
    assert np.allclose(got[["lower", "upper"]], want, atol=1e-9)


def test_mean_bounds_closed_forms_intervals_and_refusals():
    rng = np.random.default_rng(0)
    s, y = rng.choice(LEVELS, 400), rng.uniform(200, 1500, 400)
    f = mean_bounds(y, s, LEVELS, VAULT_LADDER[:2], groups=np.arange(400) // 2).set_index(["level", "rung"])
    low = np.where(s < 13.2, y - 50, np.where(s == 13.2, y, 0)).mean()
    high = np.where(s > 13.2, y + 50, np.where(s == 13.2, y, 2000)).mean()
    assert np.allclose(f.loc[(13.2, "R1"), ["lower", "upper"]].astype(float), [low, high])
    assert (f["ci_lower"] < f["lower"]).all() and (f["ci_upper"] > f["upper"]).all() and (f["n_groups"] == 200).all()
    with pytest.raises(AssumptionError, match="R0"):
        mean_bounds([2500, 3], [12.1, 12.1], LEVELS, VAULT_LADDER[:2], groups=[1, 2])
    with pytest.raises(NotEnoughData):
        mean_bounds([25, 3], [12.1, 12.1], LEVELS, VAULT_LADDER[:2], groups=[1, 1])
    with pytest.raises(InputError, match="groups"):
        mean_bounds([25, 3], [12.1, 12.1], LEVELS, VAULT_LADDER[:2], groups=[1, None])


def test_interval_for_a_mean_covers_the_true_mean():
    """At the edge of R1 (size does nothing, tolerance 0) the true mean is the upper limit at the smallest level."""
    hits = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        patient = np.repeat(rng.normal(size=60), 2)
        y = 800 + 150 * patient + 60 * rng.normal(size=120)
        f = mean_bounds(
            y, np.full(120, 13.7), LEVELS, [OutcomeRange(0, 2000), MonotoneResponse(0)], groups=np.arange(120) // 2
        )
        hits += f.query("level == 12.1 and rung == 'R1'")["ci_upper"].item() >= 800
    assert 0.88 <= hits / 80 <= 0.99


# Prospective


@settings(max_examples=40)
@given(limit_frames(), ladders())
def test_carried_sets_are_sound_nested_and_labelled(limits, ladder):
    f = carry_limits(limits, LEVELS, ladder, alpha=0.2)
    assert sound(f) and nested(f) and len(f) == 3 * len(limits)
    any_support = limits.groupby("unit")["supported"].any()
    for r, supported in zip(f.itertuples(), np.repeat(limits["supported"], 3)):
        assert (r.status == "supported") == supported and (r.status == "unsupported") == (not any_support[r.unit])
        assert np.isnan(r.anchor) == (r.status == "unsupported") and r.bound_level == 0.8 and r.mode == "prospective"
        assert np.isnan(r.anchor_lower) == (r.sides in ("none", "upper")) and np.isnan(r.anchor_upper) == (
            r.sides in ("none", "lower")
        )
        if r.status == "unsupported" or r.rung == "R0" and r.status == "bounded":
            assert (r.lower, r.upper, r.certified_under, r.sides) == (0, 2000, "R0", "none")
    shuffled = limits.sample(frac=1, random_state=1)
    again = carry_limits(shuffled, LEVELS, ladder, alpha=0.2)
    pd.testing.assert_frame_equal(
        again.sort_values(KEY).reset_index(drop=True), f.sort_values(KEY).reset_index(drop=True)
    )


@settings(max_examples=40)
@given(limit_frames())
def test_r1_follows_its_definition(limits):
    f = carry_limits(limits, LEVELS, [OutcomeRange(0, 2000), MonotoneResponse(50)]).query(
        "rung == 'R1' and status == 'bounded'"
    )
    for r in f.itertuples():
        own = limits[(limits["unit"] == r.unit) & limits["supported"]]
        below, above = own[own["level"] < r.level].tail(1), own[own["level"] > r.level].head(1)
        spend = "half" if len(below) and len(above) else "full"
        lower = np.clip(below[f"lower_{spend}"].item() - 50, 0, 2000) if len(below) else 0
        upper = np.clip(above[f"upper_{spend}"].item() + 50, 0, 2000) if len(above) else 2000
        assert (r.lower, r.upper) == (lower, upper)


def frame_of(rows, unit="eye"):
    return pd.DataFrame(
        [[unit, s, s in rows, *rows.get(s, [np.nan] * 4)] for s in LEVELS],
        columns=["unit", "level", "supported", *LIMITS],
    )


def test_step_effect_keeps_one_budget():
    """Two-sided where it fits into R1's set, else one-sided and said so; between anchors the two events of R1."""

    def r2(limits, ladder=VAULT_LADDER):
        return carry_limits(limits, LEVELS, ladder).query("rung == 'R2'").set_index("level")

    f = r2(frame_of({13.2: (340, 1140, 430, 1050)})).loc[13.7]
    assert np.allclose([f["lower"], f["upper"]], (340 + 75, 1140 + 525)) and f["sides"] == "both" and f["note"] == ""
    f = r2(frame_of({13.2: (340, 1140, 500, 1050)})).loc[13.7]  # R1 says >= 450, two-sided would say 415
    assert (
        np.allclose([f["lower"], f["upper"]], (575, 2000))
        and f["sides"] == "lower"
        and "one limit kept" in f["note"]
        and f["certified_under"] == "R2"
    )
    f = r2(frame_of({13.2: (340, 1900, 430, 1050)})).loc[13.7]  # far limit at the cap says nothing
    assert np.allclose([f["lower"], f["upper"]], (505, 2000)) and f["note"] == ""
    f = r2(frame_of({12.6: (100, 700, 200, 600), 13.7: (500, 1500, 600, 1400)})).loc[13.2]
    assert np.allclose([f["lower"], f["upper"]], (190, 1425)) and (
        f["anchor_lower"],
        f["anchor_upper"],
        f["anchor"],
    ) == (12.6, 13.7, 13.7)
    weak = [OutcomeRange(0, 2000), MonotoneResponse(50), StepEffect(0, 1100, tolerance=50)]
    f = r2(frame_of({13.2: (340, 1140, 500, 1050)}), weak).loc[13.7]
    assert np.allclose([f["lower"], f["upper"]], (450, 2000)) and f["certified_under"] == "R1"  # then R1's own set


def test_crossing_limits_are_a_contradiction_of_that_cell():
    f = carry_limits(frame_of({12.1: (1200, 1900, 1300, 1800), 13.7: (100, 700, 200, 600)}), LEVELS)
    bad = f[f["status"] == "contradiction"]
    assert (
        sorted(set(bad["level"])) == [12.6, 13.2]
        and set(bad["rung"]) == {"R1", "R2"}
        and sound(f)
        and len(contradictions(f)) == 1
    )


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda f: f.drop(columns="lower_half"), "no column `lower_half`"),
        (lambda f: f.iloc[:3], "13.7"),
        (lambda f: pd.concat([f, f.iloc[:1]]), "2 rows"),
        (lambda f: f.assign(supported=True), "row eye"),
        (lambda f: f.assign(level=[12.1, 12.6, 13.2, 13.5]), "13.5"),
        (lambda f: f.assign(supported="unsupported"), "True or False"),
        (lambda f: f.assign(unit=[None, 1, 1, 1]), "`unit`"),
        (lambda f: f.assign(lower_full=0.0), "alpha"),
        (lambda f: f.assign(upper_half=1.0, upper_full=1.0), "upper_half"),
    ],
)
def test_bad_limits_are_refused_by_name(change, words):
    with pytest.raises(InputError) as e:
        carry_limits(change(frame_of({13.2: (340, 1140, 430, 1050)})), LEVELS)
    assert words in str(e.value)


def test_alpha_must_be_a_probability():
    with pytest.raises(InputError, match="alpha"):
        carry_limits(frame_of({13.2: (340, 1140, 430, 1050)}), LEVELS, alpha=10)


# Coverage where the truth is known


def covered(slope, redraw=False, supported=(1, 2), n=200, m=60, reps=150, alpha=0.1, ladder=VAULT_LADDER, grow=0.0):
    """Coverage by rung and level; limits are split-conformal around the known mean, from n units a level."""
    frames, truth = [], []
    for seed in range(reps):
        rng = np.random.default_rng(seed)

        def draw(k):
            x, luck = rng.normal(size=(k, 1)), rng.normal(size=(k, 4)) if redraw else rng.normal(size=(k, 1))
            step = slope(rng, k)[:, None] if callable(slope) else slope
            mean = 800 - 100 * x + np.zeros(4)
            return mean, np.clip(mean + step * (LEVELS - 12.9) + (200 + grow * (LEVELS - 12.9)) * luck, 0, 2000)

        (mean, v), (new_mean, new_v) = draw(n), draw(m)
        residual = np.sort(v - mean, axis=0)
        ranks = {name: int(a * (n + 1)) for name, a in zip(LIMITS, (alpha / 2, alpha / 2, alpha, alpha))}
        frames.append(
            {name: (new_mean + residual[k - 1 if name[0] == "l" else -k]).ravel() for name, k in ranks.items()}
        )
        truth.append(new_v.ravel())
    f = pd.DataFrame({name: np.concatenate([d[name] for d in frames]) for name in LIMITS})
    f = f.assign(
        unit=np.repeat(np.arange(m * reps), 4),
        level=np.tile(LEVELS, m * reps),
        supported=np.tile(np.isin(range(4), supported), m * reps),
    )
    out, truth = carry_limits(f, LEVELS, ladder, alpha), np.repeat(np.concatenate(truth), len(ladder))
    inside = (truth >= out["lower"]) & (truth <= out["upper"])
    return inside[out["status"] == "bounded"].groupby([out["rung"], out["level"]]).mean()


def test_coverage_holds_where_the_assumption_holds():
    """Monte Carlo error about 0.005. No effect makes R1 exact, 150 and 1050 make R2 exact on one side."""
    for slope in (0, 521, lambda rng, k: rng.uniform(0, 3000, k)):
        assert covered(slope)["R1"].min() >= 0.89
    for slope in (150, 1050, lambda rng, k: rng.choice([150, 1050], k)):
        for supported in ((1, 2), (1, 3), (0, 3)):
            c = covered(slope, supported=supported)
            assert c["R1"].min() >= 0.89 and c["R2"].min() >= 0.885


def test_r1_needs_only_stochastic_monotonicity():
    assert covered(200, redraw=True)["R1"].min() >= 0.89


def test_coverage_check_fails_where_the_assumption_is_broken():
    assert covered(-400)["R1"].min() < 0.75  # larger sits lower
    assert covered(0)["R2"].min() < 0.86  # no effect, R2 claims at least 150 a mm
    assert (
        covered(0, grow=400)["R1"].min() < 0.89
    )  # scatter grows with the level: the low tail sinks although no mean does


def test_replay_holds_when_monotone_and_fails_when_not():
    rng = np.random.default_rng(0)
    at = rng.integers(0, 4, 2000)
    for slope, holds in ((400, True), (0, True), (-400, False)):
        v = np.clip(rng.normal(900, 250, (2000, 1)) + slope * (LEVELS - 12.6), 0, 2000)
        f = bound_outcomes(v[np.arange(2000), at], LEVELS[at], LEVELS, VAULT_LADDER[:2])
        truth = np.repeat(v.ravel(), 2)
        inside = ((truth >= f["lower"]) & (truth <= f["upper"]))[
            (f["rung"] == "R1") & (f["status"] == "bounded")
        ].mean()
        assert inside == 1 if holds else inside < 0.2


# Probabilities

SHIFTED = ["p_low_shrunk", "p_high_shrunk", "p_low_grown", "p_high_grown"]


def risks(means, supported, tolerance=None, sd=200.0):
    from scipy.stats import norm

    v, rows = norm(np.asarray(means, float).ravel(), sd), np.ravel(supported)
    f = pd.DataFrame(
        {
            "unit": np.repeat(np.arange(len(rows) // 4), 4),
            "level": np.tile(LEVELS, len(rows) // 4),
            "supported": rows,
            "p_low": v.cdf(250),
            "p_high": v.sf(750),
        }
    )
    if tolerance is not None:
        for name, cut in zip(SHIFTED, (250 + tolerance, 750 - tolerance, 250 - tolerance, 750 + tolerance)):
            f[name] = v.cdf(cut) if "low" in name else v.sf(cut)
    return f


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.integers(-500, 1500),
            st.lists(st.integers(0, 400), min_size=3, max_size=3),
            st.lists(st.booleans(), min_size=4, max_size=4),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([None, 0.0, 50.0]),
)
def test_probability_bounds_hold_the_truth_when_monotone(units, tolerance):
    means = np.array([[a, *(a + np.cumsum(b))] for a, b, _ in units])
    truth = risks(means, np.array([s for *_, s in units]), tolerance)
    f = bound_probabilities(
        truth.mask(~truth["supported"], other=np.nan).assign(**truth[["unit", "level", "supported"]]), LEVELS
    )
    zone = 1 - truth["p_low"] - truth["p_high"]
    for name, p in {"p_low": truth["p_low"], "p_zone": zone, "p_high": truth["p_high"]}.items():
        assert (f[name + "_lower"] <= p + 1e-9).all() and (f[name + "_upper"] >= p - 1e-9).all()
        assert (
            (f[name + "_lower"] <= f[name + "_upper"]).all()
            and f[name + "_lower"].between(0, 1).all()
            and f[name + "_upper"].between(0, 1).all()
        )
    sure = f[f["status"] == "supported"]
    assert np.allclose(sure["p_zone_lower"], sure["p_zone_upper"]) and not f["status"].eq("contradiction").any()
    assert (
        (
            f.loc[f["status"] == "unsupported", ["p_low_lower", "p_low_upper", "p_zone_lower", "p_zone_upper"]]
            == [0, 1, 0, 1]
        )
        .all()
        .all()
    )


def test_probability_tolerance_is_needed_and_stated():
    """Each larger level sinks by 40: false without tolerance, true with cuts shifted by 50."""
    means = np.array([[640, 620, 600, 560]])
    rows = np.array([[False, False, True, False]])
    for tolerance, holds, word in ((None, False, "R1 with tolerance 0"), (50, True, "R1")):
        f = bound_probabilities(risks(means, rows, tolerance), LEVELS).iloc[3]
        truth = risks(means, rows).iloc[3]
        assert (f["p_high_lower"] <= truth["p_high"] and f["p_low_upper"] >= truth["p_low"]) == holds and f[
            "certified_under"
        ] == word


def test_probability_bounds_refuse_and_report():
    f = risks([[300, 400, 500, 600]], [[True, False, False, True]])
    for bad in (
        f.assign(p_low=1.2),
        f.assign(p_high=0.99, p_low=0.5),
        f.assign(p_low_grown=0.9),
        f.drop(columns="p_high"),
        f.iloc[:3],
    ):
        with pytest.raises(InputError):
            bound_probabilities(bad, LEVELS)
    crossed = bound_probabilities(risks([[900, 0, 0, 100]], [[True, False, False, True]]), LEVELS)
    assert crossed["status"].tolist() == ["supported", "contradiction", "contradiction", "supported"]
    assert (crossed["p_zone_lower"] <= crossed["p_zone_upper"]).all() and crossed.loc[1, "p_low_upper"] == 1


# Speed


def test_ten_thousand_units_in_a_second():
    rng, n = np.random.default_rng(0), 10_000
    start = time.perf_counter()
    bound_outcomes(rng.uniform(0, 2000, n), rng.choice(LEVELS, n), LEVELS)
    replay = time.perf_counter() - start
    f = pd.DataFrame(
        {"unit": np.repeat(np.arange(n), 4), "level": np.tile(LEVELS, n), "supported": rng.random(4 * n) < 0.5}
    )
    f[LIMITS] = np.sort(rng.uniform(0, 2000, (4 * n, 4)), axis=1)[:, [0, 3, 1, 2]]
    start = time.perf_counter()
    carry_limits(f, LEVELS)
    carried = time.perf_counter() - start
    print(f"replay {replay:.2f} s, carried {carried:.2f} s")
    assert replay < 2 and carried < 2  # well under 1 s on an idle machine
