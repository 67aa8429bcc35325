"""Published formulas: every printed number, where each is defined, what it refuses; and that the checks can fail."""

import numpy as np
import pandas as pd
import pytest
from conftest import real_eyes
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone, is_regressor

from lensnb import formulas
from lensnb.formulas import (
    FORMULAS,
    LISTED,
    HSTS2026,
    Lee2012,
    Manito2021,
    OwnFormula,
    Trancon2020,
    UnconfirmedFormula,
    XiaCalculator,
    Zhu2021,
    accuracy,
    auc,
    calibration,
    check_golden,
    clustered_mean,
    compare_formulas,
    computable,
    formula,
    formula_table,
    size_table,
    weigh,
    zone_accuracy,
)
from lensnb.schema import SIZES_MM, InputError

EYE = {
    "ata_mm": 12.2,
    "clr_um": 100,
    "icl_se_d": -10.5,
    "age_y": 32,
    "wtw_mm": 11.8,
    "acd_mm": 3.2,
    "sts_h_mm": 11.8,
    "sts_v_mm": 12.2,
    "lt_mm": 3.7,
    "toric": "no",
    "orientation": "horizontal",
}
FOUR = pd.DataFrame([{"size_mm": s, **EYE} for s in SIZES_MM])
ALL = [cls() for cls in FORMULAS.values()]
LINEAR = [Trancon2020(), Zhu2021(), HSTS2026(), Lee2012()]
NAME = staticmethod(lambda f: f.title).__func__


# --- printed numbers --------------------------------------------------------------------------------------------
def test_trancon_has_the_printed_coefficients_and_worked_example():
    assert Trancon2020.coefs == {
        "intercept": 4132.04,
        "size_mm": {12.6: -260.99, 13.2: 0.0, 13.7: 330.19},
        "ata_mm": -287.45,
        "clr_um": -0.37,
        "icl_se_d": -20.39,
        "age_y": -4.82,
    }
    assert list(Trancon2020.standard_errors.values()) == [527.60, {12.6: 40.77, 13.7: 41.85}, 42.69, 0.07, 4.11, 1.86]
    assert Trancon2020().predict(FOUR)[1:].round(3).tolist() == [387.015, 648.005, 978.195] and Trancon2020.n == 360


def test_manito_has_the_printed_coefficients_and_worked_example():
    assert Manito2021.low == {
        "intercept": -1.401,
        "size_mm": {12.6: 0.142, 13.2: 0.0, 13.7: -0.790},
        "age_y": 0.028,
        "compression_mm": -0.506,
        "clr_um": 0.005,
        "icl_se_d": 0.202,
    }
    assert Manito2021.high == {
        "intercept": -5.733,
        "size_mm": {12.6: -0.096, 13.2: 0.0, 13.7: 1.958},
        "age_y": -0.076,
        "compression_mm": 3.721,
        "clr_um": 0.0,
        "icl_se_d": -0.164,
    }
    p = Manito2021().predict_proba(FOUR)
    assert p.iloc[1:].round(4).to_numpy().tolist() == [
        [0.1004, 0.8939, 0.0057],
        [0.0632, 0.8790, 0.0578],
        [0.0063, 0.2488, 0.7449],
    ]
    assert list(p.columns) == ["p_low", "p_zone", "p_high"] and Manito2021.zone == (250.0, 1000.0)


@pytest.mark.parametrize(
    "found, expected",
    [
        (Zhu2021(), [-84.97, 243.60, 637.87, 966.43]),
        (HSTS2026(), [317.07, 504.81, 730.10, 917.85]),
        (XiaCalculator(theta_deg=0), [243.65, 338.35, 451.99, 546.69]),
        (XiaCalculator(theta_deg=90), [138.67, 233.37, 347.01, 441.71]),
        (Lee2012(), [330, 880, 1540, 2090]),
    ],
    ids=str,
)
def test_the_sulcus_formulas_give_their_worked_examples(found, expected):
    assert found.predict(FOUR).round(2).tolist() == expected


