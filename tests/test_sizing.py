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
