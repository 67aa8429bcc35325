"""Checks of what belongs together: they speak when they should, are silent otherwise, and say what they cannot."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings, strategies as st
from scipy.stats import norm

from lensnb.checks import (
    AGAIN,
    CROSS_CHECKS,
    ODDS,
    REPEATABILITY,
    Verdict,
    again_check,
    applicability,
    cross_check,
    expected_rise,
    laterality,
    laterality_check,
    pair_check,
    reading_variance,
    scan_check,
    twins,
)
from lensnb.schema import FIELDS

EYE = dict(size_mm=13.2, ata_mm=12.2, wtw_mm=11.8, clr_um=100.0, acd_mm=3.3, acd_ext_mm=3.84, cct_um=540.0, k_d=44.0)
FOUR = tuple(REPEATABILITY)
BETWEEN_EYES = {"acd_mm": 0.08, "cct_um": 12.0, "wtw_mm": 0.1, "k_d": 0.4}
TYPICAL = {"acd_mm": 3.2, "cct_um": 535.0, "wtw_mm": 11.8, "k_d": 44.0}


def codes(frame):
    return sorted(r["code"] for r in cross_check(frame))


def pair(od, os, **more):
    return pd.DataFrame([od | dict(patient_id="a", eye="OD") | more, os | dict(patient_id="a", eye="OS") | more])


# One eye


def test_an_ordinary_eye_is_not_mentioned():
    assert codes(pd.DataFrame([EYE])) == []
    assert codes(pd.DataFrame([EYE | {n: None} for n in EYE])) == [], "a missing value is no finding"


@pytest.mark.parametrize(
    "code, low, high",
    [
        ("compression", dict(size_mm=12.6, ata_mm=12.61), dict(size_mm=13.7, ata_mm=11.69)),
        ("size_over_wtw", dict(size_mm=12.6, wtw_mm=12.5), dict(size_mm=13.7, wtw_mm=11.2)),
        ("wtw_ata", dict(wtw_mm=11.0, ata_mm=12.82), dict(wtw_mm=12.2, ata_mm=11.11)),
        ("clr_geometry", dict(clr_um=-450), dict(clr_um=660)),
        ("acd_pair", dict(acd_ext_mm=3.78), dict(acd_ext_mm=3.90)),
    ],
)
def test_each_pair_is_told_just_outside_of_its_limits_and_not_on_them(code, low, high):
    needs, compute, limits, _, severity = CROSS_CHECKS[code]
    for change, limit in zip((low, high), limits):
        gap = compute(EYE | change)
        assert gap < limit if limit == limits[0] else gap > limit, (code, gap)
        found = [r for r in pair_check(pd.DataFrame([EYE | change])[list(needs)]) if r["code"] == code]
        assert len(found) == 1 and found[0]["severity"] == severity and found[0]["column"] == needs[0]
        assert float(found[0]["value"]) == pytest.approx(gap, abs=0.006 + abs(gap) / 500)
    assert codes(pd.DataFrame([dict(size_mm=12.6, ata_mm=12.6), dict(size_mm=13.2, ata_mm=11.2)])) == [], (
        "limits are closed"
    )


def test_limits_follow_from_the_published_spread():
    """Four standard deviations of white to white minus angle to angle, the range seen of the two size differences."""
    assert CROSS_CHECKS["wtw_ata"][2] == pytest.approx((-0.365 - 4 * 0.361, -0.365 + 4 * 0.361), abs=0.005)
    assert CROSS_CHECKS["compression"][2] == (0.0, 2.0) and CROSS_CHECKS["size_over_wtw"][2] == (0.2, 2.4)
    assert CROSS_CHECKS["clr_geometry"][2] == (-550.0, 550.0) and CROSS_CHECKS["acd_pair"][2] == (-0.05, 0.05)
    assert [code for code, c in CROSS_CHECKS.items() if c[-1] == "block"] == ["acd_pair"], (
        "arithmetic blocks, rarity warns"
    )


def test_the_geometry_of_the_lens_rise():
    by_hand = -3003 - 571 * 3.3 + 269 * 12.2 + 38.9 * 44
    assert expected_rise(EYE) == pytest.approx(by_hand) == pytest.approx(106.1)
    deeper, wider = expected_rise(EYE | dict(acd_mm=3.4)), expected_rise(EYE | dict(ata_mm=12.3))
    assert deeper == pytest.approx(by_hand - 57.1) and wider == pytest.approx(by_hand + 26.9)


def test_the_geometry_holds_in_the_real_cohort_and_not_when_its_columns_are_shuffled():
    from conftest import real_eyes

    if real_eyes() is None:
        pytest.skip("LENSNB_DATA_DIR is not set: no real cohort")
    eyes = pd.read_csv(real_eyes(), sep=";", encoding="utf-8-sig").rename(
        columns=dict(acd="acd_mm", ata="ata_mm", clr="clr_um", keratometry="k_d", wtw="wtw_mm", iclSize="size_mm")
    )
    surprise = eyes["clr_um"] - expected_rise(eyes)
    assert surprise.std() == pytest.approx(137, abs=8) and abs(surprise.mean()) < 15
    shuffled = eyes.assign(acd_mm=eyes["acd_mm"].sample(frac=1, random_state=1).to_numpy())
    assert (shuffled["clr_um"] - expected_rise(shuffled)).std() > 200
    found = pd.Series([r["code"] for r in pair_check(eyes)]).value_counts()
    assert found.get("clr_geometry", 0) == 0 and found.sum() <= 5


@given(st.floats(2.4, 4.4), st.integers(400, 700), st.floats(-0.3, 0.3))
def test_internal_and_external_depth_must_add_up(acd, cct, off):
    acd = round(acd, 2)
    eye = dict(acd_mm=acd, cct_um=cct, acd_ext_mm=acd + cct / 1000 + off)
    found = [r for r in pair_check(pd.DataFrame([eye])) if r["code"] == "acd_pair"]
    if abs(abs(off) - 0.05) > 1e-6:
        assert bool(found) == (abs(off) > 0.05)
    rounded = eye | dict(acd_ext_mm=round(acd + cct / 1000, 2))
    assert pair_check(pd.DataFrame([rounded])) == [], "rounding is no error"


# Two eyes


def test_twins_are_told_and_one_digit_silences_them():
    assert [(r["row"], r["code"], r["severity"]) for r in twins(pair(EYE, EYE))] == [
        (0, "twins", "warn"),
        (1, "twins", "warn"),
    ]
    assert codes(pair(EYE, EYE)) == ["twins", "twins"]
    for name in ("ata_mm", "clr_um", "k_d"):
        assert twins(pair(EYE, EYE | {name: EYE[name] + FIELDS[name].resolution})) == []
        assert twins(pair(EYE, EYE | {name: None})) == [], "one eye was measured more than the other"
        assert len(twins(pair(EYE | {name: None}, EYE | {name: None}))) == 2


def test_twins_need_three_measurements_one_patient_and_one_examination():
    few = dict(ata_mm=12.2, wtw_mm=11.8)
    assert twins(pair(few, few)) == [] and len(twins(pair(few | dict(lt_mm=3.7), few | dict(lt_mm=3.7)))) == 2
    assert (
        twins(pair(few | dict(age_y=31, icl_se_d=-9, size_mm=13.2), few | dict(age_y=31, icl_se_d=-9, size_mm=13.2)))
        == []
    )
    other = pair(EYE, EYE).assign(patient_id=["a", "b"])
    assert twins(other) == [] and twins(other.assign(patient_id=None)) == []
    assert twins(pair(EYE, EYE).assign(exam_date=pd.to_datetime(["2026-01-01", "2026-01-02"]))) == []
    assert len(twins(pair(EYE, EYE).assign(exam_date=pd.NaT))) == 2, "unknown days are one day"


# Right or left


def exam(values):
    return {side: dict(zip(FOUR, v)) for side, v in zip(("OD", "OS"), values)}


def turned(e):
    return {"OD": e["OS"], "OS": e["OD"]}


READINGS = st.tuples(st.floats(2.8, 3.8), st.floats(450, 600), st.floats(11, 12.5), st.floats(40, 48))
EXAMS = st.tuples(READINGS, READINGS).map(exam)


@given(EXAMS, EXAMS)
def test_the_ratio_is_that_of_the_normal_densities(new, known):
    def log_likelihood(seen, of):
        return sum(
            norm.logpdf(seen[s][n], of[s][n], math.sqrt(2 * reading_variance(n))) for s in ("OD", "OS") for n in FOUR
        )

    ratio = log_likelihood(new, known) - log_likelihood(new, turned(known))
    v = laterality(new, known)
    assert v.log_ratio == pytest.approx(ratio, rel=1e-6, abs=1e-6) or v.why == "the same numbers again"
    assert v.verdict in ("straight", "swapped", "undecided") and (
        abs(v.log_ratio) >= math.log(ODDS) or v.verdict == "undecided"
    )


@given(EXAMS, EXAMS, st.floats(-2, 2))
def test_exchanging_either_turns_the_verdict_and_an_offset_changes_nothing(new, known, offset):
    assume(new != known)
    v, other = laterality(new, known), {"straight": "swapped", "swapped": "straight", "undecided": "undecided"}
    for turned_round in (laterality(turned(new), known), laterality(new, turned(known))):
        assert turned_round.verdict == other[v.verdict] or math.inf in (v.log_ratio, turned_round.log_ratio)
    assert laterality(turned(new), turned(known)).log_ratio == pytest.approx(v.log_ratio)
    moved = {s: {n: x + offset * REPEATABILITY[n] for n, x in eye.items()} for s, eye in new.items()}
    assert laterality(moved, known).log_ratio == pytest.approx(v.log_ratio, rel=1e-4, abs=1e-4)


def simulate(n, seed, noise=1.0, exchanged=False, between=1.0):
    """Verdicts of pairs examined twice, printed on the grid, independent of the notebook's own simulation."""
    rng, verdicts = np.random.default_rng(seed), []
    for _ in range(n):
        right = {f: TYPICAL[f] + 0.5 * BETWEEN_EYES[f] * between * rng.normal() for f in FOUR}
        truth = {"OD": right, "OS": {f: 2 * TYPICAL[f] - v for f, v in right.items()}}
        two = []
        for _ in range(2):
            read = {
                s: {f: v + noise * REPEATABILITY[f] * rng.normal() for f, v in eye.items()} for s, eye in truth.items()
            }
            grid = {f: FIELDS[f].resolution for f in FOUR}
            two.append({s: {f: round(v / grid[f]) * grid[f] for f, v in eye.items()} for s, eye in read.items()})
        verdicts.append(laterality(turned(two[0]) if exchanged else two[0], two[1]).verdict)
    return pd.Series(verdicts).value_counts(normalize=True)


