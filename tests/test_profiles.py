"""Headings mean what their profile says, units are never guessed, and a profile with a mistake is refused."""

import tomllib
from importlib import resources

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from lensnb.cells import UNIT_FACTORS, fits_grid, parse_cell
from lensnb.profiles import (
    PROFILES,
    ROLES,
    convert,
    load_profiles,
    open_table,
    recognize,
    split_heading,
)
from lensnb.schema import FIELDS, InputError, judge

FAST = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
DEVICES = [p for p in PROFILES.values() if not p.canonical]


def a_value(name, draw):
    """A possible value of a field, on its grid and exact to the last printed digit."""
    f = FIELDS[name]
    if f.choices:
        return draw(st.sampled_from(f.choices))
    if f.kind == "date":
        return "2026-08-11"
    if f.kind == "text":
        return "abc"
    grid = f.resolution if f.resolution and f.resolution >= 0.05 else 0.01
    lo, hi = (f.hard or (1, 2))[0] / grid, (f.hard or (1, 2))[1] / grid
    return round(draw(st.integers(int(np.ceil(lo)), int(np.floor(hi)))) * grid, 6)


def written(profile, heading, name, value):
    """A value as a device writes it under this heading."""
    if not isinstance(value, (int, float)):
        return value
    unit, own = profile.find(heading)[1], FIELDS[name].unit
    return f"{value / UNIT_FACTORS[unit, own] if unit != own else value:.6g}"


def columns_of(profile):
    """One heading for each field of a profile, its unit stated where the profile leaves that to the heading."""
    chosen = {}
    for h, (name, unit) in profile.headings.items():
        own = FIELDS[name].unit
        full = h if not own or unit or split_heading(h)[1] else f"{h} [{own}]"
        if name not in chosen.values() and (full not in chosen):
            chosen[full] = name
    required = {split_heading(h)[0] for h in chosen}
    missing = [r for r in profile.require if r not in required and r not in chosen]
    return chosen, missing


@pytest.mark.parametrize("profile", DEVICES, ids=lambda p: p.name)
@pytest.mark.parametrize("sep, decimal", [(",", "."), (";", ","), ("\t", ".")])
@settings(FAST, max_examples=20)
@given(data=st.data())
def test_every_profile_reads_back_what_its_device_writes(tmp_path, profile, sep, decimal, data):
    columns, halves = columns_of(profile)
    meant = {name: a_value(name, data.draw) for name in columns.values()}
    cells = {h: str(written(profile, h, name, meant[name])) for h, name in columns.items()}
    for name, pair in profile.mean.items():
        f = FIELDS[name]
        a, b = (data.draw(st.integers(int(f.hard[0]) * 4, int(f.hard[1]) * 4)) / 4 for _ in pair)
        unit = "" if split_heading(pair[0])[1] or profile.exact else f" [{f.unit}]"
        cells |= {f"{pair[0]}{unit}": f"{a:g}", f"{pair[1]}{unit}": f"{b:g}"}
        meant[name] = (a + b) / 2
    assert all(any(h in (split_heading(c)[0], c) for c in cells) for h in halves)
    if "[side]" in cells:
        text = "".join(f"{h} = {c.replace('.', decimal)}\n" for h, c in cells.items() if h != "[side]")
        raw = f"[Patient Data]\nID = 7\n[Test Data {cells['[side]']} 0]\n{text}"
    else:
        rows = [[f"{c.replace('.', decimal) if c[-1:].isdigit() and '-' not in c[1:] else c}" for c in cells.values()]]
        raw = "\n".join(sep.join(r) for r in [list(cells), *rows]) + "\n"
    (tmp_path / "t.csv").write_text(raw, encoding="utf-8")
    table, torn, found, names, _ = open_table(tmp_path / "t.csv")
    assert found.name == profile.name and not torn
    rows = found.apply(table, names)
    for name, value in meant.items():
        parsed = parse_cell(name, rows[name].iloc[0], found.dates, found.decimal)
        want = pd.Timestamp(value) if FIELDS[name].kind == "date" else value
        assert parsed.code in ("ok", "soft") and parsed.value == (
            pytest.approx(want, abs=1e-6) if isinstance(want, float) else want
        ), (name, rows[name].iloc[0], parsed)