def test_the_sulcus_formulas_have_the_printed_coefficients():
    assert list(Zhu2021.coefs.values()) == [-1369.05, 657.121, -287.408, -432.497, -137.33]
    assert list(HSTS2026.coefs.values()) == [-2286.216, -164.416, 375.487]
    assert list(XiaCalculator.coefs.values()) == [
        -959.8149,
        198.8547,
        189.3997,
        {"no": 0.0, "yes": 45.9887},
        -114.9899,
        -99.3845,
        -58.9862,
    ]
    assert Lee2012().coefs == {"size_mm": 1100.0, "sts_h_mm": -1100.0}
    assert (Zhu2021.n, HSTS2026.n, XiaCalculator.n, Lee2012.n) == (83, 72, 373, None)


def digit(number):
    """One unit of the last printed digit."""
    return 10.0 ** -len(f"{number:.10f}".rstrip("0").split(".")[1]) if number else 0.001


def altered(coefs):
    for name, c in coefs.items():
        if isinstance(c, dict):
            yield from ({**coefs, name: {**c, k: v + digit(v)}} for k, v in c.items() if v)
        else:
            yield {**coefs, name: c + digit(c)}


@pytest.mark.parametrize("cls", FORMULAS.values(), ids=lambda c: c.name)
def test_the_worked_examples_notice_every_coefficient(cls):
    assert check_golden(cls()) >= 3
    for table in ("low", "high") if cls is Manito2021 else ("coefs",):
        for changed in altered(getattr(cls(), table)):
            with pytest.raises(InputError, match="worked example"):
                check_golden(type("Altered", (cls,), {table: changed})())


# --- the contract -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("f", ALL, ids=NAME)
def test_all_keep_one_contract(f):
    assert f.fit(FOUR, [1, 2, 3, 4]) is f and f.title and f.source and f.device and f.published and is_regressor(f)
    assert f.kind in ("um", "probabilities", "law") and set(f.needs) <= {"size_mm", *EYE}
    got, why = f.answer(FOUR), f.reasons(FOUR)
    assert list(got.columns) == list(f.gives) and got.index.equals(FOUR.index)
    assert (got.isna().all(axis=1) == (why != "")).all() and (got.isna().any(axis=1) == (why != "")).all()
    assert [s for s, w in zip(SIZES_MM, why) if not w] == list(f.sizes)
    other = clone(f)
    assert other is not f and other.get_params() == f.get_params()
    pd.testing.assert_frame_equal(other.answer(FOUR), got)


def test_parameters_are_kept_and_checked():
    assert clone(Lee2012(bed="wtw_mm")).needs == ("size_mm", "wtw_mm")
    assert Lee2012().set_params(bed="wtw_mm").bed == "wtw_mm" and Trancon2020().get_params() == {}
    assert "orientation" not in XiaCalculator(theta_deg=45).needs and "orientation" in XiaCalculator().needs
    with pytest.raises(InputError, match="no parameter `slope`"):
        Trancon2020().set_params(slope=1)
    with pytest.raises(InputError, match="sts_h_mm or wtw_mm"):
        Lee2012().set_params(bed="ata_mm")


@pytest.mark.parametrize("f", ALL, ids=NAME)
def test_a_gap_gives_no_answer_and_the_reason(f):
    for name in f.needs:
        X = FOUR.iloc[[2]].astype({name: object}).assign(**{name: [None]})
        assert f.answer(X).isna().all(axis=None) and f.reasons(X).tolist() == [f"`{name}` is missing"]


def test_undefined_sizes_and_positions_say_so():
    assert "not defined for 12.1 mm" in Trancon2020().reasons(FOUR)[0] and np.isnan(Trancon2020().predict(FOUR)[0])
    assert "not defined for 12.5 mm" in Zhu2021().reasons(FOUR.assign(size_mm=12.5))[0]
    upright = FOUR.assign(orientation="vertical")
    for f in ALL:
        assert (f.reasons(upright)[1:].str.contains("horizontal").all()) == (f.fixation == "horizontal"), f.title
    assert np.isfinite(XiaCalculator().predict(upright)).all()
    assert np.isfinite(Trancon2020().predict(FOUR.drop(columns="orientation")))[1:].all()
    assert np.isfinite(Trancon2020().predict(FOUR.assign(orientation=None)))[1:].all()