def test_most_exchanges_are_caught_hardly_any_is_called_straight_and_the_rest_is_said_to_be_open():
    straight, exchanged = simulate(3000, 3), simulate(3000, 4, exchanged=True)
    assert straight.get("swapped", 0) < 0.006 and exchanged.get("straight", 0) < 0.006
    assert 0.55 < exchanged["swapped"] < 0.72 and 0.55 < straight["straight"] < 0.72
    assert 0.28 < exchanged["undecided"] < 0.45


def test_the_promise_breaks_when_its_assumption_does():
    """Readings that scatter twice as much as assumed break the 1 %; this is why the assumed errors are large."""
    assert simulate(3000, 5, noise=2.0).get("swapped", 0) > 0.02


def test_equal_eyes_cannot_be_told_apart():
    share = simulate(1000, 6, between=0.0)
    assert share["undecided"] > 0.95 and share.drop("undecided").sum() < 0.05


def test_a_blunder_makes_it_undecided_and_not_wrong():
    first = exam([(3.21, 540, 11.8, 43.5), (3.12, 560, 11.7, 44.1)])
    for name, wrong in [("k_d", 47.5), ("cct_um", 640), ("acd_mm", 3.75), ("wtw_mm", 13.1)]:
        again = {s: dict(eye) for s, eye in first.items()}
        again["OD"][name] = wrong
        assert laterality(again, first).verdict == "undecided" and "fit neither" in laterality(again, first).why


