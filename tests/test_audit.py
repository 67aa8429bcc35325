"""The audit: every row counted once, no patient on both sides, silence is red."""

import numpy as np
import pandas as pd
import pytest

from lensnb.audit import STATES, accuracy, audit, clustered_mean, flow_table, month_split, month_states, zone_shares
from lensnb.clinics import synthetic_clinics
from lensnb.cohort import mark_records
from lensnb.schema import InputError


@pytest.fixture(scope="module")
def eyes():
    return mark_records(synthetic_clinics(seed=2026).of("cedar").eyes)


@pytest.mark.parametrize("month", ["2024-11", "2025-06", "2026-10", "2030-01"])
def test_every_eye_is_in_exactly_one_state(eyes, month):
    states = month_states(eyes, month)
    assert set(states) <= set(STATES) and len(states) == len(eyes)
    assert flow_table(eyes, month, judged=len(month_split(eyes, month)[1])).query("level == 2")["eyes"].sum() == len(
        eyes
    )


def test_a_state_looks_back_only(eyes):
    "What happens after a month does not change what the month saw."
    then = eyes[eyes["surgery_date"] < "2026-05-01"]
    late = then["surgery_date"] + pd.to_timedelta(then["vault_day"], unit="D") > pd.Timestamp("2026-04-30")
    blind = then.assign(vault_um=then["vault_um"].mask(late), vault_day=then["vault_day"].mask(late))
    assert (month_states(then, "2026-04") == month_states(blind, "2026-04")).all()


def test_no_patient_is_judged_by_a_model_that_saw_the_fellow_eye(eyes):
    for month in ["2025-09", "2026-03", "2026-10"]:
        known, judged = month_split(eyes, month)
        assert len(judged) and not set(known["patient_id"]) & set(judged["patient_id"])
        assert (judged["record"] == "eye").all()


def test_silence_is_red_and_a_calm_month_is_not(eyes):
    assert audit(eyes, "2031-01").state == "act" and audit(eyes.head(0), None).state == "act"
    states = [audit(eyes, m).state for m in ("2026-08", "2026-09", "2026-10")]
    assert states.count("act") == 0


def test_errors_follow_their_definitions():
    rng = np.random.default_rng(1)
    judged = pd.DataFrame(
        dict(size_mm=rng.choice([12.6, 13.2], 300), achieved_um=rng.normal(600, 200, 300), patient_id=range(300))
    )
    judged["predicted_um"] = judged["achieved_um"] + rng.normal(30, 100, 300)
    all_sizes = accuracy(judged, mean_um=600.0).iloc[0]
    e = judged["achieved_um"] - judged["predicted_um"]
    assert np.isclose(all_sizes["bias_um"], e.mean()) and np.isclose(all_sizes["mae_um"], e.abs().mean())
    assert np.isclose(all_sizes["skill"], 1 - e.abs().mean() / (judged["achieved_um"] - 600).abs().mean())
    assert accuracy(judged.assign(predicted_um=600.0), 600.0).iloc[0]["skill"] == pytest.approx(0)


def test_zone_limits_are_inside_and_small_groups_are_only_counted():
    eyes = pd.DataFrame(
        dict(size_mm=[13.2] * 6 + [12.6] * 4, achieved_um=[250, 750, 249, 751, 500, 600, 400, 500, 600, 700])
    )
    shares = zone_shares(eyes, zones=((250.0, 750.0),)).set_index("size_mm")
    assert shares.loc["13.2", ["low", "inside", "high"]].tolist() == pytest.approx([1 / 6, 4 / 6, 1 / 6])
    assert shares.loc["12.6", "n"] == 4 and np.isnan(shares.loc["12.6", "inside"])


def test_clustered_errors_match_statistics_of_patient_means_when_clusters_are_equal():
    rng = np.random.default_rng(2)
    values = np.repeat(rng.normal(size=500), 2) + rng.normal(size=1000) * 0.3
    mean, se = clustered_mean(values, np.repeat(np.arange(500), 2))
    means = values.reshape(-1, 2).mean(axis=1)
    assert mean == pytest.approx(means.mean()) and se == pytest.approx(means.std(ddof=1) / np.sqrt(500), rel=1e-6)


@pytest.mark.parametrize("month", ["2026-13", "October", "202610", "2026-1"])
def test_a_month_that_is_none_is_refused(eyes, month):
    with pytest.raises(InputError, match="month"):
        audit(eyes, month)


def test_a_month_needs_dates(eyes):
    with pytest.raises(InputError, match="surgery_date"):
        audit(eyes.drop(columns="surgery_date"), "2026-10")