@FAST
@given(st.lists(st.sampled_from(sorted(FIELDS)), min_size=2, max_size=8, unique=True))
def test_names_of_the_field_table_are_canonical_and_complete(names):
    profile, found, ignored = recognize(names)
    assert profile.name == "canonical" and found == {n: n for n in names} and not ignored


@FAST
@given(
    st.lists(
        st.one_of(st.text(max_size=12), st.sampled_from([*FIELDS, "ATA [mm]", "CLR", "환자명", "AL [mm]"])), max_size=8
    )
)
def test_any_headings_are_recognized_or_refused(headings):
    try:
        profile, names, ignored = recognize(headings)
    except InputError as e:
        assert str(e)
        return
    assert set(names.values()) <= set(FIELDS) and len(set(names.values())) == len(names)
    persons = {h for _, h in profile.identity_headings(headings)}
    halves = {h for h in headings if any(h.startswith(half) for pair in profile.mean.values() for half in pair)}
    halves -= set(ignored)
    assert set(names) | set(ignored) | persons | halves == set(headings), "no heading is lost"


# Units


@pytest.mark.parametrize(
    "heading", ["ATA", "ata", "WTW", "Vault", "CLR", "acd", "ata_cm", "ata [?]", "acd [?]", "clr_nm"]
)
def test_a_heading_without_a_known_unit_is_refused(heading):
    with pytest.raises(InputError, match="unit"):
        recognize(["eye_id", "size_mm", heading])


@pytest.mark.parametrize("profile", DEVICES, ids=lambda p: p.name)
def test_a_device_table_without_units_is_refused_unless_the_profile_states_them(profile):
    bare = {h: e for h, e in profile.headings.items() if FIELDS[e[0]].unit and not e[1]}
    needed = [h for h in profile.require if h not in bare]
    if not bare or profile.exact:
        return
    with pytest.raises(InputError, match="unit|two ways|Two columns"):
        recognize(
            [
                *needed,
                *(f"{r} [mm]" for r in profile.require if r in bare),
                next(h for h in bare if h not in profile.require),
            ]
        )


def test_the_unit_of_the_heading_counts_more_than_habit():
    head = ["ATA [mm]", "ACW [mm]"]
    for clr, cell in [
        ("CLR [mm]", "0.12"),
        ("CLR [um]", "120"),
        ("CLR [µm]", "120"),
        ("CLR (㎛)", "120"),
        ("clr_um", "120"),
    ]:
        cells = pd.DataFrame([["12.2", "11.9", cell]], columns=[*head, clr])
        profile, names, _ = recognize([*head, clr]) if clr != "clr_um" else recognize(["ata_mm", "acw_mm", clr])
        cells.columns = list(names)
        assert profile.apply(cells, names)["clr_um"].tolist() == ["120"]


@FAST
@given(st.integers(-1000, 1000), st.sampled_from([None, ",", "."]))
def test_conversion_is_exact_in_every_decimal_mark(um, decimal):
    text = f"{um / 1000:.3f}"
    assume(decimal is None or not text.lstrip("-").startswith("1"))  # 1,000 and 1.000 are tried below
    cell = text.replace(".", "," if decimal == "," else ".")
    parsed = parse_cell("clr_um", convert(cell, "clr_um", "mm", decimal), decimal=decimal)
    assert parsed.value == um and fits_grid("clr_um", parsed.value)


@pytest.mark.parametrize("cell", ["O.12", "0.12 um", "abc", "0.1/0.2", "2026-08-11", "1,2,3", "True"])
def test_what_cannot_be_converted_is_never_read(cell):
    for decimal in (None, ".", ","):
        assert parse_cell("clr_um", convert(cell, "clr_um", "mm", decimal), decimal=decimal).value is None


@pytest.mark.parametrize("cell", ["", "-9999", "N/A", "--"])
def test_missing_stays_missing_in_another_unit(cell):
    assert parse_cell("clr_um", convert(cell, "clr_um", "mm")).code == "missing"


# Doubtful headings