def test_manito_refuses_micrometres_and_its_odds_are_odds():
    with pytest.raises(InputError, match="predict_proba"):
        Manito2021().predict(FOUR)
    far = pd.DataFrame(
        [
            {**EYE, "size_mm": 13.7, "ata_mm": a, "clr_um": c, "icl_se_d": s, "age_y": y}
            for a in (9.5, 14.5)
            for c in (-1000, 1000)
            for s in (-25, 0)
            for y in (17, 70)
        ]
    )
    p = Manito2021().predict_proba(far)
    assert np.allclose(p.sum(axis=1), 1) and p.min(axis=None) >= 0
    assert p["p_high"].max() > 0.999 and p["p_low"].max() > 0.9


@pytest.mark.parametrize(
    "column, value, words",
    [
        ("ata_mm", 117.2, "Perhaps 11.72"),
        ("icl_se_d", 10.5, "Perhaps -10.5"),
        ("clr_um", 0.11, "whole micrometres"),
        ("age_y", 0, "17 to 70"),
        ("ata_mm", "12,2", "a number, not a word"),
        ("age_y", True, "a number, not a word"),
        ("clr_um", np.inf, "-1000 to 1000"),
    ],
)
def test_a_value_in_another_unit_is_refused(column, value, words):
    X = FOUR.astype({column: object}).assign(**{column: [EYE[column], value, EYE[column], EYE[column]]})
    with pytest.raises(InputError, match=words) as e:
        Trancon2020().predict(X)
    assert e.value.row == 1 and e.value.field == column


def test_a_missing_column_and_a_wrong_word_are_refused():
    with pytest.raises(InputError, match="`clr_mm` may be meant"):
        Trancon2020().predict(FOUR.rename(columns={"clr_um": "clr_mm"}))
    with pytest.raises(InputError, match="one of yes, no"):
        XiaCalculator().predict(FOUR.assign(toric="maybe"))
    with pytest.raises(InputError, match="DataFrame"):
        Trancon2020().predict([[1, 2]])
    assert Trancon2020().predict(FOUR.iloc[:0]).shape == (0,) and len(Manito2021().predict_proba(FOUR.iloc[:0])) == 0


# --- closed forms -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "f, slope", [(Zhu2021(), 657.121), (HSTS2026(), 375.487), (XiaCalculator(), 189.3997), (Lee2012(), 1100.0)], ids=str
)
def test_the_slope_in_size(f, slope):
    assert np.allclose(np.diff(f.predict(FOUR)) / np.diff(SIZES_MM), slope)


def test_the_slopes_in_the_eye():
    def moved(f, **by):
        return (f.predict(FOUR.assign(**{k: FOUR[k] + v for k, v in by.items()})) - f.predict(FOUR))[2]

    assert np.isclose(moved(Trancon2020(), ata_mm=0.1), -28.745) and np.isclose(
        moved(Trancon2020(), icl_se_d=-1), 20.39
    )
    assert np.isclose(moved(Zhu2021(), lt_mm=0.1), -43.2497) and np.isclose(moved(Zhu2021(), sts_v_mm=0.1), -13.733)
    assert np.isclose(moved(XiaCalculator(), acd_mm=0.1), 19.88547)
    assert (
        np.isclose(moved(XiaCalculator(), sts_v_mm=0.5), 0) and moved(XiaCalculator(theta_deg=90), sts_h_mm=0.5) < 1e-9
    )
    steps = np.diff(Trancon2020().predict(FOUR)[1:])
    assert np.allclose(steps, [260.99, 330.19]), "435 and 660 um per mm"


def test_a_turned_lens_lies_between_flat_and_upright_and_a_round_sulcus_does_not_mind():
    at = [XiaCalculator(theta_deg=t).predict(FOUR)[0] for t in (0, 30, 60, 90, 180)]
    assert at[0] > at[1] > at[2] > at[3] and np.isclose(at[4], at[0])
    assert np.allclose(formulas.ellipse_width(12.0, 12.0, np.linspace(0, 180, 7)), 12.0)
    assert Lee2012().predict(FOUR.assign(sts_h_mm=12.1))[0] == 0, "a lens as long as its bed"