def test_what_is_missing_is_not_used():
    first = exam([(3.21, 540, 11.8, 43.5), (3.02, 580, 11.5, 44.9)])
    for gone in FOUR:
        for absent in (None, float("nan"), "leave out"):
            again = {s: dict(eye) for s, eye in first.items()}
            again["OS"][gone] = absent
            if absent == "leave out":
                del again["OS"][gone]
            v = laterality(again, first)
            assert v.used == tuple(n for n in FOUR if n != gone) and v.verdict == "straight"
    assert laterality({}, first) == Verdict("undecided", why="the two examinations share no quantity")
    assert laterality({"OD": first["OD"]}, first).verdict == "undecided", "one eye alone decides nothing"


def test_the_same_numbers_again_are_straight_unless_the_eyes_are_equal():
    close = exam([(3.21, 540, 11.8, 43.5), (3.21, 540, 11.8, 43.505)])
    assert laterality(close, close).verdict == "straight" and laterality(turned(close), close).verdict == "undecided"
    equal = exam([(3.21, 540, 11.8, 43.5)] * 2)
    assert laterality(equal, equal).verdict == "undecided"


# Tables


def table(exams, **more):
    return pd.DataFrame([dict(patient_id=p, eye=s, **v, **more) for p, e in exams.items() for s, v in e.items()])