@pytest.mark.parametrize(
    "headings, words",
    [
        (["ATA [mm]", "CLR [um]", "ACW [mm]", "ACD [mm]"], "two ways"),
        (["ATA [mm]", "CLR [um]", "ACW [mm]", "STS [mm]"], "two ways"),
        (["AQD [mm]", "STS [mm]", "Eye"], "two ways"),
        (["ATA [mm]", "ACA nasal [deg]", "ACD [mm]", "Eye"], "two ways"),
        (["eye_id", "ata_mm", "ATA [mm]"], "Two columns hold `ata_mm`"),
        (["eye_id", "Eye", "OD/OS", "ata_mm"], "Two columns hold `eye`"),
        (["ata_mm", "ata_mm"], "stands twice"),
        (["colour", "weight"], "No column of the table is known"),
        (["AL [mm]", "ACD [D]", "WTW [mm]"], "is in D"),
        ([], "No column"),
    ],
)
def test_doubtful_headings_are_refused(headings, words):
    with pytest.raises(InputError, match=words):
        recognize(headings)


def test_a_named_depth_settles_the_bare_one():
    profile, names, ignored = recognize(["ATA [mm]", "CLR [um]", "ACW [mm]", "ACD (Endo) [mm]", "ACD [mm]"])
    assert names["ACD (Endo) [mm]"] == "acd_mm" and ignored == ["ACD [mm]"]


def test_external_depth_is_never_internal():
    profile, names, _ = recognize(["AL [mm]", "ACD [mm]", "WTW [mm]"])
    assert profile.external and names["ACD [mm]"] == "acd_ext_mm" and "acd_mm" not in names.values()
    for p in PROFILES.values():
        for h, (name, _) in p.headings.items():
            if name == "acd_mm":
                assert not any(word in h.lower() for word in ("ext", "epi")), (p.name, h)
            if name == "acd_ext_mm":
                assert not any(word in h.lower() for word in ("int", "endo", "aqd")), (p.name, h)


def test_predictions_are_no_vaults():
    _, names, ignored = recognize(["ATA [mm]", "CLR [um]", "ACW [mm]", "LV [um]", "NK [um]", "KS [um]"])
    assert "vault_um" not in names.values() and ignored == ["LV [um]", "NK [um]", "KS [um]"]


def test_a_table_with_two_devices_headings_is_not_chosen_for():
    both = {n: PROFILES[n] for n in ("ubm", "anterion", "canonical")}
    with pytest.raises(InputError, match="several profiles"):
        recognize(["STS-H [mm]", "AQD [mm]", "Eye"], both)
    assert recognize(["STS-H [mm]", "AQD [mm]", "Eye"], {"ubm": PROFILES["ubm"]})[0].name == "ubm"


# Halves, constants, sentinels


def test_half_of_a_mean_is_no_mean():
    cells = pd.DataFrame(
        {
            "AL [mm]": ["26"] * 5,
            "ACD [mm]": ["3.7"] * 5,
            "WTW [mm]": ["11.9"] * 5,
            "K1 [D]": ["43", "43", "", "4.3", "43,25"],
        }
    )
    cells["K2 [D]"] = ["44", "", "", "44", "44,5"]
    profile, names, ignored = recognize(cells.columns)
    k = [parse_cell("k_d", c) for c in profile.apply(cells, names)["k_d"]]
    assert [p.value for p in k] == [43.5, None, None, None, 43.875] and [p.code for p in k][1:4] == ["missing"] * 2 + [
        "unreadable"
    ]
    assert not ignored and "k_d" not in profile.apply(cells.drop(columns="K2 [D]"), names)


def test_a_radius_is_no_half_of_a_power():
    head = ["AL [mm]", "ACD [mm]", "WTW [mm]", "K1 [mm]", "K2 [mm]"]
    profile, names, ignored = recognize(head)
    cells = pd.DataFrame([["26", "3.7", "11.9", "7.8", "7.6"]], columns=head)
    assert ignored == ["K1 [mm]", "K2 [mm]"] and "k_d" not in profile.apply(cells, names)
    with pytest.raises(InputError, match="no unit"):
        recognize([*head[:3], "K1", "K2"])


def test_one_meridian_of_a_pentacam_is_not_its_keratometry():
    _, names, _ = recognize(["[side]", "ID", "SimK steep D", "Central Corneal Thickness"])
    assert "k_d" not in names.values()