EYES = st.fixed_dictionaries(
    {
        "ata_mm": st.floats(10.7, 13.6),
        "clr_um": st.integers(-500, 900).map(float),
        "icl_se_d": st.floats(-18, -3),
        "age_y": st.floats(21, 45),
        "sts_h_mm": st.floats(10.7, 13.6),
        "sts_v_mm": st.floats(10.7, 13.6),
        "lt_mm": st.floats(3, 4.6),
    }
)


@given(EYES, EYES, st.sampled_from([0.25, 0.5, 0.75]), st.sampled_from([12.6, 13.2, 13.7]))
@settings(max_examples=25)
def test_predictions_are_linear_in_the_measurements(a, b, w, size):
    between = {k: round(w * a[k] + (1 - w) * b[k]) if k == "clr_um" else w * a[k] + (1 - w) * b[k] for k in a}
    X = pd.DataFrame([a, b, between]).assign(size_mm=size)
    rounding = X["clr_um"][2] - (w * a["clr_um"] + (1 - w) * b["clr_um"])
    for f in LINEAR:
        pa, pb, pm = f.predict(X)
        shift = rounding * f.coefs.get("clr_um", 0)
        assert np.isclose(pm, w * pa + (1 - w) * pb + shift, atol=1e-6), f.title


@given(EYES, st.randoms(use_true_random=False))
@settings(max_examples=10)
def test_each_row_is_answered_from_itself_and_longer_never_sits_lower(eye, random):
    X = pd.DataFrame([{**EYE, **eye, "size_mm": s} for s in SIZES_MM])
    order = random.sample(range(4), 4)
    for f in ALL:
        got = f.answer(X)
        pd.testing.assert_frame_equal(f.answer(X.iloc[order]), got.iloc[order])
        if "vault_um" in f.gives:
            assert (got["vault_um"].dropna().diff().dropna() > 0).all()
        else:
            assert (got["p_high"].dropna().diff().dropna() > 0).all()


def test_weigh_looks_up_and_adds():
    X = pd.DataFrame({"a": [1.0, 2.0], "s": [12.6, 13.7]})
    assert weigh({"intercept": 10, "a": 2, "s": {12.6: 5.0}}, X)[0] == 17
    assert np.isnan(weigh({"s": {12.6: 5.0}}, X)[1]) and weigh({}, X).tolist() == [0, 0]


# --- the registry -----------------------------------------------------------------------------------------------
def test_names_are_found_without_regard_to_writing():
    for word in ("trancon2020", "Trancon 2020", "TRANCON-2020"):
        assert isinstance(formula(word), Trancon2020)
    assert isinstance(formula("cerpa manito 2021"), Manito2021) and formula("lee2012", bed="wtw_mm").bed == "wtw_mm"


@pytest.mark.parametrize(
    "word, meant",
    [
        ("Trancon", "Trancon 2020"),
        ("Zhu 2012", "Zhu 2021"),
        ("hsts", "hSTS 2026"),
        ("manito", "Cerpa Manito 2021"),
        ("kojma", "Kojima"),
    ],
)
def test_a_near_miss_is_suggested_and_not_taken(word, meant):
    with pytest.raises(InputError, match="There is no formula") as e:
        formula(word)
    assert meant in str(e.value) and not isinstance(e.value, UnconfirmedFormula)
    with pytest.raises(InputError) as e:
        formula("zzzzzz")
    assert e.value.suggested is None


def test_the_unconfirmed_raise_and_say_what_to_do():
    words = [
        "NK v1",
        "NK v2",
        "NK v3",
        "KS v1",
        "KS v2",
        "KS v3",
        "KS v4",
        "WH",
        "WL",
        "Luo",
        "Hun",
        "ZZ",
        "Kojima",
        "Dougherty",
        "Parkhurst",
        "Kim",
        "Rocamora",
        "Russo (LASSO-OCT)",
        "Reinstein VHF",
        "ANTERION LASSO",
        "Oleszko PLS",
        "optimised WTW",
    ]
    assert {e.title for e in LISTED.values()} == {*words, "Tan 2023"}
    for word in words:
        with pytest.raises(UnconfirmedFormula, match="coefficients unconfirmed.*bring your own"):
            formula(word)
    assert "101.0 um, 94.3 %" in LISTED["ks4"].published and "116.7 um" in LISTED["wh"].published
    with pytest.raises(InputError, match="no size term") as e:
        formula("Tan 2023")
    assert not isinstance(e.value, UnconfirmedFormula)


