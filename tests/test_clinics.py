"""The synthetic clinics: near the published moments, honest about the truth, the same bytes for the same seed."""
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensnb.clinics import (ALDER, BIRCH, CEDAR, CLINICS, DOGWOOD, OCT_ANATOMY, SIZE_TABLE, SULCUS_ANATOMY, Anatomy,
                            Margin, Outcome, check_clinics, size_table, synthetic_clinics, true_vault, truth_column)
from lensnb.schema import FIELDS, SIZES_MM, InputError, check_eyes

TRUTH = [truth_column(s) for s in SIZES_MM]


@pytest.fixture(scope="module")
def network():
    return synthetic_clinics()


def crowd(clinic, seed=11, eyes=16_000, **changes):
    "One crowded month of a clinic, everybody followed up: rows of first lenses, and truth."
    clinic = replace(clinic, eyes_per_month=eyes, lost=0, vault_day=(30, 1), **changes)
    n = synthetic_clinics(seed, months=2, end="2026-10", clinics=[clinic])
    rows = n.eyes.drop_duplicates("eye_id").dropna(subset="vault_um")
    return rows.reset_index(drop=True), n.truth


@pytest.fixture(scope="module")
def alder():
    return crowd(ALDER)


@pytest.fixture(scope="module")
def birch():
    return crowd(BIRCH)


def residuals(rows, columns):
    X = rows[["size_mm", *columns]].assign(one=1.0, vertical=rows["orientation"] == "vertical").astype(float)
    X = X.loc[:, (X.std() > 0) | (X.columns == "one")]
    beta = np.linalg.lstsq(X, rows["vault_um"], rcond=None)[0]
    return pd.Series(beta, X.columns), rows["vault_um"] - X.to_numpy() @ beta


def pairs(rows, values):
    "Values of fellow eyes, two columns."
    frame = pd.DataFrame({"patient": rows["patient_id"], "eye": rows["eye"], "v": values})
    return frame.pivot(index="patient", columns="eye", values="v").dropna()


# --- the size table ---------------------------------------------------------------------------------------------
WIDTHS = [(10.5, 10.7, None, 12.1), (10.7, 11.1, 12.1, 12.1), (11.1, 11.2, 12.1, 12.6), (11.2, 11.5, 12.6, 12.6),
          (11.5, 11.7, 12.6, 13.2), (11.7, 12.2, 13.2, 13.2), (12.2, 12.3, 13.2, 13.7), (12.3, 13.0, 13.7, 13.7)]


@pytest.mark.parametrize("low, high, shallow, deep", WIDTHS)
def test_size_table_has_the_transcribed_rows_and_half_open_intervals(low, high, shallow, deep):
    for wtw in (low, (low + high) / 2, high - 0.001):
        for acd, size in ((3.0, shallow), (3.5, shallow), (3.501, deep), (4.0, deep)):
            row = size_table(wtw, acd).iloc[0]
            if size: assert row["size_mm"] == size and row["status"] == "recommended"
            else: assert np.isnan(row["size_mm"]) and row["status"] == "not recommended"


def test_size_table_says_not_recommended_instead_of_a_number():
    t = size_table([10.49, 13.0, 14.0, np.nan, 11.8], [3.2, 3.2, 3.9, 3.2, np.nan])
    assert t["size_mm"].isna().all() and len(SIZE_TABLE) == 9
    assert t["status"].tolist() == ["not recommended"] * 3 + ["missing input"] * 2
    assert size_table(0.1 * 3 + 10.9, 3.2)["size_mm"].tolist() == [12.6]      # 11.2 with binary dust


