"""The public answer: what it may depend on, what it must contain, and whether it holds where the truth is known."""

import json

import numpy as np
import pandas as pd
import pytest

import lensnb
from lensnb.clinics import synthetic_clinics, true_vault
from lensnb.schema import SIZES_MM
from lensnb.sizing import COLUMNS, decide


@pytest.fixture(scope="module")
def alder():
    return synthetic_clinics(seed=2026).of("alder")


@pytest.fixture(scope="module")
def model(alder):
    return lensnb.SizingModel().fit(alder.eyes)


@pytest.fixture(scope="module")
def table(model, alder):
    return model.predict_sizes(alder.eyes.head(200))


def first_eyes(eyes: pd.DataFrame, **changes) -> pd.DataFrame:
    """The other eyes of these eyes' patients: same anatomy, a middle size, a high vault after three months."""
    result = dict(size_mm=13.2, vault_um=900.0, vault_day=90.0, eye="OD", **changes)
    return eyes.drop(columns="surgery_date", errors="ignore").assign(eye_id=eyes["eye_id"] + "-first", **result)


@pytest.fixture(scope="module")
def second(model, alder):
    """Forty second eyes of forty patients who are ready for an answer."""
    eyes = alder.eyes.dropna(subset=model.parts.columns).drop_duplicates("patient_id").head(40)
    eyes = eyes[eyes["orientation"] == "horizontal"].reset_index(drop=True)
    return eyes.assign(eye="OS").drop(columns=["surgery_date", "vault_device"])


def test_one_row_per_eye_and_size_with_the_promised_columns(table, alder):
    assert list(table.columns) == COLUMNS and len(table) == 4 * 200
    assert (table.groupby("eye_id", sort=False)["size_mm"].agg(tuple) == SIZES_MM).all()
    assert set(table["status"]) <= {"supported", "bounded", "unsupported"}
    assert set(table["answer"]) <= {"preferred", "toss-up", "excluded", "abstain"}


def test_intervals_stand_only_where_supported_and_nest(table):
    known = table["status"] == "supported"
    numbers = table[["lower_80", "upper_80", "lower_90", "upper_90"]]
    assert numbers[known].notna().all(axis=None) and numbers[~known].isna().all(axis=None)
    assert (table.loc[known, "lower_90"] <= table.loc[known, "lower_80"] + 1e-9).all()
    assert (table.loc[known, "upper_80"] <= table.loc[known, "upper_90"] + 1e-9).all()
    assert (table["bound_lower"] <= table["step_lower"] + 1e-9).all()
    assert (table["step_upper"] <= table["bound_upper"] + 1e-9).all()
    assert table[["bound_lower", "bound_upper", "p_zone_lower", "p_zone_upper"]].notna().all(axis=None)
    assert (table["p_zone_lower"] <= table["p_zone_upper"] + 1e-12).all()


def test_the_value_and_the_certified_limits_never_fall_with_size(table):
    by_eye = table[table["status"] != "supported"].groupby("eye_id")
    for column in ("bound_lower", "bound_upper"):
        assert (by_eye[column].diff().dropna() >= -1e-9).all()
    assert (table.groupby("eye_id")["vault_um"].diff().dropna() >= -1e-9).all()


def test_the_own_vault_the_order_and_the_company_do_not_matter(model, alder, table):
    eyes = alder.eyes.head(200)
    pd.testing.assert_frame_equal(table, model.predict_sizes(eyes.assign(vault_um=1.0, vault_day=90)))
    mixed = model.predict_sizes(eyes.sample(frac=1, random_state=0)).set_index(["eye_id", "size_mm"])
    pd.testing.assert_frame_equal(
        mixed.loc[pd.MultiIndex.from_frame(table[["eye_id", "size_mm"]])].reset_index()[COLUMNS], table, rtol=1e-9
    )


