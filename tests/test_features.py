"""Features: one definition, row by row, before surgery only."""

import numpy as np
import pandas as pd
import pytest

from lensnb.features import FEATURES, available, feature, feature_frame
from lensnb.schema import FIELDS, InputError


@pytest.fixture
def eyes():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size_mm": rng.choice([12.6, 13.2], 30),
            "ata_mm": rng.normal(12.2, 0.4, 30),
            "sts_h_mm": rng.normal(11.8, 0.4, 30),
            "vault_um": rng.normal(600, 200, 30),
            "clr_um": rng.normal(100, 200, 30),
        }
    )


def test_every_feature_depends_on_its_row_only(eyes):
    names = available(eyes)
    whole = feature_frame(eyes, names)
    one_by_one = pd.concat([feature_frame(eyes.iloc[[i]], names) for i in range(len(eyes))])
    pd.testing.assert_frame_equal(whole, one_by_one)


def test_no_feature_changes_when_the_outcome_changes(eyes):
    names = available(eyes)
    pd.testing.assert_frame_equal(
        feature_frame(eyes, names), feature_frame(eyes.assign(vault_um=0.0, vault_day=1), names)
    )


@pytest.mark.parametrize("late", [f.name for f in FIELDS.values() if not f.preop])
def test_nothing_postoperative_can_be_registered(late):
    with pytest.raises(InputError, match="after surgery"):
        feature("um", [late])(lambda eyes: eyes[late])
    assert not any(late in f.needs for f in FEATURES.values())


def test_the_size_in_question_replaces_the_size_implanted(eyes):
    asked = feature_frame(eyes, ["size_mm", "compression_mm", "ata_mm"], size_mm=13.7)
    assert (asked["size_mm"] == 13.7).all()
    np.testing.assert_allclose(asked["compression_mm"], 13.7 - eyes["ata_mm"])


def peek_um(eyes):
    return eyes["vault_um"] / 2


def test_a_feature_sees_only_what_it_declared(eyes, monkeypatch):
    with pytest.raises(InputError, match="no column of the field table"):
        feature("um", ["vault"])(peek_um)
    monkeypatch.setitem(FEATURES, "peek_um", None)  # put back afterwards
    feature("um", ["ata_mm"])(peek_um)
    with pytest.raises(KeyError, match="vault_um"):
        feature_frame(eyes, ["peek_um"])


def test_the_first_missing_column_is_the_one_told(eyes):
    with pytest.raises(InputError, match="needs the column `size_mm`"):
        feature_frame(eyes.drop(columns=["size_mm", "ata_mm"]), ["compression_mm"])