@given(st.floats(9.5, 14), st.floats(2.3, 4.5), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_size_table_never_falls_with_width_or_depth(wtw, acd, wider, deeper):
    small, large = size_table([wtw, wtw + wider], [acd, acd + deeper])["size_mm"]
    assert np.isnan(small) or np.isnan(large) or small <= large


# --- the canonical table ----------------------------------------------------------------------------------------
def test_eyes_keep_the_contract_and_hold_no_truth(network):
    eyes = check_eyes(network.eyes, need=("eye_id", "patient_id", "size_mm", "vault_um"))
    assert set(eyes) <= set(FIELDS) and set(eyes) & set(network.truth) == {"eye_id"}
    for name in eyes.select_dtypes("number"):
        if FIELDS[name].hard: assert eyes[name].dropna().between(*FIELDS[name].hard).all(), name
    assert eyes["eye"].isin(["OD", "OS"]).all() and (eyes["exam_date"] < eyes["surgery_date"]).all()
    assert set(network.truth["eye_id"]) == set(eyes["eye_id"]) and network.truth["eye_id"].is_unique


def test_values_lie_on_the_grid_of_the_instrument(network):
    for clinic in CLINICS:
        eyes = network.of(clinic.clinic_id).eyes
        for name in (*clinic.delivers, "vault_um"):
            steps = eyes[name].dropna() / clinic.grids.get(name, FIELDS[name].resolution)
            assert np.allclose(steps, steps.round(), atol=1e-6), (clinic.clinic_id, name)


def test_a_clinic_alone_has_only_what_it_measures(network):
    for clinic in CLINICS:
        part = network.of(clinic.clinic_id)
        biometry = set(part.eyes) & set(OCT_ANATOMY.margins) | set(part.eyes) & set(SULCUS_ANATOMY.margins)
        assert biometry == set(clinic.delivers)
        assert set(part.truth["eye_id"]) == set(part.eyes["eye_id"]) and len(part.clinics) == 1
    with pytest.raises(InputError, match="no such clinic"):
        network.of("elm")


def test_sizes_of_the_clinics_and_their_facts(network):
    rate = network.eyes.groupby("clinic_id").size() / 24
    for clinic in CLINICS: assert abs(rate[clinic.clinic_id] / clinic.eyes_per_month - 1) < 0.12
    facts = network.clinics.set_index("clinic_id")
    assert facts["n_vaults"].sum() == network.eyes["vault_um"].notna().sum()
    for column in ("vault_day", "vault_offset_um", "residual_sd_um", "vertical_share"):
        assert facts[column].nunique() > 2


# --- truth and observation --------------------------------------------------------------------------------------
def test_truth_equals_every_observed_vault(network):
    seen = network.eyes.dropna(subset="vault_um")
    assert (true_vault(network.truth, seen["eye_id"], seen["size_mm"]) == seen["vault_um"]).all() and len(seen) > 1900


def test_truth_is_monotone_in_size_and_inside_the_range(network):
    four = network.truth[TRUTH].to_numpy()
    assert (np.diff(four, axis=1) >= 0).all() and four.min() >= 0 and four.max() <= 2000
    assert (four.max(axis=1) > four.min(axis=1)).mean() > 0.99


def test_slopes_are_mostly_inside_the_literature_range():
    for clinic in CLINICS:
        four = crowd(clinic, eyes=3000)[1][TRUTH].to_numpy()
        free = (four[:, :-1] > 0) & (four[:, 1:] < 2000)
        slopes = (np.diff(four, axis=1) / np.diff(SIZES_MM))[free]
        assert np.mean((slopes >= 130) & (slopes <= 1070)) > 0.95, clinic.clinic_id      # 150 to 1,050, +- the grid
        assert slopes.max() <= 1125
        assert not ((slopes >= 150) & (slopes <= 1050)).all(), "the literature range is nearly, not exactly, true"


def test_visit_noise_is_about_46_um(alder):
    noise = alder[1]["visit_noise_um"]
    assert abs(noise.std() - 46) < 2 and abs(noise.mean()) < 2


def test_true_vault_refuses_what_it_does_not_know(network):
    with pytest.raises(InputError, match="no such eye"): true_vault(network.truth, ["nobody"], 13.2)
    with pytest.raises(InputError, match="must be one of"): true_vault(network.truth, network.truth["eye_id"][:2], 12.5)


# --- moments against the published ones -------------------------------------------------------------------------
@pytest.mark.parametrize("name", list(OCT_ANATOMY.margins))
def test_oct_moments(alder, name):
    m, x = OCT_ANATOMY.margins[name], alder[0][name]
    assert abs(x.mean() - m.mean) < 0.05 * m.sd and abs(x.std() / m.sd - 1) < 0.05
    if name != "clr_um": assert abs(np.corrcoef(pairs(alder[0], x).T)[0, 1] - m.fellow) < 0.04


def test_oct_correlations_within_0_06(alder):
    rows, names = alder[0], list(OCT_ANATOMY.margins)
    assert np.abs(rows[names].corr().to_numpy() - OCT_ANATOMY.matrix()).max() < 0.06
    size = dict(wtw_mm=.69, ata_mm=.68, acd_mm=.40, k_d=-.35, aca_deg=.09, clr_um=.04, age_y=-.03)
    vault = dict(clr_um=-.34, size_mm=.32, acd_mm=.31, age_y=-.20, icl_se_d=-.14, wtw_mm=.11, ata_mm=-.05, aca_deg=.05)
    for name, r in size.items(): assert abs(rows["size_mm"].corr(rows[name]) - r) < 0.08, name
    for name, r in vault.items(): assert abs(rows["vault_um"].corr(rows[name]) - r) < 0.06, name


def test_oct_vaults_and_sizes(alder):
    rows = alder[0]
    assert abs(rows["vault_um"].mean() - 656) < 20 and abs(rows["vault_um"].std() - 313) < 15
    by = rows.groupby("size_mm")["vault_um"].mean()
    for s, mean in {12.6: 545, 13.2: 645, 13.7: 867}.items(): assert abs(by[s] - mean) < 60
    mix = rows["size_mm"].value_counts(normalize=True)
    for s, n in zip(SIZES_MM, (5, 125, 321, 91)): assert abs(mix[s] - n / 542) < 0.03
    zone = rows["vault_um"].between(250, 750).mean()
    assert abs(zone - 0.542) < 0.03 and abs((rows["vault_um"] < 250).mean() - 0.092) < 0.02


def test_oct_table_agreement_is_two_thirds_and_departures_are_neighbours(alder):
    rows = alder[0]
    table = size_table(rows["wtw_mm"], rows["acd_mm"])["size_mm"]
    known = table.notna()
    apart = np.abs(np.searchsorted(SIZES_MM, rows["size_mm"]) - np.searchsorted(SIZES_MM, table))[known]
    assert abs((apart == 0).mean() - 0.675) < 0.03 and (apart > 1).mean() < 0.01


def test_oct_size_slope_residual_and_fellow_eyes(alder):
    beta, r = residuals(alder[0], ["ata_mm", "clr_um", "icl_se_d", "age_y", "acd_mm", "aca_deg"])
    assert 450 < beta["size_mm"] < 560 and -370 < beta["ata_mm"] < -290 and abs(beta["clr_um"] + 0.37) < 0.05
    assert abs(r.std() - 248) < 10
    assert abs(np.corrcoef(pairs(alder[0], r).T)[0, 1] - 0.70) < 0.04
    quarter = pd.qcut(alder[0]["size_mm"] - alder[0]["ata_mm"], 4, labels=False)
    spread = r.groupby(quarter).std()
    assert spread.is_monotonic_increasing and 1.25 < spread[3] / spread[0] < 1.8


def test_lens_rises_heap_at_zero_in_one_clinic_only(alder):
    assert 0.15 < (alder[0]["clr_um"] == 0).mean() < 0.25
    assert (crowd(DOGWOOD, eyes=3000)[0]["clr_um"] == 0).mean() < 0.02


@pytest.mark.parametrize("name", ["age_y", "acd_mm", "lt_mm", "sts_h_mm", "wtw_mm"])
def test_sulcus_moments(birch, name):
    m, x = SULCUS_ANATOMY.margins[name], birch[0][name]
    assert abs(x.mean() - m.mean) < 0.05 * m.sd and abs(x.std() / m.sd - 1) < 0.06
    assert abs(np.corrcoef(pairs(birch[0], x).T)[0, 1] - m.fellow) < 0.03


def test_sulcus_vaults_sizes_and_slope(birch):
    rows = birch[0]
    assert abs(rows["vault_um"].mean() - 381) < 15 and abs(rows["vault_um"].std() - 178) < 12
    assert abs(rows["vault_um"].between(250, 750).mean() - 0.697) < 0.05
    assert abs((rows["vault_um"] < 250).mean() - 0.261) < 0.04
    for name, r in dict(acd_mm=.46, size_mm=.39, wtw_mm=.37, sts_h_mm=.30, lt_mm=-.26, age_y=-.14).items():
        assert abs(rows["vault_um"].corr(rows[name]) - r) < 0.09, name
    for name, r in dict(sts_h_mm=.83, wtw_mm=.82).items(): assert abs(rows["size_mm"].corr(rows[name]) - r) < 0.04
    mix = rows["size_mm"].value_counts(normalize=True)
    for s, n in zip(SIZES_MM, (70, 193, 121, 15)): assert abs(mix[s] - n / 399) < 0.04
    beta, r = residuals(rows, ["sts_h_mm", "lt_mm", "acd_mm", "age_y"])
    assert abs(beta["size_mm"] - 290) < 30 and abs(r.std() - 142) < 8
    assert abs(beta["vertical"] + 100) < 15 and abs((rows["orientation"] == "vertical").mean() - 0.33) < 0.03
    assert abs(np.corrcoef(pairs(rows, r).T)[0, 1] - 0.70) < 0.05


def test_offsets_move_the_chart_and_not_the_choice():
    plain, shifted = (crowd(CEDAR, eyes=3000, offsets=o)[0] for o in ({}, {"wtw_mm": 0.4, "vault_um": -100}))
    assert (plain["size_mm"] == shifted["size_mm"]).all()
    assert np.allclose(shifted["wtw_mm"] - plain["wtw_mm"], 0.4, atol=0.11)
    free = plain["vault_um"] > 150
    assert np.allclose((plain["vault_um"] - shifted["vault_um"])[free], 100)


# --- patients, exchanges, follow-up -----------------------------------------------------------------------------
def test_most_patients_have_two_eyes_soon_after_each_other(network):
    first = network.eyes.drop_duplicates("eye_id")
    per = first.groupby("patient_id")
    assert 0.75 < (per.size() == 2).mean() < 0.95 and per.size().max() == 2
    assert (per["eye"].nunique() == per.size()).all()
    gap = (per["surgery_date"].max() - per["surgery_date"].min()).dt.days[per.size() == 2]
    assert (gap <= 7).mean() > 0.8 and gap.max() <= 61
    assert (per["age_y"].nunique() == 1).all() and (per["clinic_id"].nunique() == 1).all()
    different = (per["size_mm"].nunique() == 2).sum()
    assert 10 < different < 150


def test_exchanged_eyes_are_few_later_of_a_neighbouring_size_and_bounded_by_monotony(network):
    rows = network.eyes[network.eyes["eye_id"].duplicated(keep=False)].sort_values(["eye_id", "surgery_date"])
    old, new = rows.groupby("eye_id").nth(0).set_index("eye_id"), rows.groupby("eye_id").nth(1).set_index("eye_id")
    assert 8 <= len(old) <= 60 and (rows.groupby("eye_id").size() == 2).all()
    assert (new["surgery_date"] > old["surgery_date"] + pd.to_timedelta(old["vault_day"], unit="D")).all()
    step = np.searchsorted(SIZES_MM, new["size_mm"]) - np.searchsorted(SIZES_MM, old["size_mm"])
    assert (np.abs(step) == 1).all() and (np.sign(step) == np.where(old["vault_um"] > 600, -1, 1)).all()
    both = new["vault_um"].notna()
    assert both.any() and (np.sign(new["vault_um"] - old["vault_um"])[both] * step[both] >= 0).all()


def test_nothing_is_known_that_was_measured_after_the_end(network):
    eyes, today = network.eyes, pd.Timestamp("2026-10-31")
    assert eyes["surgery_date"].between("2024-11-01", today).all()
    seen = eyes["vault_um"].notna()
    assert (eyes["vault_day"].notna() == seen).all() and (eyes["vault_device"].notna() == seen).all()
    assert (eyes["surgery_date"] + pd.to_timedelta(eyes["vault_day"], unit="D"))[seen].max() <= today
    assert (eyes["vault_day"].dropna() >= 28).all()
    assert seen[eyes["surgery_date"] >= "2026-10-01"].mean() < 0.1
    old = eyes[eyes["surgery_date"] < "2026-04-01"]
    lost = old["vault_um"].isna().groupby(old["clinic_id"]).mean()
    for clinic in CLINICS: assert abs(lost[clinic.clinic_id] - clinic.lost) < 0.07


# --- seeds, windows, bytes --------------------------------------------------------------------------------------
def bytes_of(n):
    return "".join(frame.to_csv(index=False) for frame in (n.eyes, n.truth, n.clinics))


def test_same_seed_same_bytes_other_seed_other_bytes(network):
    small = dict(months=2, end="2025-03")
    assert bytes_of(synthetic_clinics(7, **small)) == bytes_of(synthetic_clinics(7, **small))
    assert bytes_of(synthetic_clinics(7, **small)) != bytes_of(synthetic_clinics(8, **small))
    assert bytes_of(network) == bytes_of(synthetic_clinics())


def test_clinics_do_not_disturb_each_other(network):
    alone = synthetic_clinics(clinics=[BIRCH]).eyes
    assert alone.dropna(axis=1, how="all").equals(network.of("birch").eyes)


def test_a_later_window_only_adds(network):
    before = synthetic_clinics(months=23, end="2026-09")
    key = ["eye_id", "surgery_date"]
    both = before.eyes.merge(network.eyes, on=key, how="left", suffixes=("", "_now"), indicator=True)
    assert (both["_merge"] == "both").all()
    for name in before.eyes.columns.difference(key):
        known = both[name].notna()
        assert (both[name] == both[f"{name}_now"])[known].all(), name
    assert (both["vault_um"].isna() & both["vault_um_now"].notna()).sum() > 20


def test_the_whole_network_takes_less_than_two_seconds():
    start = time.process_time()
    synthetic_clinics(seed=5)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("kwargs, words", [
    (dict(months=0), "whole number"), (dict(months=2.5), "whole number"), (dict(end="2026"), "YYYY-MM"),
    (dict(end="2026-00"), "YYYY-MM"), (dict(seed=-1), "at least 0"), (dict(seed="x"), "at least 0"),
    (dict(clinics=[]), "at least one clinic"), (dict(clinics=[ALDER, ALDER]), "own `clinic_id`")])
def test_unusable_arguments_are_refused_in_words(kwargs, words):
    with pytest.raises(InputError, match=words): synthetic_clinics(**kwargs)


# --- clinics of one's own ---------------------------------------------------------------------------------------
def test_own_clinic_from_plain_data():
    anatomy = Anatomy({"wtw_mm": Margin(11.7, 0.4, 0.95), "acd_mm": Margin(3.2, 0.25, 0.95)}, ((0.4,),), "my clinic")
    outcome = Outcome(500, {"wtw_mm": -150}, (300, 300, 300), "wtw_mm", 180)
    own = replace(CEDAR, clinic_id="elm", anatomy=anatomy, outcome=outcome, delivers=("wtw_mm", "acd_mm"), offsets={})
    n = synthetic_clinics(months=3, clinics=[own, ALDER])
    assert set(n.of("elm").eyes) >= {"wtw_mm", "acd_mm", "size_mm"} and "age_y" not in n.of("elm").eyes


def test_a_month_without_eyes_is_an_empty_table():
    n = synthetic_clinics(months=1, clinics=[replace(CEDAR, eyes_per_month=1e-9)])
    assert len(n.eyes) == len(n.truth) == 0 and n.clinics["n_eyes"].tolist() == [0] and "vault_um" in n.eyes
    full = synthetic_clinics(months=1, clinics=[ALDER])
    mixed = synthetic_clinics(months=1, clinics=[ALDER, replace(CEDAR, eyes_per_month=1e-9)])
    assert (n.eyes.dtypes == full.eyes.dtypes)[["eye_id", "patient_id", "surgery_date", "size_mm", "vault_um"]].all()
    assert (mixed.eyes.dtypes == full.eyes.dtypes).all() and mixed.eyes.equals(full.eyes)


def test_clinics_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="anatomy lacks"): check_clinics([replace(CEDAR, delivers=("lt_mm",))])
    strange = {n: replace(m, fellow=0.2) for n, m in OCT_ANATOMY.margins.items()}
    for change, words in (({"lower": ()}, "triangle"), ({"margins": strange}, "contradict")):
        with pytest.raises(InputError, match=words):
            check_clinics([replace(CEDAR, anatomy=replace(OCT_ANATOMY, **change))])
    assert check_clinics(iter(CLINICS)) == CLINICS