def test_the_instrument_of_a_vault_is_said_where_there_is_one():
    p = PROFILES["visante"]
    head = ["ATA [mm]", "ACA nasal [deg]", "ACA temporal [deg]"]
    without = pd.DataFrame([["12.2", "40", "42"]], columns=head)
    rows = p.apply(without, recognize(head)[1])
    assert rows["aca_deg"].tolist() == ["41"] and "vault_device" not in rows and rows["device"].tolist() == ["Visante"]
    rows = p.apply(without.assign(**{"Vault [um]": "600"}), recognize([*head, "Vault [um]"])[1])
    assert rows["vault_device"].tolist() == ["Visante"]


def test_a_stated_device_is_not_overwritten():
    cells = pd.DataFrame([["12.2", "100", "11.9", "CASIA2 b"], ["12.1", "90", "11.8", ""]])
    cells.columns = ["ATA [mm]", "CLR [um]", "ACW [mm]", "device"]
    profile, names, _ = recognize(cells.columns)
    assert profile.apply(cells, names)["device"].tolist() == ["CASIA2 b", "CASIA2"]


# What names a person


def test_every_profile_knows_who_is_named():
    people = [
        "Patient ID",
        "환자명",
        "Last Name",
        "first_name",
        "DOB",
        "생년월일",
        "MRN",
        "Telephone",
        "E-Mail",
        "주민등록번호",
    ]
    for p in PROFILES.values():
        assert {h for _, h in p.identity_headings(people)} == set(people), p.name
        assert {role for role, _ in p.identity_headings(people)} == set(ROLES)
        assert not p.identity_headings([*(set(FIELDS) - {"patient_id"}), *p.headings, "WTW [mm]", "remark"]), p.name


def test_the_patient_number_is_one_column():
    _, names, ignored = recognize(["MRN", "patient_id", "Patient Name", "ata_mm", "eye"])
    assert names == {"patient_id": "patient_id", "ata_mm": "ata_mm", "eye": "eye"} and not ignored
    assert recognize(["MRN", "Chart No", "ata_mm", "eye"])[1]["MRN"] == "patient_id"


# Profiles as data


def test_shipped_profiles_say_what_is_not_confirmed():
    unsure = {p.name for p in PROFILES.values() if not p.confirmed}
    assert unsure == {"casia2", "anterion", "visante", "ubm"}
    for p in PROFILES.values():
        assert bool(p.caution) == (p.name in unsure) and (not p.caution or p.name in p.caution)
    assert PROFILES["icl-calc"].anonymous and sum(p.anonymous for p in PROFILES.values()) == 1


def test_shipped_profiles_state_what_is_possible():
    for p in PROFILES.values():
        assert p.title and (p.require or p.canonical)
        for name, value in p.constants.items():
            assert parse_cell(name, value).value == value
        for name in [n for n, _ in p.headings.values()] + list(p.mean):
            f = FIELDS[name]
            assert not f.unit or judge(name, (f.soft or f.hard or f.choices)[0])[0] in ("ok", "soft")