def test_the_table_lists_all():
    table = formula_table()
    assert table["status"].value_counts().to_dict() == {"confirmed": 6, "unconfirmed": 22, "no size term": 1}
    assert table.loc["trancon2020", "sizes"] == "12.6 13.2 13.7" and table.loc["lee2012", "kind"] == "law"
    assert "not a prediction" in table.loc["lee2012", "note"] and "not peer reviewed" in table.loc["xia", "source"]
    assert table["source"].str.len().min() > 3 and pd.isna(table.loc["nk3", "n"])


# --- one's own --------------------------------------------------------------------------------------------------
RULE = {"intercept": 160.0, "size_mm": 500.0, "ata_mm": -500.0, "clr_um": -0.4}


def test_ones_own_formula_behaves_like_the_others():
    own = OwnFormula("rule", RULE, golden=[({"ata_mm": 12.2, "clr_um": 100}, {13.2: 620})])
    function = OwnFormula(
        "rule",
        lambda t: 160 + 500 * t["compression_mm"] - 400 * t["clr_um"],
        columns=("compression_mm", "clr_um"),
        units={"clr_um": "mm"},
    )
    mm = OwnFormula("rule", {k: v / 1000 for k, v in RULE.items()}, unit="mm")
    steps = OwnFormula("steps", Trancon2020.coefs, sizes=(12.6, 13.2, 13.7), fixation="horizontal")
    for f in (own, function, mm):
        assert np.allclose(f.predict(FOUR), [70, 320, 620, 870]) and np.allclose(
            clone(f).predict(FOUR), f.predict(FOUR)
        )
        assert f.title == "rule" and set(f.needs) == {"size_mm", "ata_mm", "clr_um"} and f.fit(FOUR) is f
    assert np.array_equal(steps.predict(FOUR), Trancon2020().predict(FOUR), equal_nan=True)
    assert steps.reasons(FOUR.assign(orientation="vertical")).ne("").all()
    six = OwnFormula("other maker", RULE, sizes=(11.75, 12.25, 13.75))
    assert np.isfinite(six.predict(FOUR.iloc[[0]].assign(size_mm=11.75)))[0] and np.isnan(six.predict(FOUR)).all()
    tca = OwnFormula("angle", {**RULE, "tca_deg": -7.26}, limits={"tca_deg": (10, 60)})
    with pytest.raises(InputError, match="`tca_deg` must be in 10 to 60"):
        tca.predict(FOUR.assign(tca_deg=700.0))


BROKEN = {
    "millimetres": ({k: v / 1000 for k, v in RULE.items()}, {}),
    "impossible vault": ({**RULE, "clr_um": -196.37}, {}),
    "sit lower": ({"intercept": 600.0, "size_mm": -100.0, "ata_mm": 100.0}, {}),
    "same vault": ({"intercept": 700.0, "clr_um": -0.4}, {}),
    "no answer at 12.1 mm": (Trancon2020.coefs, {}),
    "worked example": (RULE, {"golden": [({"ata_mm": 12.2, "clr_um": 100}, {13.2: 640})]}),
    "only after surgery": ({**RULE, "vault_um": 1.0}, {}),
    "Perhaps clr_um": ({**RULE, "clr_mm": 1.0}, {}),
    "between mm and um": (RULE, {"units": {"clr_um": "D"}}),
    "must be um or mm": (RULE, {"unit": "m"}),
    "together with its `columns`": (lambda t: t["size_mm"], {}),
    "when other rows": (lambda t: 600 + 500 * (t["size_mm"] - t["size_mm"].mean()), {"columns": ("size_mm",)}),
    "one number a row": (lambda t: t["size_mm"].iloc[:1], {"columns": ("size_mm",)}),
}