FIRST = exam([(3.21, 540, 11.8, 43.5), (3.12, 560, 11.7, 44.1)])
AGAIN_SEEN = exam([(3.18, 540, 11.8, 43.6), (3.13, 550, 11.7, 44.1)])
ALIKE = exam([(3.17, 550, 11.8, 43.8), (3.16, 550, 11.8, 43.85)])


def test_both_rows_of_an_exchanged_pair_are_blocked_with_the_exchange_as_suggestion():
    found = laterality_check(table({"a": turned(AGAIN_SEEN), "b": AGAIN_SEEN}), table({"a": FIRST, "b": FIRST}))
    assert [(r["row"], r["column"], r["code"], r["value"], r["suggested"], r["severity"]) for r in found] == [
        (0, "eye", "laterality", "OD", "OS", "block"),
        (1, "eye", "laterality", "OS", "OD", "block"),
    ]
    assert all("exchanged" in r["message"] and "a" != r["value"] for r in found)


def test_an_undecided_pair_is_blocked_under_its_own_code():
    found = laterality_check(table({"a": ALIKE}), table({"a": FIRST}))
    assert {r["code"] for r in found} == {"laterality_undecided"} and [r["row"] for r in found] == [0, 1]
    assert all(r["severity"] == "block" and r["suggested"] is None for r in found)


@pytest.mark.parametrize(
    "known",
    [
        None,
        pd.DataFrame(),
        table({"z": FIRST}),
        table({"a": {"OD": FIRST["OD"]}}),
        table({"a": FIRST}).drop(columns=list(FOUR)),
    ],
)
def test_without_an_earlier_examination_of_both_eyes_nothing_is_said(known):
    assert laterality_check(table({"a": turned(FIRST)}), known) == []


def test_two_examinations_in_one_table_are_compared_and_both_wait():
    days = [dict(exam_date=pd.Timestamp("2025-01-07")), dict(exam_date=pd.Timestamp("2026-01-07"))]
    for more in (days, [dict(device="A"), dict(device="B")]):
        both = pd.concat(
            [table({"a": FIRST}, **more[0]), table({"a": turned(AGAIN_SEEN)}, **more[1])], ignore_index=True
        )
        assert {r["row"] for r in laterality_check(both)} == {0, 1, 2, 3}
        both = pd.concat([table({"a": FIRST}, **more[0]), table({"a": AGAIN_SEEN}, **more[1])], ignore_index=True)
        assert laterality_check(both) == []


def test_eyes_examined_on_different_days_are_compared_with_what_is_known():
    new = table({"a": turned(AGAIN_SEEN)}).assign(exam_date=pd.to_datetime(["2026-01-07", "2026-02-07"]))
    assert {r["code"] for r in laterality_check(new, table({"a": FIRST}))} == {"laterality"}


def test_row_labels_are_those_of_the_table():
    new = table({"a": turned(AGAIN_SEEN)}).set_axis([17, 4])
    assert sorted(r["row"] for r in laterality_check(new, table({"a": FIRST}))) == [4, 17]


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", None]),
            st.sampled_from(["OD", "OS", None, "OU"]),
            st.none() | st.floats(2.5, 4.2),
            st.none() | st.floats(400, 700),
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_no_table_crashes_a_check_and_only_its_own_rows_are_named(rows, dated):
    frame = pd.DataFrame(rows, columns=["patient_id", "eye", "acd_mm", "cct_um"]).astype(
        {"acd_mm": float, "cct_um": float}
    )
    if dated:
        frame["exam_date"] = pd.Timestamp("2026-01-07")
    known = table({"a": FIRST, "b": ALIKE})
    for found in (
        laterality_check(frame, known),
        laterality_check(frame),
        cross_check(frame),
        again_check(frame, known),
    ):
        assert {r["row"] for r in found} <= set(frame.index)
    assert laterality_check(frame.drop(columns="eye"), known) == [] == twins(frame.drop(columns="patient_id"))


