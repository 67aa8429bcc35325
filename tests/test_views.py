"""The views of a table of eyes: sums close, small groups stay hidden, the same table gives the same picture."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from lensnb import views
from lensnb.clinics import size_table, synthetic_clinics
from lensnb.cohort import link_patients, training_eyes
from lensnb.schema import InputError, NotEnoughData

NETWORK = synthetic_clinics(months=8)
EYES = link_patients(NETWORK.of("alder").eyes)
USED = training_eyes(EYES)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def png(fig) -> bytes:
    out = io.BytesIO()
    fig.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=8))
def test_small_groups_never_show_their_number(counts):
    words = views.hide_small(pd.DataFrame({"n": counts}))["n"]
    for n, word in zip(counts, words):
        assert word == ("<5" if 0 < n < 5 else f"{n:,}")


@given(st.data())
@budget(max_examples=40)
def test_the_flow_always_adds_up(data):
    """Whatever is missing, vertical or early: received and exclusions sum to what is used."""
    n = 30
    column = lambda values: data.draw(st.lists(st.sampled_from(values), min_size=n, max_size=n))  # noqa: E731
    eyes = pd.DataFrame({"eye_id": [f"e{i}" for i in range(n)], "patient_id": [f"p{i}" for i in range(n)]})
    eyes["size_mm"] = np.array(column([12.6, 13.2, np.nan]), float)
    eyes["vault_um"] = np.array(column([500.0, np.nan]), float)
    eyes["vault_day"] = np.array(column([7.0, 90.0]), float)
    eyes["orientation"] = column(["horizontal", "vertical"])
    eyes["record"] = column(["eye", "repeat", "exchange"])
    rows = views.flow_table(eyes)["rows"]
    assert rows.iloc[:-1].sum() == rows.iloc[-1] == len(training_eyes(eyes))


@given(st.lists(st.floats(9, 15).map(lambda v: round(v, 3)), min_size=1, max_size=60))
def test_bands_hold_their_values(values):
    """Every value lies in a band, bands are in order, and a value inside the named limits of its band."""
    values = pd.Series(values)
    found = views.bands(values)
    assert found.notna().all()
    order = found.cat.codes[values.sort_values(kind="stable").index]
    assert order.is_monotonic_increasing
    for value, label in zip(values, found):
        numbers = [float(w) for w in label.split() if w[0].isdigit()]
        if "to" in label:
            assert numbers[0] - 1e-5 <= value < numbers[1] + 1e-5
        elif label.startswith("under"):
            assert value < numbers[0] + 1e-3
        else:
            assert value >= numbers[0] - 1e-3


def test_counts_count_every_eye():
    assert views.assignment_table(USED).to_numpy().sum() == len(USED)
    for column in ("wtw_mm", "ata_mm", "acd_mm", "clr_um", "age_y"):
        assert views.received_table(USED, column).to_numpy().sum() == len(USED)


def test_a_clinic_that_obeys_the_table_agrees_with_it():
    rule = size_table(USED["wtw_mm"], USED["acd_mm"])["size_mm"].to_numpy()
    obedient = USED.assign(size_mm=rule).dropna(subset="size_mm")
    assert views.agreement(obedient) == dict(eyes=len(obedient), same=1.0, neighbour=1.0)


def test_the_pooled_slope_can_be_flat_where_every_group_falls():
    """Size chosen by width: the table must show the slope at a fixed lens, and the flat one beside it."""
    rng = np.random.default_rng(1)
    width = rng.normal(12.2, 0.45, 3000)
    size = np.select([width < 11.9, width > 12.6], [12.6, 13.7], 13.2)
    vault = 650 - 300 * (width - 12.2) + 550 * (size - 13.2) + rng.normal(0, 50, 3000)
    eyes = pd.DataFrame({"patient_id": np.arange(3000), "ata_mm": width, "size_mm": size, "vault_um": vault})
    table = views.slope_table(eyes)
    assert table.loc["all sizes together", "slope"] > -60
    adjusted = table.loc["adjusted for size"]
    assert adjusted["lower"] < -300 < adjusted["upper"] and abs(adjusted["slope"] + 300) < 25


def test_clustered_limits_cover():
    """Fellow eyes that share noise: limits by patient hold the truth 95 times in 100, by eye they do not."""
    rng, by_patient, by_eye = np.random.default_rng(2), 0, 0
    for _ in range(300):
        person = np.repeat(rng.normal(size=(80, 2)), 2, axis=0)
        x = person[:, 0] + 0.2 * rng.normal(size=160)
        y = 2 * x + person[:, 1] + 0.3 * rng.normal(size=160)
        for groups in (np.repeat(np.arange(80), 2), np.arange(160)):
            beta, se = views.clustered_slopes(x[:, None], y, groups)
            hit = abs(beta[1] - 2) <= 1.96 * se[1]
            if groups[1]:
                by_eye += hit
            else:
                by_patient += hit
    assert 0.90 < by_patient / 300 < 0.98 and by_eye / 300 < 0.88


def test_fellow_correlation_does_not_depend_on_which_eye_comes_first():
    swapped = USED.assign(eye=USED["eye"].map({"OD": "OS", "OS": "OD"}))
    pd.testing.assert_frame_equal(views.fellow_table(USED), views.fellow_table(swapped))


def test_small_groups_have_no_description():
    """Three eyes of a size: counted as `<5`, without mean, share or interval; the picture is still drawn."""
    part = pd.concat([USED[USED["size_mm"] == 13.7].head(3), USED[USED["size_mm"] == 13.2]])
    row = views.vault_table(part).loc[("13.7 mm", "250-750 um")]
    assert row["eyes"] == "<5" and row.drop("eyes").isna().all()
    assert views.vaults(part) is not None and views.received(part) is not None


@pytest.mark.parametrize("clinic", ["birch", "cedar"])
@pytest.mark.parametrize("name", views.VIEWS)
def test_a_view_draws_exactly_where_its_columns_are(name, clinic):
    """Each view on each clinic: drawn with n and units, or refused naming the missing column."""
    eyes = training_eyes(link_patients(NETWORK.of(clinic).eyes))
    missing = views.drawable(eyes).loc[name, "missing"]
    if missing:
        with pytest.raises(InputError, match=missing.split(",")[0]):
            views.VIEWS[name].draw(eyes)
        return
    fig = views.VIEWS[name].draw(eyes)
    words = [t.get_text() for t in fig.findobj(plt.Text)]
    assert any("n = " in w for w in words), "n is missing"
    for ax in fig.axes:
        if ax.get_visible() and ax.get_xlabel():
            assert "(" in ax.get_xlabel() or "vault" in ax.get_xlabel() or "share" in ax.get_xlabel(), ax.get_xlabel()


@pytest.mark.parametrize("name", views.VIEWS)
def test_the_same_eyes_give_the_same_picture(name):
    assert png(views.VIEWS[name].draw(USED)) == png(views.VIEWS[name].draw(USED.copy()))


def test_points_of_eyes_are_pixels():
    """In a vector graphic a point would be a row; every cloud of eyes is rasterized."""
    for view in views.VIEWS.values():
        fig = view.draw(USED)
        for ax in fig.axes:
            for cloud in ax.collections:
                if hasattr(cloud, "get_offsets") and len(cloud.get_offsets()) > 20:
                    assert cloud.get_rasterized(), view.question
        plt.close(fig)


def test_too_few_eyes_are_told():
    with pytest.raises(NotEnoughData, match="5 eyes"):
        views.vaults(USED.head(2))
    with pytest.raises(NotEnoughData, match="both eyes"):
        views.fellow_table(USED.drop_duplicates("patient_id"))
    with pytest.raises(InputError, match="no measurement"):
        views.fields(USED[["eye_id", "size_mm"]])