@pytest.mark.parametrize("words", BROKEN)
def test_an_accident_in_ones_own_formula_is_caught(words):
    expression, more = BROKEN[words]
    with pytest.raises(InputError, match=words):
        OwnFormula("rule", expression, **more)


def test_changing_ones_own_formula_checks_it_again_and_real_rows_are_checked_too():
    own = OwnFormula("rule", RULE)
    with pytest.raises(InputError, match="millimetres"):
        own.set_params(expression={k: v / 1000 for k, v in RULE.items()})
    assert own.expression is RULE, "a refused change changes nothing"
    with pytest.raises(InputError, match="impossible vault"):
        OwnFormula("steep", {"intercept": -11000.0, "size_mm": 1000.0, "clr_um": -2.5}).predict(
            FOUR.assign(clr_um=-1000.0)
        )


# --- the maker's table ------------------------------------------------------------------------------------------
WIDTHS = [
    (10.5, 10.7, None, 12.1),
    (10.7, 11.1, 12.1, 12.1),
    (11.1, 11.2, 12.1, 12.6),
    (11.2, 11.5, 12.6, 12.6),
    (11.5, 11.7, 12.6, 13.2),
    (11.7, 12.2, 13.2, 13.2),
    (12.2, 12.3, 13.2, 13.7),
    (12.3, 13.0, 13.7, 13.7),
]


@pytest.mark.parametrize("low, high, shallow, deep", WIDTHS)
def test_every_edge_belongs_to_the_row_that_begins_there(low, high, shallow, deep):
    for wtw in (low, (low + high) / 2, high - 1e-4):
        for acd, size in ((2.8, shallow), (3.5, shallow), (3.5001, deep), (4.2, deep)):
            row = size_table(wtw, acd).iloc[0]
            if size is None:
                assert np.isnan(row["size_mm"]) and row["status"] == "not recommended"
            else:
                assert (row["size_mm"], row["status"]) == (size, "recommended")


def test_outside_the_table_is_a_status_and_never_a_number():
    t = size_table([10.4999, 13.0, 9.8, 14.0, np.nan, 11.8], [3.2, 3.2, 3.9, 3.9, 3.2, np.nan])
    assert t["size_mm"].isna().all()
    assert t["status"].tolist() == ["outside the table"] * 4 + ["missing input"] * 2
    rows = formulas.size_rows()
    assert rows["from_mm"].tolist() == [w[0] for w in WIDTHS] and rows["to_mm"].tolist() == [w[1] for w in WIDTHS]
    assert not (rows == 0).any(axis=None)


# --- side by side -----------------------------------------------------------------------------------------------
def test_compare_asks_everyone_about_every_size():
    eyes = pd.DataFrame([{"eye_id": "a", **EYE}, {"eye_id": "b", **EYE, "lt_mm": np.nan}])
    table = compare_formulas(eyes)
    assert (
        len(table) == 2 * 4 * 6 and table["eye"].tolist() == ["a"] * 24 + ["b"] * 24 and table.attrs["left_out"] == {}
    )
    answered = table[["vault_um", "p_zone"]].notna().any(axis=1)
    assert (answered == (table["reason"] == "")).all()
    silent = table[(table["eye"] == "b") & ~answered & (table["size_mm"] > 12.5)]
    assert set(silent["formula"]) == {"Zhu 2021", "Xia calculator"} and set(silent["reason"]) == {"`lt_mm` is missing"}
    for s in SIZES_MM:
        one = table[(table["eye"] == "a") & (table["size_mm"] == s)].set_index("formula")["vault_um"]
        assert np.isclose(one["Zhu 2021"], Zhu2021().predict(FOUR[FOUR["size_mm"] == s])[0])
    implanted = compare_formulas(eyes.assign(size_mm=13.2, vault_um=900))
    pd.testing.assert_frame_equal(implanted, table)


