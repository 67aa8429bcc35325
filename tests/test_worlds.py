"""Worlds of invented results: what each law promises, and that the same seed gives the same bytes."""

import numpy as np
import pytest

from lensnb.clinics import synthetic_clinics
from lensnb.cohort import link_patients
from lensnb.schema import InputError
from lensnb.worlds import LAWS, NOISE_UM, PER_UNIT, habit, make_world, mean_vault


@pytest.fixture(scope="module")
def eyes():
    table = link_patients(synthetic_clinics(5).of("alder").eyes)
    return table.dropna(subset=["vault_um", "ata_mm", "size_mm", *PER_UNIT]).reset_index(drop=True)


@pytest.mark.parametrize("name", LAWS)
def test_the_factual_vault_is_the_truth_at_the_size_given(eyes, name):
    w = make_world(eyes, name, 1)
    assert w.truth.shape == (len(eyes), 4) and (w.given.sum(axis=1) == 1).all()
    assert (w.truth[w.given] == w.eyes["vault_um"]).all()
    assert ((w.truth >= 0) & (w.truth <= 2000) & (w.truth % 10 == 0)).all()


@pytest.mark.parametrize("name", LAWS)
def test_a_larger_lens_never_sits_lower_beyond_the_noise_of_two_readings(eyes, name):
    falls = -np.diff(make_world(eyes, name, 2).truth, axis=1)
    assert (falls > 2.5 * np.sqrt(2) * NOISE_UM + 10).mean() < 0.01


def test_same_seed_same_bytes_and_another_seed_another_world(eyes):
    a, b, c = (make_world(eyes, "buffer", seed).truth for seed in (3, 3, 4))
    assert a.tobytes() == b.tobytes() and (a != c).mean() > 0.5


def test_covariates_and_patients_are_left_alone(eyes):
    w = make_world(eyes, "steep", 1)
    same = [c for c in eyes if c != "vault_um"]
    assert w.eyes[same].equals(eyes[same])
    other = make_world(eyes, "hidden knowledge", 1)
    assert (other.eyes["size_mm"] != eyes["size_mm"]).any()
    rest = [c for c in same if c != "size_mm"]
    assert other.eyes[rest].equals(eyes[rest])


def test_notes_about_real_eyes_do_not_travel_into_a_world(eyes):
    noted = eyes.copy()
    noted.attrs = {"intake": {"quarantined": 3}}
    w = make_world(noted, "flat", 1)
    assert w.eyes.attrs == {} and noted.attrs and w.truth.tobytes() == make_world(eyes, "flat", 1).truth.tobytes()


def test_steps_are_those_of_the_law(eyes):
    for name, slope in {"flat": 50, "right shape": 520, "steep": 1000}.items():
        step = mean_vault(LAWS[name], eyes, 13.2) - mean_vault(LAWS[name], eyes, 12.6)
        assert np.allclose(step, 0.6 * slope)
    buffered = mean_vault(LAWS["buffer"], eyes, 13.2) - mean_vault(LAWS["buffer"], eyes, 12.6)
    assert buffered.min() >= 0 and buffered.max() <= 0.6 * 900 + 1e-9 and np.ptp(buffered) > 100


def test_hidden_knowledge_selects_on_the_outcome_and_gamma_one_does_not(eyes):
    def gap(gamma):
        found = []
        for seed in range(15):
            w = make_world(eyes, "hidden knowledge", seed, gamma=gamma)
            left = w.truth[:, 2] - mean_vault(w.law, w.eyes, 13.2)
            chance = habit(eyes, w.sizes)[:, 2:]
            near = (chance > 0.2).all(axis=1)
            large = w.eyes["size_mm"].to_numpy() == 13.7
            found.append(left[near & large].mean() - left[near & ~large].mean())
        return np.mean(found)

    assert gap(3.0) < -80 and abs(gap(1.0)) < 40


def test_habit_is_a_probability_and_knows_no_rare_size(eyes):
    few = eyes.assign(size_mm=eyes["size_mm"].where(eyes["size_mm"] != 12.1, 12.6))
    chance = habit(few, (12.1, 12.6, 13.2, 13.7))
    assert np.allclose(chance.sum(axis=1), 1) and (chance[:, 0] == 0).all()


def test_an_unknown_world_and_a_gap_are_refused(eyes):
    with pytest.raises(InputError, match="no such world"):
        make_world(eyes, "nowhere", 1)
    with pytest.raises(InputError, match="gaps"):
        make_world(eyes.assign(ata_mm=np.nan), "flat", 1)