def test_an_eye_outside_the_limits_of_use_gets_a_row_a_reason_and_no_number(model, alder):
    two = alder.eyes.dropna(subset=["ata_mm"]).head(3).assign(orientation=["horizontal", "vertical", "horizontal"])
    two.iloc[2, two.columns.get_loc("clr_um")] = np.nan
    out = model.predict_sizes(two)
    assert len(out) == 12
    refused = out.iloc[4:]
    assert (refused["answer"] == "abstain").all() and refused["vault_um"].isna().all()
    assert refused["reason"].str.contains("vertical|clr_um").all()


def test_a_size_that_nobody_calibrates_is_never_a_calibrated_number(alder):
    few = alder.eyes[alder.eyes["size_mm"].ne(12.1)]
    five = alder.eyes[alder.eyes["size_mm"].eq(12.1)].head(5)
    out = lensnb.SizingModel().fit(pd.concat([few, five])).predict_sizes(alder.eyes.head(150))
    assert (out.loc[out["size_mm"] == 12.1, "status"] != "supported").all()


def test_saved_is_loaded_bit_for_bit_and_a_changed_file_is_refused(model, table, alder, tmp_path):
    path = model.save(tmp_path / "model.json")
    pd.testing.assert_frame_equal(lensnb.SizingModel.load(path).predict_sizes(alder.eyes.head(200)), table)
    text = path.read_text()
    assert not any(f'"{name}"' in text for name in alder.eyes["patient_id"].head(50)), "no identity in a model"
    for broken in (
        text[: len(text) // 2],
        text.replace('"seed": 0', '"seed": 1', 1),
        text.replace('"version": 2', '"version": 1', 1),
        json.dumps({"format": "other"}),
        "[]",
    ):
        path.write_text(broken)
        with pytest.raises(lensnb.InputError):
            lensnb.SizingModel.load(path)


def test_the_same_eyes_and_seed_give_the_same_model(alder, model, tmp_path):
    again = lensnb.SizingModel().fit(alder.eyes)
    assert model.save(tmp_path / "a.json").read_bytes() == again.save(tmp_path / "b.json").read_bytes()


def test_explanations_add_up_for_every_size(model, alder):
    eyes = alder.eyes.head(30)
    for size in SIZES_MM:
        shown = model.explain(eyes, size_mm=size)
        value = model.predict_sizes(eyes).query("size_mm == @size")["vault_um"]
        np.testing.assert_allclose(shown.values.sum(axis=1) + shown.base_values, value, atol=1e-9)


@pytest.mark.parametrize("zone", [(750, 250), (0.25, 0.75), (-10, 500), (500, 2500)])
def test_an_impossible_zone_is_refused(model, alder, zone):
    with pytest.raises(lensnb.InputError, match="zone"):
        model.predict_sizes(alder.eyes.head(1), zone=zone)


def test_a_wider_zone_is_never_less_likely(model, alder):
    narrow, wide = (model.predict_sizes(alder.eyes.head(60), zone=z) for z in ((250, 750), (250, 1000)))
    known = narrow["status"] == "supported"
    assert (wide.loc[known, "p_zone"] >= narrow.loc[known, "p_zone"] - 1e-12).all()
    assert (wide["p_zone_upper"] >= narrow["p_zone_upper"] - 1e-12).all()


def test_unfitted_unknown_option_and_missing_columns_are_told(alder):
    with pytest.raises(lensnb.InputError, match="not fitted"):
        lensnb.SizingModel().predict_sizes(alder.eyes)
    with pytest.raises(lensnb.InputError, match="no option"):
        lensnb.SizingModel(folds=3)
    with pytest.raises(lensnb.InputError, match="vault_um"):
        lensnb.SizingModel().fit(alder.eyes.drop(columns="vault_um"))
    with pytest.raises(lensnb.NotEnoughData):
        lensnb.SizingModel().fit(alder.eyes.dropna(subset=["vault_um"]).head(25))


def test_certified_bounds_hold_where_the_truth_is_known_and_fail_in_a_world_that_breaks_them(model):
    fresh = synthetic_clinics(seed=11).of("alder")
    out = model.predict_sizes(fresh.eyes.drop_duplicates("eye_id").head(700))
    truth = true_vault(fresh.truth, out["eye_id"], out["size_mm"])
    held = pd.Series((out["bound_lower"] <= truth) & (truth <= out["bound_upper"])).groupby(out["status"]).mean()
    assert held["supported"] >= 0.88 and held["bounded"] >= 0.95
    middle = true_vault(fresh.truth, out["eye_id"], 13.2)
    upside_down = np.clip(2 * middle - truth, 0, 2000)  # a larger lens sits lower: R1 is false
    away = (out["status"] == "bounded").to_numpy()
    broken = ((out["bound_lower"] <= upside_down) & (upside_down <= out["bound_upper"]))[away].mean()
    assert broken < 0.90, "a world without monotonicity must be noticed"


def test_decide_never_excludes_what_may_be_best():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 1, (500, 4))
    high = low + rng.uniform(0, 1, (500, 4)) * (1 - low)
    answers = decide(low, high, np.ones((500, 4), bool))
    truth = low + (high - low) * rng.uniform(0, 1, (500, 4))
    assert (answers[np.arange(500), truth.argmax(axis=1)] != "excluded").all()
    alone = answers == "preferred"
    assert (truth.argmax(axis=1)[alone.any(axis=1)] == alone.argmax(axis=1)[alone.any(axis=1)]).all()