def test_a_large_table_is_checked_in_time():
    from time import perf_counter

    rng, n = np.random.default_rng(1), 3000
    new = pd.DataFrame({"patient_id": np.repeat([f"p{i}" for i in range(n)], 2), "eye": ["OD", "OS"] * n})
    for f in FOUR:
        new[f] = TYPICAL[f] + BETWEEN_EYES[f] * rng.normal(size=2 * n)
    known, start = new.assign(k_d=new["k_d"] + 0.1 * rng.normal(size=2 * n)), perf_counter()
    laterality_check(new, known), twins(new), again_check(new, known)
    assert perf_counter() - start < 15, "6,000 rows take well under a second on an idle machine"


# The same eye again, scans, and the limits of use


def test_an_external_depth_or_another_persons_page_is_seen_against_the_last_examination():
    known, new = table({"a": FIRST}), table({"a": AGAIN_SEEN})
    assert again_check(new, known) == [] and again_check(new, None) == [] and again_check(new, known.iloc[:0]) == []
    external = new.assign(acd_mm=new["acd_mm"] + new["cct_um"] / 1000)
    assert {(r["row"], r["column"], r["severity"]) for r in again_check(external, known)} == {
        (0, "acd_mm", "warn"),
        (1, "acd_mm", "warn"),
    }
    other = table({"a": exam([(3.6, 480, 12.9, 46.0), (3.6, 470, 12.9, 46.4)])})
    assert {r["column"] for r in again_check(other, known)} >= {"acd_mm", "cct_um", "k_d"}
    later = pd.concat(
        [known.assign(exam_date=pd.Timestamp("2025-01-01")), external.assign(exam_date=pd.Timestamp("2024-01-01"))],
        ignore_index=True,
    )
    assert again_check(new, later) == [], "the last examination counts, not the last row"


def test_repeated_readings_of_one_eye_hardly_ever_differ_by_so_much():
    for name, limit in AGAIN.items():
        if name in REPEATABILITY:
            assert limit >= 4.5 * math.sqrt(2 * reading_variance(name)) and limit < 10 * math.sqrt(
                2 * reading_variance(name)
            )


@given(st.integers(50, 1500), st.integers(-30, 30))
def test_a_mean_is_the_mean_of_its_scans(vault, spread):
    scans = pd.DataFrame({"one": [vault - spread], "two": [vault + spread]})
    assert scan_check("vault_um", pd.Series([float(vault)]), scans) == []
    found = scan_check("vault_um", pd.Series([float(vault * 10 + 1)]), scans)
    assert len(found) == 1 and found[0]["suggested"] == vault and found[0]["severity"] == "block"
    assert scan_check("vault_um", pd.Series([float(vault * 10)]), scans.assign(two=np.nan)) == [], (
        "no two scans, no mean"
    )


@pytest.mark.parametrize(
    "eye, words",
    [
        (dict(history="corneal surgery"), "previous corneal surgery"),
        (dict(history="ectasia"), "ectasia"),
        (dict(history="other eye surgery"), "previous eye surgery"),
        (dict(orientation="vertical"), "vertical fixation"),
        (dict(lens_model="other"), "another lens model"),
        (dict(icl_se_d=2.0), "hyperopic lens"),
    ],
)
def test_an_eye_outside_of_what_was_studied_is_told_why(eye, words):
    inside = dict(history="none", orientation="horizontal", lens_model="EVO+", icl_se_d=-9.0, toric="yes")
    assert applicability(pd.DataFrame([inside, inside | eye])).tolist()[0] == ""
    assert applicability(pd.DataFrame([inside | eye]))[0].startswith(words)
    assert applicability(pd.DataFrame([eye]))[0].startswith(words)


def test_every_choice_of_the_field_table_is_inside_or_has_a_reason():
    inside = {"history": {"none"}, "orientation": {"horizontal"}, "lens_model": {"EVO", "EVO+"}, "toric": {"yes", "no"}}
    for name, allowed in inside.items():
        said = applicability(pd.DataFrame({name: list(FIELDS[name].choices)}))
        assert {c for c, why in zip(FIELDS[name].choices, said) if not why} == allowed


def test_reasons_add_up_and_what_is_unknown_counts_as_inside():
    eyes = pd.DataFrame(
        {"history": ["ectasia", None], "orientation": ["vertical", None], "icl_se_d": [3.0, np.nan]}, index=[5, 9]
    )
    why = applicability(eyes)
    assert why.index.tolist() == [5, 9] and why[5].count("; ") == 2 and why[9] == ""
    assert applicability(pd.DataFrame({"ata_mm": [12.2]})).tolist() == [""] and len(applicability(eyes.iloc[:0])) == 0
