"""An edition: same bytes again, a good page survives a bad run, an empty month is red."""

import hashlib
import json
import re

import pandas as pd
import pytest

from lensnb.clinics import synthetic_clinics
from lensnb.edition import by_clinic, eyes_sha256, file_stems, newest_month, write_edition
from lensnb.report import check_page
from lensnb.schema import InputError

MONTH = "2026-10"


@pytest.fixture(scope="module")
def eyes():
    network = synthetic_clinics(seed=2026)
    return pd.concat([network.of("cedar").eyes, network.of("dogwood").eyes], ignore_index=True)


@pytest.fixture(scope="module")
def edition(eyes, tmp_path_factory):
    return write_edition(eyes, MONTH, tmp_path_factory.mktemp("reports"), progress=False)


def contents(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if ".run." not in p.name}


def test_every_clinic_and_the_network_have_a_page_and_a_sidecar(edition):
    assert not edition.failed and edition.folder.name == MONTH
    assert set(contents(edition.folder)) == {
        f"{n}.{e}" for n in ("cedar", "dogwood", "index") for e in ("html", "json")
    }


def test_pages_are_small_closed_and_readable(edition):
    for page in edition.folder.glob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert check_page(html) == [] and len(html) < 1_000_000
        assert "http" not in html and "<script" not in html
        for svg in re.findall(r"<svg[^>]*>", html):
            assert re.search(r'aria-label="[^"]{20,}"', svg)


def test_the_network_page_links_every_clinic(edition):
    html = (edition.folder / "index.html").read_text(encoding="utf-8")
    assert {"cedar.html", "dogwood.html"} <= set(re.findall(r'href="([^"#]+)"', html))


def test_the_sidecar_holds_the_flow_and_it_adds_up(edition, eyes):
    data = json.loads((edition.folder / "dogwood.json").read_text(encoding="utf-8"))
    flow = next(r for r in data["results"] if r.get("name") == "flow")
    steps = {step.strip(): n for step, n in flow["rows"]}
    assert steps["rows received"] == (eyes["clinic_id"] == "dogwood").sum() == steps["accepted"] + steps["quarantined"]
    states = ("measured before", "measured this month", "waiting for a vault", "vault overdue", "operated later")
    assert sum(steps[s] for s in states) == steps["accepted"]
    assert data["made"]["data_sha256"] == eyes_sha256(by_clinic(eyes)["dogwood"])


def test_no_page_names_a_place_a_time_or_a_patient(edition, eyes):
    for page in [*edition.folder.glob("*.html"), *(p for p in edition.folder.glob("*.json") if ".run." not in p.name)]:
        text = page.read_text(encoding="utf-8")
        assert (
            str(edition.folder.parent) not in text
            and "/lensnb-" not in text
            and not re.search(r"\b\d\d:\d\d:\d\d\b", text)
        )
        assert not any(p in text for p in eyes["patient_id"].head(100))


def test_again_is_the_same_and_an_empty_month_is_red_beside_the_good_page(edition, eyes):
    before, out = contents(edition.folder), edition.folder.parent
    again = write_edition(eyes, MONTH, out, progress=False)
    assert not again.failed and contents(edition.folder) == before
    gone = eyes[eyes["clinic_id"] == "cedar"]
    silent = gone[gone["surgery_date"] < "2025-01-01"].assign(vault_um=float("nan"), vault_day=float("nan"))
    red = write_edition(silent, MONTH, out, clinic="cedar", progress=False)
    assert red.empty == ("cedar",) and red.pages["cedar"].status == "act"
    assert red.pages["cedar"].html.name == "cedar.empty.html"
    assert {k: v for k, v in contents(edition.folder).items() if k in before} == before, "the good pages stay"


@pytest.mark.parametrize("wrong", [dict(month="2026-13"), dict(month="October"), dict(month=MONTH, clinic="oak")])
def test_unusable_options_are_refused_before_anything_is_written(eyes, tmp_path, wrong):
    with pytest.raises(InputError):
        write_edition(eyes, out=tmp_path / "reports", progress=False, **wrong)
    assert not (tmp_path / "reports").exists()


def test_the_newest_month_is_the_default(eyes):
    assert newest_month(eyes) == MONTH


@pytest.mark.parametrize("name", ["../evil", "a/b", "two words", "Cédar"])
def test_a_clinic_cannot_write_outside_its_folder(name):
    assert re.fullmatch(r"[A-Za-z0-9_-]+", file_stems([name])[name])


@pytest.mark.parametrize("names", [["index"], ["quarantine"], [".."], ["a b", "a/b"], ["A", "a"]])
def test_names_that_are_no_file_or_the_same_file_are_refused(names):
    with pytest.raises(InputError):
        file_stems(names)


def test_rows_without_a_clinic_are_not_lost(eyes):
    marked = eyes.assign(clinic_id=eyes["clinic_id"].mask(eyes.index < 7))
    assert sum(map(len, by_clinic(marked).values())) == len(eyes)


def test_a_place_that_is_a_file_is_refused(eyes, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError):
        write_edition(eyes, MONTH, tmp_path / "taken", progress=False)