@pytest.mark.parametrize("clinic, absent", [("birch", "ata_mm"), ("cedar", "clr_um"), ("dogwood", "sts_h_mm")])
def test_every_synthetic_clinic_can_be_fitted_with_what_it_has(clinic, absent):
    eyes = synthetic_clinics(seed=2026).of(clinic).eyes
    fitted = lensnb.SizingModel().fit(eyes)
    assert absent not in fitted.parts.features and len(fitted.predict_sizes(eyes.head(20))) == 80


# The second eye


def test_without_a_first_eye_nothing_changes(model, second):
    plain = model.predict_sizes(second)
    strangers = first_eyes(second).assign(patient_id=lambda t: t["patient_id"] + "-other")
    pd.testing.assert_frame_equal(plain, model.predict_sizes(second, first_eye=strangers), check_exact=True)
    pd.testing.assert_frame_equal(plain, model.predict_sizes(second, first_eye=strangers.head(0)), check_exact=True)
    assert not plain["second_eye"].any() and plain["second_eye"].dtype == bool


def test_a_first_eye_moves_value_limits_and_chances_in_one_direction_and_only_its_own_patient(model, second):
    plain, half = model.predict_sizes(second), second.iloc[::2]
    told = model.predict_sizes(second, first_eye=first_eyes(half).assign(vault_um=1800.0))
    moved = told["eye_id"].isin(half["eye_id"])
    assert (told["second_eye"] == moved).all() and moved.any() and (~moved).any()
    pd.testing.assert_frame_equal(told[~moved], plain[~moved], check_exact=True)
    assert (told["vault_um"] > plain["vault_um"])[moved].all() and (told["status"] == plain["status"]).all()
    known = moved & (told["status"] == "supported")
    for column in ("lower_80", "upper_80", "lower_90", "p_high"):
        assert (told[column] > plain[column])[known].mean() > 0.95, column
    assert told["reason"][moved].str.contains("Updated by the first eye's result").all()
    assert not told["reason"][~moved].str.contains("first eye").any()
    low = model.predict_sizes(second, first_eye=first_eyes(second).assign(vault_um=0.0))
    assert (low["vault_um"] < plain["vault_um"]).all() and (low["bound_upper"] <= told["bound_upper"] + 1e-9)[
        moved
    ].all()


def test_the_updated_answer_keeps_the_rules_of_the_table(model, second):
    told = model.predict_sizes(
        second, first_eye=first_eyes(second).assign(vault_um=np.linspace(100, 1500, len(second)))
    )
    test_intervals_stand_only_where_supported_and_nest(told)
    test_the_value_and_the_certified_limits_never_fall_with_size(told)
    known = told["p_low"].notna()
    np.testing.assert_allclose(told.loc[known, ["p_low", "p_zone", "p_high"]].sum(axis=1), 1)
    own = (told["status"] == "supported").to_numpy()
    np.testing.assert_allclose(told["p_zone_lower"][own], told["p_zone"][own])


