"""The command line: what it says, what it leaves behind, and its exit codes."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

import lensnb
import lensnb.store
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
        ("picture.csv", None, "lensnb ocr"),
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


@pytest.mark.parametrize("command", [(), ("fit",), ("size",), ("report",), ("intake",), ("ocr",), ("store",)])
def test_help_is_there(command):
    done = run(*command, "--help")
    assert done.exit_code == 0 and "Usage:" in done.output and len(done.output) > 300


# intake and store


@pytest.fixture()
def shelf(folder, tmp_path):
    """A store with one file in it, and the options that every intake into it takes."""
    eyes = pd.read_csv(folder / "eyes.csv").drop(columns="eye_id")
    eyes["patient_id"] = "MRN-" + eyes["patient_id"].astype(str)
    eyes.iloc[:60].to_csv(tmp_path / "may.csv", index=False)
    eyes.iloc[:90].to_csv(tmp_path / "june.csv", index=False)
    slip = eyes.iloc[90:100].copy()
    slip.iloc[2, slip.columns.get_loc("ata_mm")] = 1220
    slip.to_csv(tmp_path / "slip.csv", index=False)
    keyed = ["--out", tmp_path / "store", "--key", tmp_path / "key", "--received"]
    assert run("intake", tmp_path / "may.csv", *keyed, "2026-06-01").exit_code == 0
    return tmp_path, keyed


def test_each_row_is_accepted_held_or_known(shelf):
    folder, keyed = shelf
    done = run("intake", folder / "june.csv", folder / "slip.csv", folder / "may.csv", *keyed, "2026-07-01", "--json")
    june, slip, may = json.loads(done.stdout)["files"]
    assert done.exit_code == 3 and may["state"] == "known already"
    assert (june["accepted"], june["known"], june["quarantined"]) == (30, 60, 0)
    for line in (june, slip, may):
        assert line["received"] == line["accepted"] + line["quarantined"] + line["known"]
    lists = sorted(p.name for p in (folder / "store" / "review").iterdir())
    assert lists == [f"{slip['batch']}.csv", f"{slip['batch']}.html"], "what was known before is no work for anybody"
    assert len(lensnb.store.Store(folder / "store").eyes()) == 99


def test_no_identifier_of_the_input_lies_in_the_store(shelf):
    folder, keyed = shelf
    run("intake", folder / "slip.csv", *keyed, "2026-07-01")
    for path in (folder / "store").rglob("*"):
        assert not path.is_file() or b"MRN" not in path.read_bytes(), path
        assert "may" not in path.name and "slip" not in path.name


def test_a_refused_file_does_not_stop_the_others(shelf):
    folder, keyed = shelf
    (folder / "notes.txt").write_text("call the clinic\n")
    done = run("intake", folder / "notes.txt", folder / "june.csv", *keyed, "2026-07-01")
    assert done.exit_code == 2 and "Refused, notes.txt" in done.output and "30" in done.output


def test_a_row_leaves_the_quarantine_signed_or_not_at_all(shelf):
    folder, keyed = shelf
    done = run("intake", folder / "slip.csv", *keyed, "2026-07-01", "--json")
    batch = json.loads(done.stdout)["files"][0]["batch"]
    words = ["store", "release", folder / "store", batch, 4, "--received", "2026-07-02", "--set", "ata_mm=12.2"]
    assert run(*words).exit_code == 2, "nobody signed"
    assert run(*words, "--who", "desk", "--why", "seen on paper").exit_code == 0
    assert run(*words, "--who", "desk", "--why", "seen on paper").exit_code == 2, "once"
    assert len(lensnb.store.Store(folder / "store").eyes()) == 70
    assert run("store", "verify", folder / "store").exit_code == 0


def test_a_changed_byte_in_a_store_is_told(shelf):
    folder, _ = shelf
    rows = next((folder / "store").rglob("rows.parquet"))
    data = bytearray(rows.read_bytes())
    data[len(data) // 2] ^= 1
    rows.write_bytes(bytes(data))
    done = run("store", "verify", folder / "store")
    assert done.exit_code == 1 and "bytes were changed" in done.output


def test_a_model_of_a_store_is_the_model_of_its_table(folder, tmp_path):
    eyes = pd.read_csv(folder / "eyes.csv").drop(columns="eye_id")
    eyes.to_csv(tmp_path / "all.csv", index=False)
    keyed = ["--out", tmp_path / "store", "--key", tmp_path / "key", "--received", "2026-11-01"]
    assert run("intake", tmp_path / "all.csv", *keyed).exit_code == 0
    assert run("fit", tmp_path / "store", "--out", tmp_path / "stored.json").exit_code == 0
    stored, table = (lensnb.SizingModel.load(p) for p in (tmp_path / "stored.json", folder / "model.json"))
    assert stored.parts.training["patients"] == table.parts.training["patients"]
    eye = pd.DataFrame([{k: float(v) for k, v in (p.split("=") for p in EYE.split(","))}])
    ours, theirs = (m.predict_sizes(eye)["vault_um"].tolist() for m in (stored, table))
    assert ours == pytest.approx(theirs)
