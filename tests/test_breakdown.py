"""lensnb.breakdown: the search against a brute-force grid, its refusals, claims by hand, confidence, the frontier."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensnb.bounds import VAULT_LADDER, StepEffect
from lensnb.breakdown import (
    along,
    breakdown_frontier,
    breakdown_table,
    claim_limit,
    draw_frontier,
    draw_staircase,
    find_breakdown,
    sentences,
    staircase_table,
)
from lensnb.policy import Inside, above, below, everyone, observed, replay, rule_contrasts
from lensnb.schema import AssumptionError, InputError

LEVELS = (12.1, 12.6, 13.2, 13.7)
ZONE = Inside(250, 750, "in the zone")
BY_SLOPE = along(VAULT_LADDER, "R2", lo=float)


@pytest.fixture(scope="module")
def past():
    rng = np.random.default_rng(0)
    y = np.clip(np.round(rng.normal(700, 280, 150), -1), 0, 2000)
    return replay(y, rng.choice(LEVELS, 150), LEVELS, np.repeat(np.arange(75), 2))


# The search


@settings(max_examples=80, deadline=None)
@given(st.floats(-200, 1300), st.booleans())
def test_search_finds_a_jump(jump, reverse):
    weak, strong = (1100, 0) if reverse else (0, 1100)
    holds = (lambda t: 1.0 if t <= jump else 0.0) if reverse else (lambda t: 1.0 if t >= jump else 0.0)
    found = find_breakdown(holds, weak, strong, 0.5)
    if found.status == "found":
        assert abs(found.value - jump) <= 0.5 and holds(found.value) > 0
    else:
        assert (found.status == "always") == bool(holds(weak)) and (found.status == "never") == (not holds(strong))


def test_search_agrees_with_a_brute_force_grid(past):
    for level, gain, claim in ((12.6, above(750), "fewer"), (13.7, above(750), "more"), (13.7, ZONE, "fewer")):
        limit = lambda lo: claim_limit(past, everyone(level), gain, BY_SLOPE(lo), claim)
        grid = np.arange(0, 1051, 5.0)
        holds = np.array([limit(t) > 0 for t in grid])
        assert (np.diff(holds.astype(int)) >= 0).all(), "nested sets: once it holds it keeps holding"
        found = find_breakdown(limit, 0, 1050, 1)
        assert found.status == "found" and abs(found.value - grid[holds.argmax()]) <= 5
        assert found.value <= grid[holds.argmax()] + 1


def test_search_refuses_what_is_no_bound():
    with pytest.raises(AssumptionError, match="falls"):
        find_breakdown(lambda t: -t, 0, 10)
    with pytest.raises(AssumptionError):
        find_breakdown(lambda t: np.nan, 0, 10)
    with pytest.raises(InputError):
        find_breakdown(lambda t: t, 0, 10, precision=0)
    wavy = find_breakdown(lambda t: np.sin(t), 0, 8, 0.001, points=33, monotone=False)    # holds again from 2 pi on
    assert wavy.value == pytest.approx(2 * np.pi, abs=0.001)
    assert "cannot" in find_breakdown(lambda t: -1, 0, 1).say("It")


# Claims


def test_claim_by_hand():
    eyes = replay([400, 500, 600, 700, 780, 850, 1000, 1200], [13.2] * 8, LEVELS, groups=range(8))
    limit = lambda lo: claim_limit(eyes, everyone(12.6), above(750), BY_SLOPE(lo), "fewer")
    assert [round(8 * limit(lo)) for lo in (0, 49, 51, 166, 168, 420)] == [0, 0, 1, 1, 2, 3]
    assert find_breakdown(limit, 0, 1050).value == pytest.approx(50, abs=1)


def test_claim_limit_is_the_limit_of_the_contrast(past):
    row = rule_contrasts(past, {"a": everyone(12.6)}, above(750)).iloc[-1]
    for sure, prefix in ((False, ""), (True, "ci_")):
        more, fewer = (
            claim_limit(past, everyone(12.6), above(750), VAULT_LADDER, c, confident=sure) for c in ("more", "fewer")
        )
        assert more == pytest.approx(row[prefix + "lower"]) and fewer == pytest.approx(-row[prefix + "upper"])
    assert claim_limit(past, observed, ZONE, VAULT_LADDER) == 0
    with pytest.raises(InputError):
        claim_limit(past, observed, ZONE, VAULT_LADDER, "better")
    with pytest.raises(InputError):
        along(VAULT_LADDER, "R7", lo=float)


def test_table_and_sentences(past):
    gains = {"over": above(750), "under": below(250)}
    table = breakdown_table(past, {"small": everyone(12.1), "same": observed}, gains)
    assert set(table.rule) == {"small"}, "a rule against itself has no claim"
    assert set(zip(table.gain, table.claim)) == {("over", "fewer"), ("under", "more")}
    both = table.dropna(subset=["value", "value_ci"])
    assert (both.value_ci >= both.value - 2).all(), "sampling error makes a claim dearer"
    for r in table.itertuples():
        at = lambda lo: claim_limit(past, everyone(12.1), gains[r.gain], BY_SLOPE(lo), r.claim)
        assert at(r.value) > 0 and not at(r.value - 4) > 0
    assert all("um per mm" in line for line in sentences(table)) and len(sentences(table)) == len(table)


def test_a_violated_assumption_makes_the_claim_false():
    """A flat world: 'everyone 12.6 puts fewer over 750' is certain under R2 at its breakdown value, and not true."""
    rng = np.random.default_rng(1)
    y = np.clip(np.round(rng.normal(750, 250, 300), -1), 0, 2000)
    flat = replay(y, np.full(300, 13.7), LEVELS, range(300))
    limit = lambda lo: claim_limit(flat, everyone(12.6), above(750), BY_SLOPE(lo), "fewer", confident=True)
    found = find_breakdown(limit, 0, 1050, monotone=False)
    truth = 0.0                                       # the same vault with any size
    assert found.status == "found" and found.value > 0 and limit(found.value) > truth
    assert not limit(0) > truth, "an assumption that is true there (lo = 0) claims nothing"


# Pictures and frontier


def test_frontier_rises_with_the_upper_end(past):
    limit = lambda lo, hi: claim_limit(
        past, everyone(12.6), above(750), [*VAULT_LADDER[:2], StepEffect(lo, hi, "mm")], "fewer"
    )
    f = breakdown_frontier(limit, (200, 600, 1000))
    assert (f.lo.dropna().diff().dropna() >= -10).all()
    for hi, lo in f.dropna().itertuples(index=False):
        assert limit(lo, hi) > 0


def test_staircase_is_nested_and_draws(past):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    r0, r1, r2 = VAULT_LADDER
    table = staircase_table(past, everyone(12.6), ZONE, {"nothing": [r0], "order": [r0, r1], "step": [r0, r1, r2]})
    assert (table.lower.diff().dropna() >= -1e-12).all() and (table.upper.diff().dropna() <= 1e-12).all()
    fig, (a, b) = plt.subplots(1, 2)
    draw_staircase(a, table, "here", 1)
    draw_frontier(b, pd.DataFrame({"hi": [300.0, 600, 900], "lo": [100.0, 400, np.nan]}))
    assert any(t.get_text() == "here" for t in a.texts)
    plt.close(fig)