def test_the_own_vault_of_a_second_eye_is_never_looked_at(model, second):
    first = first_eyes(second)
    told = model.predict_sizes(second, first_eye=first)
    pd.testing.assert_frame_equal(told, model.predict_sizes(second.assign(vault_um=1.0, vault_day=90), first_eye=first))
    one = model.predict_sizes(second.iloc[[3]], first_eye=first.sample(frac=1, random_state=1)).reset_index(drop=True)
    pd.testing.assert_frame_equal(one, told.iloc[12:16].reset_index(drop=True), rtol=1e-9)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda f: f.assign(vault_day=20.0), "before day 28"),
        (lambda f: f.assign(vault_um=np.nan), "no vault yet"),
        (lambda f: f.assign(vault_device="another"), "another device"),
        (lambda f: f.assign(orientation="vertical"), "vertical fixation"),
        (lambda f: f.assign(history="ectasia"), "ectasia"),
        (lambda f: f.assign(clr_um=np.nan), "crystalline lens rise"),
        (lambda f: f.assign(eye="OS"), "this very eye"),
        (lambda f: pd.concat([f, f.assign(eye_id="again")]), "2 first eyes"),
    ],
)
def test_a_result_that_may_not_speak_changes_no_number_and_says_why(model, second, spoil, said):
    plain, told = model.predict_sizes(second), model.predict_sizes(second, first_eye=spoil(first_eyes(second)))
    pd.testing.assert_frame_equal(told.drop(columns="reason"), plain.drop(columns="reason"), check_exact=True)
    assert told["reason"].str.contains(f"Not updated by the first eye: .*{said}").all()


@pytest.mark.parametrize("lacks", ["patient_id", "size_mm", "vault_um", "ata_mm"])
def test_a_table_of_first_eyes_that_lacks_a_column_is_refused(model, second, lacks):
    with pytest.raises(lensnb.InputError, match=lacks):
        model.predict_sizes(second, first_eye=first_eyes(second).drop(columns=lacks))
    if lacks == "patient_id":
        with pytest.raises(lensnb.InputError, match="second eyes"):
            model.predict_sizes(second.drop(columns=lacks), first_eye=first_eyes(second))


def test_too_few_pairs_mean_no_update(alder, second):
    single = alder.eyes.drop_duplicates("patient_id")
    pairs = alder.eyes[alder.eyes["patient_id"].isin(single["patient_id"].head(10))]
    few = lensnb.SizingModel().fit(pd.concat([single, pairs]).drop_duplicates("eye_id"))
    assert few.parts.fellow is None and 0 < few.parts.training["pairs"] < 19
    told = few.predict_sizes(second, first_eye=first_eyes(second))
    assert not told["second_eye"].any() and told["reason"].str.contains("pairs of fellow eyes are known").all()


def test_a_patient_with_three_rows_or_one_eye_twice_is_no_pair(alder):
    from lensnb.sizing import of_pairs

    rows = pd.DataFrame({"patient_id": list("aabbbccd"), "eye_id": ["1", "2", "3", "4", "5", "6", "6", "7"]})
    assert of_pairs(rows).tolist() == [True, True] + [False] * 6
    assert of_pairs(rows.drop(columns="eye_id")).tolist() == [True, True] + [False] * 3 + [True, True, False]
    third = alder.eyes.dropna(subset=["vault_um"]).head(1).assign(eye_id="a third eye", vault_um=400.0)
    fitted = lensnb.SizingModel().fit(pd.concat([alder.eyes, third], ignore_index=True))
    assert fitted.parts.fellow.n_pairs_ == fitted.parts.training["pairs"] > 100