def test_compare_leaves_out_what_the_columns_do_not_allow():
    eyes = pd.DataFrame([EYE])[["ata_mm", "clr_um", "icl_se_d", "age_y"]]
    table = compare_formulas(eyes, sizes=(13.2, 13.7))
    assert len(table) == 4 and table.attrs["left_out"]["hsts2026"] == ["sts_h_mm"] and not computable(EYE)["xia"]
    own = OwnFormula("rule", RULE)
    assert compare_formulas(eyes, formulas=["trancon2020", own])["formula"].unique().tolist() == [
        "Trancon 2020",
        "rule",
    ]
    with pytest.raises(InputError, match="no column `sts_h_mm`"):
        compare_formulas(eyes, formulas=["zhu2021"])
    assert len(compare_formulas(eyes.iloc[:0])) == 0 and len(compare_formulas(eyes, formulas=[])) == 0


# --- against what happened --------------------------------------------------------------------------------------
def made_up(n=200, seed=0):
    r = np.random.default_rng(seed)
    eyes = pd.DataFrame(
        {
            "patient_id": np.repeat(np.arange(n // 2), 2),
            "size_mm": r.choice([12.6, 13.2, 13.7], n),
            "ata_mm": r.normal(12.2, 0.4, n).round(2),
            "clr_um": r.normal(100, 150, n).round(-1),
            "icl_se_d": r.uniform(-18, -3, n).round(2),
            "age_y": r.integers(21, 45, n).astype(float),
        }
    )
    return eyes.assign(vault_um=(Trancon2020().predict(eyes) + 30 + r.normal(0, 150, n)).clip(0, 2000))


def test_accuracy_is_the_plain_arithmetic():
    eyes = made_up()
    got = accuracy(Trancon2020(), eyes, "patient_id")
    e = eyes["vault_um"] - Trancon2020().predict(eyes)
    y, row = eyes["vault_um"], got.loc["all"]
    assert (
        np.isclose(row.bias_um, e.mean())
        and np.isclose(row.mae_um, e.abs().mean())
        and np.isclose(row.medae_um, e.abs().median())
    )
    assert np.isclose(row.sd_um, e.std()) and np.isclose(row.loa_high_um - row.loa_low_um, 2 * 1.96 * e.std())
    assert np.isclose(row.r2, 1 - (e**2).sum() / ((y - y.mean()) ** 2).sum()) and np.isclose(
        row.within_200, (e.abs() <= 200).mean()
    )
    assert np.isclose(row.skill, 1 - e.abs().mean() / (y - y.mean()).abs().mean()) and row.patients == 100
    assert row.mae_low < row.mae_um < row.mae_high and got["n"].iloc[1:].sum() == row.n == 200
    perfect = accuracy(
        Trancon2020(), eyes.assign(vault_um=Trancon2020().predict(eyes).clip(0, 2000)), eyes["patient_id"]
    )
    assert perfect.loc["all", "mae_um"] < 1 and perfect.loc["all", "skill"] > 0.99


def test_accuracy_counts_eyes_and_patients_and_hides_small_groups():
    eyes = made_up(40)
    eyes.loc[:2, "size_mm"], eyes.loc[3:5, "vault_um"] = 12.1, np.nan
    eyes.loc[6:, "size_mm"] = 13.2
    eyes.loc[6:8, "size_mm"] = 13.7
    got = accuracy(Trancon2020(), eyes, "patient_id")
    assert sum(got.attrs["left_out"].values()) == 6 and got.attrs["left_out"]["no vault yet"] == 3
    assert got.loc["13.7 mm", "n"] == 3 and got.loc["13.7 mm"].drop(["n", "patients"]).isna().all()
    assert np.isfinite(got.loc["13.2 mm", "r"]) and "12.1 mm" not in got.index
    few = accuracy(Trancon2020(), eyes.iloc[10:20], "patient_id").loc["all"]
    assert np.isfinite(few.mae_um) and (("r2" not in few) or np.isnan(few.r2)), "no correlation of ten eyes"
    for groups in ("person", eyes["patient_id"][:-1], [None] * len(eyes)):
        with pytest.raises(InputError, match="patient of every eye"):
            accuracy(Trancon2020(), eyes, groups)
    with pytest.raises(InputError, match="zone_accuracy"):
        accuracy(Manito2021(), eyes, "patient_id")
    with pytest.raises(InputError, match="call `accuracy`"):
        zone_accuracy(Trancon2020(), eyes, "patient_id")


def test_clustered_limits_widen_with_alike_members_and_cover():
    r, hits = np.random.default_rng(1), 0
    for _ in range(300):
        patient = np.repeat(np.arange(60), 2)
        v = r.normal(size=60)[patient] + 0.3 * r.normal(size=120)
        _, low, high = clustered_mean(v, patient)
        hits += low < 0 < high
    assert 0.91 < hits / 300 < 0.985
    assert clustered_mean(v, np.arange(120))[2] < high, "pretending that eyes are independent is too sure of itself"


def test_auc_and_calibration():
    from sklearn.metrics import roc_auc_score

    r = np.random.default_rng(0)
    p = r.uniform(size=500).round(2)
    y = r.uniform(size=500) < p
    assert np.isclose(auc(y, p), roc_auc_score(y, p)) and np.isclose(auc(y, -p), 1 - auc(y, p))
    good, bad = calibration(p, y), calibration(1 - p, y)
    assert (
        good["n"].sum() == 500
        and ((good["lower"] <= good["promised"]) & (good["promised"] <= good["upper"])).sum() >= 4
    )
    assert ((bad["lower"] <= bad["promised"]) & (bad["promised"] <= bad["upper"])).sum() <= 2, (
        "a broken promise is seen"
    )
    assert len(calibration(p[:12], y[:12])) == 0, "groups of two or three eyes are not shown"


def test_zone_accuracy_states_its_limits():
    eyes = made_up()
    eyes.loc[:9, "vault_um"], eyes.loc[10:14, "vault_um"] = 250.0, 1000.0
    closed, strict = (zone_accuracy(Manito2021(), eyes, "patient_id", closed=c) for c in (True, False))
    assert np.isclose((closed.loc["p_zone", "observed"] - strict.loc["p_zone", "observed"]) * 200, 15)
    for table in (closed, strict):
        assert np.isclose(table["observed"].sum(), 1) and np.isclose(table["predicted"].sum(), 1)


@pytest.mark.skipif(real_eyes() is None, reason="LENSNB_DATA_DIR names no folder with the real cohort")
def test_the_real_eyes_agree_with_the_published_file():
    from lensnb.cohort import read_eyes

    eyes = read_eyes(real_eyes())
    row = accuracy(Trancon2020(), eyes, "patient_id").loc["all"]
    assert row.n == 428 and row.mae_low < 200.1 < row.mae_high and row.bias_low < 9 < row.bias_high
    assert abs(row.r - 0.595) < 0.05 and abs(row.sd_ratio - 0.59) < 0.03
    zone = zone_accuracy(Manito2021(), eyes, "patient_id").loc["p_zone"]
    assert abs(zone.auc - 0.769) < 0.03 and zone.brier < zone.brier_reference
    kept = calibration(
        *(lambda t: (t["p_zone"], t["achieved"].between(250, 1000)))(formulas.scored(Manito2021(), eyes, "patient_id"))
    )
    assert ((kept["lower"] <= kept["promised"]) & (kept["promised"] <= kept["upper"])).all()

    class Backwards(Manito2021):
        low = {**Manito2021.low, "compression_mm": 0.506}
        high = {**Manito2021.high, "compression_mm": -3.721}

    wrong = zone_accuracy(Backwards(), eyes, "patient_id").loc["p_zone"]
    assert wrong.brier > zone.brier_reference and wrong.auc < 0.6, "the data tell a reversed sign"


def test_row_labels_may_repeat():
    X = pd.concat([FOUR, FOUR]).set_axis([7] * 8)
    for f in ALL:
        got = f.answer(X)
        assert got.index.tolist() == [7] * 8 and np.array_equal(got[:4], f.answer(FOUR), equal_nan=True)
    with pytest.raises(InputError) as e:
        compare_formulas(pd.DataFrame([EYE, {**EYE, "ata_mm": 117.2}], index=["left", "right"]))
    assert e.value.row == "right"
