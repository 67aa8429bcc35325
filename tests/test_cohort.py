"""The pinned download against a server on this machine, and what the real cohort must show where it is present."""

import hashlib
import http.server
import threading

import numpy as np
import pytest
from conftest import real_eyes

import lensnb
from lensnb.cohort import BADAJOZ, Source, fetch_badajoz, linkage_evidence, local_badajoz, read_eyes
from lensnb.intervals import coverage_table
from lensnb.overlap import common_support
from lensnb.schema import InputError

CONTENT = b"age;iclSize\n31;13.2\n"
needs_real_eyes = pytest.mark.skipif(real_eyes() is None, reason="LENSNB_DATA_DIR does not hold icl_eyes_dev.csv")


@pytest.fixture
def address(tmp_path, monkeypatch):
    monkeypatch.delenv("LENSNB_DATA_DIR", raising=False)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "data.csv").write_bytes(CONTENT)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *a):
            super().__init__(*a, directory=tmp_path / "served")

        def log_message(self, *a):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/data.csv"
    server.shutdown()


def test_the_right_bytes_are_kept_and_not_asked_for_twice(address, tmp_path):
    source = Source(address, hashlib.sha256(CONTENT).hexdigest(), "eyes.csv")
    path = fetch_badajoz(source, cache=tmp_path / "cache", progress=False)
    assert path.read_bytes() == CONTENT
    (tmp_path / "served" / "data.csv").unlink()
    assert fetch_badajoz(source, cache=tmp_path / "cache", progress=False) == path


@pytest.mark.parametrize(
    "ending, sha, words", [("", "0" * 64, "not the pinned one"), ("/absent", "0" * 64, "could not be downloaded")]
)
def test_wrong_bytes_and_missing_files_are_refused_and_not_kept(address, tmp_path, ending, sha, words):
    with pytest.raises(InputError, match=words):
        fetch_badajoz(Source(address + ending, sha, "eyes.csv"), cache=tmp_path / "cache", progress=False)
    assert not (tmp_path / "cache" / "eyes.csv").exists()


def test_a_refused_connection_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("LENSNB_DATA_DIR", raising=False)
    with pytest.raises(InputError, match="LENSNB_DATA_DIR"):
        fetch_badajoz(Source("http://127.0.0.1:9/x.csv", "0" * 64, "x.csv"), cache=tmp_path, progress=False)


def test_the_environment_names_the_folder_and_an_empty_one_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSNB_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match="holds none of"):
        local_badajoz()
    (tmp_path / "data.csv").write_bytes(CONTENT)
    assert fetch_badajoz() == tmp_path / "data.csv"


def test_the_source_is_pinned_to_a_commit_and_a_hash():
    assert len(BADAJOZ.sha256) == 64 and BADAJOZ.url.split("/")[-3] == "b4e259dad9a9b417492e767237b262860c50dabf"


@pytest.fixture(scope="module")
def real():
    return read_eyes(real_eyes())


@needs_real_eyes
def test_every_real_row_is_accepted_and_patients_are_plausible(real):
    facts = real.attrs["intake"]
    assert (
        facts["profile"] == "icl-calc"
        and facts["received"] == facts["accepted"] + facts["quarantined"] == len(real) > 400
    )
    assert facts["quarantined"] == 0 and real.attrs["linkage"] == "inferred"
    evidence = linkage_evidence(real, seed=0)
    assert evidence["pairs"] > 20 * evidence["by_chance"] and evidence["correlation"]["k_d"] > 0.85


@needs_real_eyes
def test_the_public_lines_run_on_the_real_file_and_nothing_is_claimed_for_the_smallest_size(real, tmp_path):
    model = lensnb.SizingModel().fit(real)
    table = model.predict_sizes(real, zone=(250, 750))
    assert len(table) == 4 * len(real) and (table.loc[table["size_mm"] == 12.1, "status"] != "supported").all()
    away = table["size_mm"].to_numpy() != np.repeat(real["size_mm"].to_numpy(), 4)
    assert 0.2 < (table["status"][away] == "supported").mean() < 0.36, "about 28 % of the counterfactual cells"
    both = common_support(table.rename(columns={"eye_id": "unit", "size_mm": "level"}))
    assert both.loc[12.6, 13.7] < 0.03 and both.loc[12.1].max() == 0 and both.loc[12.6, 13.2] > 0.3
    loaded = lensnb.SizingModel.load(model.save(tmp_path / "model.json"))
    assert loaded.predict_sizes(real.head(50)).equals(model.predict_sizes(real.head(50)))
    assert model.explain(real.head(5)).values.shape == (5, len(model.parts.features))


@needs_real_eyes
def test_out_of_sample_errors_and_intervals_on_the_real_eyes_are_where_they_should_be(real):
    from lensnb.audit import accuracy, audit

    whole = audit(real, None, seed=0)
    scores = accuracy(whole.judged, real["vault_um"].mean()).iloc[0]
    assert (
        scores["n"] == len(real)
        and 185 < scores["mae_um"] < 210
        and abs(scores["bias_um"]) < 25
        and scores["skill"] > 0.15
    )
    known = whole.judged[whole.judged["status"] == "supported"]
    table = coverage_table(
        known["achieved_um"], known["lower_90"], known["upper_90"], by=known["size_mm"], groups=known["patient_id"]
    )
    assert table["holds"].all(), "each size's Wilson interval holds 90 %"


def test_a_cached_cohort_is_asked_for_its_hash_each_time(tmp_path, monkeypatch):
    import lensnb.cohort as cohort

    monkeypatch.delenv("LENSNB_DATA_DIR", raising=False)
    monkeypatch.setattr(cohort, "_cache", lambda: tmp_path)
    assert cohort.local_badajoz() is None
    (tmp_path / "icl_eyes.csv").write_text("age;iclSize\n31;13.2\n")
    with pytest.raises(InputError, match="not the pinned file"):
        cohort.local_badajoz()