def test_a_result_out_of_all_proportion_is_held_and_flagged(model, second):
    far, farther = (
        model.predict_sizes(second, first_eye=first_eyes(second).assign(vault_um=v)) for v in (1990.0, 2000.0)
    )
    flagged = far["reason"].str.contains("farther out than results are")
    assert flagged.any() and (far["vault_um"] == farther["vault_um"])[flagged].all()
    usual = model.predict_sizes(second, first_eye=first_eyes(second).assign(vault_um=700.0))
    assert not usual["reason"].str.contains("farther out").all()


def test_the_second_eye_is_kept_in_the_file(model, second, tmp_path):
    loaded, first = lensnb.SizingModel.load(model.save(tmp_path / "m.json")), first_eyes(second)
    told = model.predict_sizes(second, first_eye=first)
    pd.testing.assert_frame_equal(loaded.predict_sizes(second, first_eye=first), told, check_exact=True)
    assert loaded.save(tmp_path / "again.json").read_bytes() == (tmp_path / "m.json").read_bytes()


def test_second_eyes_are_covered_and_better_known_than_first_ones(model):
    fresh = synthetic_clinics(seed=11).of("alder")
    eyes = fresh.eyes.drop_duplicates("eye_id").dropna(subset=["vault_um", *model.parts.columns])
    eyes = eyes[(eyes["orientation"] == "horizontal") & (eyes["vault_day"] >= 28)]
    both = eyes[eyes.groupby("patient_id")["eye_id"].transform("size") == 2]
    first, ask = both[both["eye"] == "OD"], both[both["eye"] == "OS"].drop(columns="surgery_date")
    rows = lambda t: t[t["size_mm"].to_numpy() == np.repeat(ask["size_mm"].to_numpy(), 4)].reset_index(drop=True)
    plain, told = rows(model.predict_sizes(ask)), rows(model.predict_sizes(ask, first_eye=first))
    truth = ask["vault_um"].reset_index(drop=True)
    before, after = ((t["vault_um"] - truth).abs().mean() for t in (plain, told))
    assert after < 0.8 * before, (before, after)
    known = told["status"] == "supported"
    held = ((told["lower_90"] <= truth) & (truth <= told["upper_90"]))[known]
    assert known.sum() > 80 and 0.84 <= held.mean() <= 0.97
    narrower = (told["upper_90"] - told["lower_90"])[known].mean() / (plain["upper_90"] - plain["lower_90"])[
        known
    ].mean()
    assert narrower < 0.9


# What else is said and kept


def test_a_value_that_no_vault_can_have_is_named(model, alder):
    eye = alder.eyes.dropna(subset=model.parts.columns).head(1).assign(ata_mm=13.9, clr_um=800.0, acd_mm=2.7, age_y=60)
    told = model.predict_sizes(eye)
    below = told["vault_um"] < 0
    assert below.any() and told["reason"][below].str.contains("Model value below 0 um: outside what the model").all()
    assert not told["reason"][~below].str.contains("Model value").any()


def test_the_spread_of_the_errors_is_kept_by_size_minus_width(model):
    from lensnb.recipe import width_axis

    assert width_axis(model.parts.spec) == {"size_mm": 1, "ata_mm": -1}
    X = pd.DataFrame({"size_mm": [12.1, 12.6, 13.2, 13.7], "ata_mm": [11.6, 12.1, 12.7, 13.2]})
    same, other = (model.parts.scale.predict(t) for t in (X, X.assign(ata_mm=12.2)))
    assert np.ptp(same) < 1e-9 and np.ptp(other) > 1 and (other > 0).all()
    assert len(model.parts.conformal.scales) == len(model.parts.conformal.models) == model.config.n_splits


def test_many_eyes_are_answered_in_blocks_and_alike(model, alder, monkeypatch):
    from lensnb import sizing

    eyes = alder.eyes.head(90)
    whole = model.predict_sizes(eyes)
    monkeypatch.setattr(sizing, "BLOCK", 17)
    pd.testing.assert_frame_equal(model.predict_sizes(eyes), whole, rtol=1e-12)
