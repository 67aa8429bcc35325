"""lensnb.folds: patients stay together, rare levels are seen by every model, gaps are refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensnb.folds import complete, group_folds
from lensnb.schema import InputError, NotEnoughData


@given(st.lists(st.integers(0, 12), min_size=2, max_size=40), st.integers(2, 7), st.integers(0, 5), st.randoms())
@settings(max_examples=60)
def test_folds_keep_patients_and_spread_levels(groups, n_splits, seed, random):
    groups = np.array(groups)
    by = np.array([random.choice("abc") for _ in groups])
    if len(set(groups)) < 2:
        with pytest.raises(NotEnoughData):
            group_folds(groups, n_splits, seed, by)
        return
    fold = group_folds(groups, n_splits, seed, by)
    frame = pd.DataFrame(dict(group=groups, by=by, fold=fold))
    assert frame.groupby("group")["fold"].nunique().max() == 1
    sizes = frame.drop_duplicates("group")["fold"].value_counts().reindex(range(fold.max() + 1), fill_value=0)
    assert sizes.max() - sizes.min() <= 1 and fold.max() + 1 == min(n_splits, len(set(groups)))
    order = np.random.default_rng(seed).permutation(len(groups))
    assert (group_folds(groups[order], n_splits, seed, by[order]) == fold[order]).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_level_of_two_patients_is_seen_by_every_model(seed):
    by = np.array(["rare"] * 2 + ["usual"] * 48)
    fold = group_folds(np.arange(50), 5, seed, by)
    assert fold[0] != fold[1]


def test_folds_change_with_the_seed_only():
    a, b = group_folds(range(30), seed=1), group_folds(range(30), seed=2)
    assert (a == group_folds(range(30), seed=1)).all() and (a != b).any()


def test_gaps_and_wrong_lengths_name_the_row():
    with pytest.raises(InputError, match="gaps") as caught:
        complete(["a", "b", None], "patient_id")
    assert "2" in str(caught.value)
    with pytest.raises(InputError, match="one value a row"):
        complete([1, 2], "y", 3)


def test_one_fold_is_no_split():
    with pytest.raises(InputError, match="2 or more"):
        group_folds([1, 2, 3], 1)