def own(tmp_path, text, name="own.toml"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


GOOD = 'name = "own"\nrequire = ["K9"]\n'


@pytest.mark.parametrize(
    "text, key, words",
    [
        ("name = own", None, "not valid TOML"),
        ('name = "Own!"\n', "name", "needs a name"),
        ("require = []\n", "name", "needs a name"),
        ('name = "own"\n', "require", "by which headings"),
        ('name = "casia2"\nrequire = ["a"]\n', "name", "taken"),
        (GOOD + 'date = "dmy"\n', "date", "unknown"),
        (GOOD + 'dates = "ymd"\n', "dates", "order"),
        (GOOD + 'decimal = ";"\n', "decimal", "mark"),
        (GOOD + 'confirmed = "no"\n', "confirmed", "bool"),
        (GOOD + "missing = [-1]\n", "missing", "list of texts"),
        (GOOD + 'extends = "casia9"\n', "extends", "no such profile"),
        (GOOD + 'extends = "own"\n', "extends", "extend each other"),
        (GOOD + '[headings]\nx = "ata"\n', "x", "needs a field"),
        (GOOD + '[headings]\nx = {field = "ata_mm", units = "mm"}\n', "x", "needs a field"),
        (GOOD + "[headings]\nx = 3\n", "x", "needs a field"),
        (GOOD + '[headings]\n"r [mm]" = "k_d"\n', r"r \[mm\]", "cannot be computed from mm"),
        (GOOD + '[headings]\nx = {field = "k_d", unit = "um"}\n', "x", "cannot be computed"),
        (GOOD + '[headings]\n"c [mm]" = {field = "clr_um", unit = "um"}\n', r"c \[mm\]", "the heading says mm"),
        (GOOD + '[constants]\nsize_mm = "12.5"\n', "size_mm", "not possible"),
        (GOOD + '[constants]\ncolour = "blue"\n', "colour", "no field"),
        (GOOD + '[mean]\nk_d = ["K1"]\n', "k_d", "two headings"),
        (GOOD + '[mean]\nk = ["K1", "K2"]\n', "k", "two headings"),
        (GOOD + '[refuse]\nACD = "doubtful"\n', "ACD", "a reason"),
        (GOOD + '[identity]\nnickname = ["x"]\n', "nickname", "role"),
    ],
)
def test_a_profile_with_a_mistake_is_refused_with_file_and_key(tmp_path, text, key, words):
    with pytest.raises(InputError, match=rf"own\.toml.*{words}") as e:
        load_profiles(own(tmp_path, text))
    assert key is None or key.replace("\\", "") == e.value.field


def test_profiles_that_are_no_text_or_not_there(tmp_path):
    (tmp_path / "own.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        load_profiles(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        load_profiles(tmp_path / "absent")


def test_a_clinic_extends_without_code(tmp_path):
    text = """name = "own"
extends = "iolmaster"
dates = "dmy"
decimal = ","
missing = ["---", "n.v."]
ignore = ["Bemerkung"]
[headings]
"Operation" = "surgery_date"
"Hornhaut" = {field = "cct_um", unit = "um"}
[identity]
patient_id = ["Fallnummer"]
[constants]
device = "IOLMaster 700"
"""
    profiles = load_profiles(own(tmp_path, text))
    assert load_profiles(tmp_path / "own.toml")["own"] == profiles["own"] and load_profiles(profiles) is profiles
    rows = "Fallnummer;Nachname;Eye;AL [mm];ACD [mm];WTW [mm];Hornhaut;Operation;Bemerkung;K1 [D];K2 [D]\n"
    rows += "0815;Muster;links;26,125;3,71;n.v.;531;03.04.2026;gut;43,25;44,5\n"
    (tmp_path / "t.csv").write_text("Praxis;X\n\n" + rows, encoding="cp1252")
    cells, torn, profile, names, ignored = open_table(tmp_path / "t.csv", profiles)
    assert profile.name == "own" and profile.extends == "iolmaster" and profile.external and ignored == ["Bemerkung"]
    said = profile.apply(cells, names)
    values = {n: parse_cell(n, said[n].iloc[0], profile.dates, profile.decimal).value for n in said}
    assert values == dict(
        patient_id="0815", eye="OS", al_mm=26.125, acd_ext_mm=3.71, wtw_mm=None, cct_um=531.0, k_d=43.875,
        surgery_date=pd.Timestamp("2026-04-03"), device="IOLMaster 700", wtw_device="IOLMaster",
    )  # fmt: skip
    assert ("name", "Nachname") in profile.identity_headings(cells.columns)


def test_extensions_of_extensions_go_first(tmp_path):
    own(tmp_path, 'name = "a"\nextends = "casia2"\n', "a.toml")
    own(tmp_path, 'name = "b"\nextends = "a"\ndates = "dmy"\n', "b.toml")
    profiles = load_profiles(tmp_path)
    assert recognize(["ATA [mm]", "CLR [um]", "ACW [mm]"], profiles)[0].name == "b"
    assert recognize(["ATA [mm]", "CLR [um]", "ACW [mm]"])[0].name == "casia2", "the package's own are as they were"


def test_the_package_ships_its_profiles():
    folder = resources.files("lensnb") / "devices"
    names = {p.name for p in folder.iterdir() if p.name.endswith(".toml")}
    assert {f"{n}.toml" for n in PROFILES} | {"common.toml"} == names
    for name in names:
        assert tomllib.loads((folder / name).read_text(encoding="utf-8"))
