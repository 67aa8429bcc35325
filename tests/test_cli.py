"""The command line: what it says, what it leaves behind, and its exit codes."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from lensnb.cli import main
from lensnb.clinics import synthetic_clinics

EYE = "age_y=32,ata_mm=12.2,clr_um=100,acd_mm=3.2,aca_deg=41.5,icl_se_d=-10.5,wtw_mm=11.8"


def run(*words):
    return CliRunner().invoke(main, [str(w) for w in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    eyes = synthetic_clinics().of("alder").eyes
    eyes.to_csv(folder / "eyes.csv", index=False)
    slip = eyes.copy()
    slip.loc[3, "ata_mm"] *= 100
    slip.loc[8, "size_mm"] = 12.5
    slip.to_csv(folder / "slip.csv", index=False)
    assert run("fit", folder / "eyes.csv", "--out", folder / "model.json").exit_code == 0
    return folder


def test_one_eye_prints_four_sizes_with_status_and_reason(folder):
    done = run("size", "--model", folder / "model.json", "--eye", EYE)
    assert done.exit_code == 0
    for size in ("12.1 mm", "12.6 mm", "13.2 mm", "13.7 mm"):
        assert size in done.output
    assert (
        "supported" in done.output and "similar patients received" in done.output and "zone 250-750 um" in done.output
    )


def test_json_is_json_and_the_same_as_the_package(folder):
    import lensnb

    done = run("size", "--model", folder / "model.json", "--eye", EYE, "--json")
    rows = json.loads(done.stdout)
    eye = pd.DataFrame([{k: float(v) for k, v in (p.split("=") for p in EYE.split(","))}])
    table = lensnb.SizingModel.load(folder / "model.json").predict_sizes(eye)
    for name in ("vault_um", "bound_lower", "bound_upper", "p_zone_upper"):
        assert [r[name] for r in rows] == pytest.approx(table[name].tolist())
    assert rows[0]["lower_90"] is None, "missing is null, never NaN"


@pytest.mark.parametrize(
    "eye, words",
    [
        (EYE.replace("12.2", "122"), "12.2 mm was meant"),
        (EYE.replace("32", "0", 1), "age_y"),
        (EYE.replace("ata_mm", "ata"), "ata_mm"),
        ("hello", "written as"),
        (EYE.replace("-10.5", "10.5"), "lost minus"),
    ],
)
def test_a_wrong_eye_is_refused_with_what_to_do(folder, eye, words):
    done = run("size", "--model", folder / "model.json", "--eye", eye)
    assert done.exit_code == 2 and words in done.output and "Traceback" not in done.output


def test_a_decimal_comma_is_a_decimal_comma(folder):
    comma = "; ".join(EYE.split(",")).replace(".", ",")
    assert (
        run("size", "--model", folder / "model.json", "--eye", comma, "--json").stdout
        == run("size", "--model", folder / "model.json", "--eye", EYE, "--json").stdout
    )


def test_quarantined_rows_end_with_3_and_leave_their_reasons(folder, tmp_path):
    done = run("fit", folder / "slip.csv", "--out", tmp_path / "model.json")
    assert done.exit_code == 3 and (tmp_path / "model.json").exists()
    reasons = pd.read_csv(tmp_path / "model.quarantine.csv").query("severity == 'block'")
    assert reasons["row"].tolist() == [5, 10] and reasons["column"].tolist() == ["ata_mm", "size_mm"]


def broken(folder, name, text=None, data=None):
    (folder / name).write_bytes(data if data is not None else text.encode())
    return folder / name


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("column.csv", "eye_id,ata,size_mm,vault_um\na,12.2,13.2,600\n", "ata_mm"),
        ("empty.csv", "eye_id,size_mm\n", "no rows"),
        ("nothing.csv", "", "no rows"),
        ("picture.csv", None, "text"),
        ("few.csv", "eye_id,ata_mm,wtw_mm,size_mm,vault_um,patient_id\na,12.2,11.8,13.2,600,p\n", ""),
    ],
)
def test_bad_tables_are_refused_and_the_old_model_stays(folder, tmp_path, name, text, words):
    path = broken(tmp_path, name, text, None if text is not None else b"\x89PNG\xff\xfe\x00")
    model = tmp_path / "model.json"
    model.write_bytes((folder / "model.json").read_bytes())
    done = run("fit", path, "--out", model)
    assert done.exit_code == 2 and words in done.output and done.output.count("Refused: ") == 1
    assert model.read_bytes() == (folder / "model.json").read_bytes()
    done = run("report", "--data", path, "--out", tmp_path / "reports", "--clinic", "x")
    assert done.exit_code == 2 and not list(
        (tmp_path / "reports").rglob("*.html") if (tmp_path / "reports").exists() else []
    )


@pytest.mark.parametrize(
    "words",
    [
        ("report", "--month", "2026-13"),
        ("report", "--clinic", "oak"),
        ("size", "--model", "absent.json", "--eye", EYE),
        ("size",),
        ("size", "--model", "absent.json"),
        ("report", "--zone", "750", "250", "--clinic", "cedar"),
    ],
)
def test_unusable_options_end_with_2(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert done.exit_code == 2 and "Traceback" not in done.output


def test_a_month_without_eyes_is_a_red_page_and_4(tmp_path):
    done = run("report", "--month", "2031-01", "--clinic", "cedar", "--out", tmp_path)
    assert done.exit_code == 4 and (tmp_path / "2031-01" / "cedar.empty.html").exists()
    assert "No eyes in 2031-01: cedar" in done.output


@pytest.mark.parametrize("command", [(), ("fit",), ("size",), ("report",)])
def test_help_is_there(command):
    done = run(*command, "--help")
    assert done.exit_code == 0 and "Usage:" in done.output and len(done.output) > 300
