"""DICOM in and FHIR out: what is coded is read, what is open is said, and nobody is named."""

import io
import json
import re
import uuid
import warnings
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensnb.schema import FIELDS, InputError, check_eyes
from lensnb.standards import SIDES, UCUM, from_fhir, read_dicom, to_fhir

pydicom = pytest.importorskip("pydicom")
from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402

# Files as devices write them, with an invented person inside


def item(**elements):
    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def one(**elements):
    return Sequence([item(**elements)])


def code(value, scheme="DCM"):
    return one(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning="-")


PERSON = dict(
    PatientName="Zweistein^Alberta",
    PatientID="H-0042-77",
    PatientBirthDate="19940228",
    OtherPatientIDsSequence=None,
    AccessionNumber="ACC778899",
    InstitutionName="Clinic of Nowhere",
    OperatorsName="Opera^Tor",
    DeviceSerialNumber="SN1234567",
)


def an_object(sop_class, **elements):
    person = {k: v for k, v in PERSON.items() if v is not None}
    basis = dict(StudyDate="20260131", ManufacturerModelName="IOLMaster 700", SoftwareVersions="1.90")
    return item(SOPClassUID=sop_class, SOPInstanceUID="1.2.3.4", **{**basis, **person, **elements})


def as_bytes(ds, syntax=uid.ExplicitVRLittleEndian, open_ends=False):
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    for element in ds.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = open_ends
            for inner in element.value:
                inner.is_undefined_length_sequence_item = open_ends
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


SEGMENTS = dict(chamber=("31636006", "SCT"), cornea=("T-AA200", "SRT"), lens=("111778", "DCM"))
NAME = "OphthalmicAxialLengthMeasurementsSegmentNameCodeSequence"


def an_eye(status="247049005", total=26.41, **parts):
    segments = [item(OphthalmicAxialLength=v, **{NAME: code(*SEGMENTS[k])}) for k, v in parts.items()]
    chosen = item(
        SelectedTotalOphthalmicAxialLengthSequence=one(OphthalmicAxialLength=total),
        SelectedSegmentalOphthalmicAxialLengthSequence=Sequence(segments),
    )
    eye = item(OpticalSelectedOphthalmicAxialLengthSequence=Sequence([chosen]))
    if status:
        eye.LensStatusCodeSequence = code(status, "SCT")
    return eye


def axial(right=None, left=None, definition="111776", **more):
    eyes = dict(OphthalmicAxialMeasurementsRightEyeSequence=right, OphthalmicAxialMeasurementsLeftEyeSequence=left)
    eyes = {k: Sequence([v]) for k, v in eyes.items() if v is not None}
    if definition:
        more["AnteriorChamberDepthDefinitionCodeSequence"] = code(definition)
    sop = uid.OphthalmicAxialMeasurementsStorage
    return an_object(sop, OphthalmicAxialMeasurementsDeviceType="OPTICAL", **eyes, **more)


GOOD = dict(chamber=3.72, cornea=0.545, lens=3.61)


@pytest.fixture
def read(tmp_path):
    def reader(ds, **options):
        path = tmp_path / "made.dcm"
        path.write_bytes(
            ds if isinstance(ds, bytes) else as_bytes(ds, options.pop("syntax", uid.ExplicitVRLittleEndian))
        )
        return read_dicom(path, **options)

    return reader


def codes(made):
    return {(r["row"], r["code"], r["severity"]) for r in made.eyes.attrs["quarantine"]}


# DICOM: lengths


def test_both_eyes_of_an_axial_object(read):
    made = read(
        axial(an_eye(**GOOD), an_eye(total=26.3, chamber=3.68, cornea=0.541, lens=3.6), MeasurementLaterality="B")
    )
    eyes = made.eyes
    assert (made.kind, made.device, made.pdf) == ("axial", "IOLMaster 700", None)
    assert eyes["eye"].tolist() == ["OD", "OS"] and eyes["acd_ext_mm"].tolist() == [3.72, 3.68]
    assert eyes["acd_mm"].tolist() == [3.18, 3.14] and eyes["cct_um"].tolist() == [545.0, 541.0]
    assert eyes["al_mm"].tolist() == [26.41, 26.3] and eyes["lt_mm"].tolist() == [3.61, 3.6]
    assert (eyes["exam_date"] == pd.Timestamp("2026-01-31")).all() and "patient_id" not in eyes
    assert codes(made) == {(1, "derived", "warn"), (2, "derived", "warn")}
    facts = eyes.attrs["intake"]
    assert facts["received"] == facts["accepted"] + facts["quarantined"] == 2 and facts["profile"] == "dicom axial"


@pytest.mark.parametrize(
    "definition, column, internal, note",
    [
        ("111776", "acd_ext_mm", 3.18, "derived"),
        ("111777", "acd_mm", 3.72, None),
        (None, "acd_ext_mm", None, "depth_undeclared"),
        ("77", None, None, "depth_unknown"),
    ],
)
def test_which_depth_is_said_and_never_guessed(read, definition, column, internal, note):
    made = read(axial(an_eye(**GOOD), definition=definition))
    row = made.eyes.iloc[0]
    assert column is None or row[column] == 3.72
    assert row.get("acd_mm") == internal
    assert (column == "acd_ext_mm") == ("acd_ext_mm" in made.eyes)
    assert {c for _, c, _ in codes(made)} == ({note} if note else set())


def test_external_depth_without_a_cornea_is_not_turned_into_an_internal_one(read):
    made = read(axial(an_eye(chamber=3.72, lens=3.61)))
    assert made.eyes["acd_ext_mm"].tolist() == [3.72] and "acd_mm" not in made.eyes


@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian]
)
def test_transfer_syntaxes_give_the_same_row(read, syntax):
    made = read(axial(an_eye(**GOOD)), syntax=syntax)
    assert made.eyes.drop(columns="eye_id").to_dict("list") == read(axial(an_eye(**GOOD))).eyes.drop(
        columns="eye_id"
    ).to_dict("list")


@pytest.mark.parametrize("status", ["397559001", "309523001", "370951003", "24010005"])
def test_an_eye_measured_after_surgery_is_held_back(read, status):
    made = read(axial(an_eye(**GOOD), an_eye(status=status, **GOOD)))
    assert made.eyes["eye"].tolist() == ["OD"] and (2, "lens_status", "block") in codes(made)
    (held,) = made.eyes.attrs["held"]
    assert held["row"] == 2 and held["acd_ext_mm"] == "3.72"


def test_an_unstated_lens_is_a_warning(read):
    assert (1, "lens_status", "warn") in codes(read(axial(an_eye(status=None, **GOOD))))


def test_scans_that_disagree_are_not_averaged(read):
    def scan(mm):
        return item(
            OphthalmicAxialLengthMeasurementsType="TOTAL LENGTH",
            OphthalmicAxialLengthMeasurementsTotalLengthSequence=one(OphthalmicAxialLength=mm),
        )

    def unselected(*mm):
        eye = item(LensStatusCodeSequence=code("247049005", "SCT"))
        eye.OphthalmicAxialLengthMeasurementsSequence = Sequence([scan(v) for v in mm])
        return axial(eye)

    assert read(unselected(26.4)).eyes["al_mm"].tolist() == [26.4]
    assert read(unselected(26.4, 26.4)).eyes["al_mm"].tolist() == [26.4]
    made = read(unselected(26.4, 26.9))
    assert "al_mm" not in made.eyes and (1, "not_selected", "warn") in codes(made)


def test_hard_limits_block_and_nothing_is_lost(read):
    made = read(axial(an_eye(**{**GOOD, "cornea": 0.054})))
    assert len(made.eyes) == 0 and made.eyes.attrs["intake"]["quarantined"] == 1
    (bad,) = [r for r in made.eyes.attrs["quarantine"] if r["severity"] == "block"]
    assert (bad["column"], bad["code"], bad["value"]) == ("cct_um", "hard", "54.0") and made.eyes.attrs["held"]


# DICOM: cornea


def test_keratometry_is_the_mean_of_two_meridians(read):
    def made(**flat):
        eye = item(SteepKeratometricAxisSequence=one(KeratometricPower=44.25), FlatKeratometricAxisSequence=one(**flat))
        if "RadiusOfCurvature" in flat and flat.pop("index", None):
            eye.KeratometerIndex = 1.3375
        return read(an_object(uid.KeratometryMeasurementsStorage, KeratometryRightEyeSequence=Sequence([eye])))

    assert made(KeratometricPower=43.75).eyes["k_d"].tolist() == [44.0]
    alone = made(RadiusOfCurvature=7.75)
    assert "k_d" not in alone.eyes and (1, "incomplete", "warn") in codes(alone)


def test_a_typed_diameter_is_not_a_measurement(read):
    def made(source):
        size = one(CornealSize=11.8, SourceOfCornealSizeDataCodeSequence=code(source))
        eye = Sequence([item(CornealSizeSequence=size)])
        return read(an_object(uid.IntraocularLensCalculationsStorage, IntraocularLensCalculationsLeftEyeSequence=eye))

    assert made("111780").eyes[["eye", "wtw_mm", "wtw_device"]].values.tolist() == [["OS", 11.8, "IOLMaster 700"]]
    assert "wtw_mm" not in made("113857").eyes


# DICOM: pages, damage, strangers

PDF = b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n"


def page(pdf=PDF, **more):
    kind = dict(MIMETypeOfEncapsulatedDocument="application/pdf", EncapsulatedDocument=pdf)
    return an_object(uid.EncapsulatedPDFStorage, **{**kind, **more})


@pytest.mark.parametrize("extra", [b"", b" "])
def test_a_page_comes_out_as_it_went_in(read, extra):
    made = read(page(PDF + extra, Laterality="L"))
    assert (made.pdf, made.eye, made.exam_date) == (PDF + extra, "OS", pd.Timestamp("2026-01-31")) and not len(
        made.eyes
    )
    assert read(page(ImageLaterality="B")).eye is None and read(page()).eye is None


def test_pages_that_cannot_be_used(read):
    for broken in (
        page(Laterality="R", ImageLaterality="L"),
        page(PDF[:20]),
        page(b"{\\rtf1}"),
        page(EncapsulatedDocumentLength=4000),
        page(MIMETypeOfEncapsulatedDocument="text/XML"),
    ):
        with pytest.raises(InputError):
            read(broken)


@pytest.mark.parametrize("open_ends", [False, True])
def test_a_cut_file_loses_no_eye_in_silence(read, open_ends):
    whole = as_bytes(axial(an_eye(**GOOD), an_eye(**GOOD), MeasurementLaterality="B"), open_ends=open_ends)
    assert len(read(whole).eyes) == 2
    survived = 0
    for end in range(300, len(whole)):
        try:
            made = read(whole[:end])
        except InputError:
            continue
        survived += 1
        assert made.eyes["eye"].tolist() == ["OD", "OS"] and made.eyes["acd_ext_mm"].tolist() == [3.72, 3.72]
        assert (1, "depth_undeclared", "warn") in codes(made) or made.eyes["acd_mm"].tolist() == [3.18, 3.18]
    assert survived < 20  # cut after the last eye, inside a word about the depth


def test_strangers_are_refused_by_name(read, tmp_path):
    with pytest.raises(InputError, match="CT Image Storage"):
        read(an_object(uid.CTImageStorage))
    with pytest.raises(InputError, match="announces other eyes"):
        read(axial(an_eye(**GOOD), MeasurementLaterality="B"))
    with pytest.raises(InputError, match="cannot be read as DICOM"):
        read(b"Dear colleague, the eye was 26.4 mm long")
    with pytest.raises(InputError, match="cannot be opened"):
        read_dicom(tmp_path / "absent.dcm")


@settings(max_examples=60)
@given(data=st.binary(max_size=400))
def test_bytes_of_any_kind_never_crash(data):
    from lensnb.standards import open_dicom

    for head in (b"", b"\0" * 128 + b"DICM"):
        with pytest.raises(InputError):
            open_dicom(head + data)


def test_damaged_bytes_are_read_or_refused_and_never_crash(read):
    rng = np.random.default_rng(3)
    whole = as_bytes(axial(an_eye(**GOOD), an_eye(**GOOD)))
    outcomes = []
    for _ in range(120):
        bad = bytearray(whole)
        for place in rng.integers(300, len(bad), rng.integers(1, 4)):
            bad[place] = rng.integers(256)
        try:
            facts = read(bytes(bad)).eyes.attrs["intake"]
            outcomes.append(facts["received"] == facts["accepted"] + facts["quarantined"])
        except InputError:
            outcomes.append(None)
    assert outcomes.count(True) > 20 and outcomes.count(None) > 20 and False not in outcomes


def test_a_missing_extra_is_named(read, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"lensnb\[dicom\]"):
        read(b"anything")


# Nobody is named

NAMES = st.from_regex(r"Qx[a-zA-Z]{2,9}", fullmatch=True)  # no word of a message begins like that


@settings(max_examples=25)
@given(
    name=NAMES,
    first=NAMES,
    number=st.from_regex(r"[A-Z]{2}[0-9]{5,8}", fullmatch=True),
    birth=st.dates(date(1960, 1, 1), date(2005, 1, 1)),
)
def test_no_identity_leaves(tmp_path_factory, name, first, number, birth):
    folder = tmp_path_factory.mktemp("dicom")
    who = dict(PatientName=f"{name}^{first}", PatientID=number, PatientBirthDate=f"{birth:%Y%m%d}")
    for k, ds in enumerate((axial(an_eye(**GOOD), an_eye(**{**GOOD, "cornea": 0.05}), **who), page(**who))):
        (folder / f"{number}.dcm").write_bytes(as_bytes(ds))
        made = read_dicom(
            folder / f"{number}.dcm",
            pseudonym=lambda n: "p-" + uuid.uuid5(uuid.NAMESPACE_OID, n).hex[:16],
            age=lambda born, day: (day - born).days // 365.25,
        )
        seen = repr((made, made.eyes.to_dict(), made.eyes.attrs)).casefold()
        hidden = [
            name,
            first,
            number,
            f"{birth:%Y%m%d}",
            birth.isoformat(),
            "Opera",
            "SN1234567",
            "ACC778899",
            "Nowhere",
        ]
        assert not [h for h in hidden if h.casefold() in seen]
        if k == 0:
            assert (
                made.eyes["age_y"].between(17, 80).all()
                and made.eyes["patient_id"].str.fullmatch("p-[0-9a-f]{16}").all()
            )
            assert made.eyes["eye_id"].tolist() == [made.eyes["patient_id"].iloc[0] + "-OD"]
            assert number.casefold() not in json.dumps(to_fhir(made.eyes)).casefold()


def test_a_pseudonym_that_is_the_number_is_refused(read):
    with pytest.raises(InputError, match="own number"):
        read(axial(an_eye(**GOOD)), pseudonym=lambda n: f"p-{n}")
    with pytest.raises(InputError, match="no patient"):
        read(axial(an_eye(**GOOD), PatientID=""), pseudonym=lambda n: "p-1")


def test_a_name_in_the_model_field_is_dropped(read):
    made = read(axial(an_eye(**GOOD), ManufacturerModelName="OCT of Zweistein"))
    assert made.device == "" and "device" not in made.eyes


def test_the_house_functions_of_identity_fit(read):
    identity = pytest.importorskip("lensnb.identity")
    key = bytes(range(32))
    made = read(axial(an_eye(**GOOD)), pseudonym=lambda n: identity.pseudonym(key, "alder", n), age=identity.age_at)
    assert made.eyes["patient_id"].tolist() == [identity.pseudonym(key, "alder", "H-0042-77")]
    assert made.eyes["age_y"].tolist() == [31.0]


# FHIR: what R4 asks of an Observation and a Bundle, written down again from the standard

OBSERVATION = set(
    """resourceType id meta implicitRules language text contained extension modifierExtension identifier basedOn
    partOf status category code subject focus encounter effectiveDateTime effectivePeriod effectiveTiming
    effectiveInstant issued performer valueQuantity valueCodeableConcept valueString valueBoolean
    valueInteger valueRange valueRatio valueSampledData valueTime valueDateTime valuePeriod dataAbsentReason
    interpretation note bodySite method specimen device referenceRange hasMember derivedFrom component""".split()
)
STATUS = {"registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error", "unknown"}
DAY = r"[12]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
URI = r"(urn:[a-z]+:\S+|http://\S+)"


def check_concept(c):
    assert set(c) <= {"coding", "text"} and c["coding"] and c["text"]
    for coding in c["coding"]:
        assert set(coding) <= {"system", "version", "code", "display", "userSelected"}
        assert re.fullmatch(URI, coding["system"]) and re.fullmatch(r"\S+( \S+)*", coding["code"])


def check_reference(r):
    assert set(r) <= {"reference", "type", "identifier", "display"}
    assert set(r["identifier"]) == {"system", "value"} and re.fullmatch(URI, r["identifier"]["system"])


def check_observation(o):
    assert o["resourceType"] == "Observation" and set(o) <= OBSERVATION and o["status"] in STATUS
    check_concept(o["code"])
    for concept in [*o["category"], *([o["bodySite"]] if "bodySite" in o else [])]:
        check_concept(concept)
    for reference in [o["subject"], o["encounter"], *o["focus"], *o.get("performer", [])]:
        check_reference(reference)
    assert sum(k.startswith("value") for k in o) == 1 and sum(k.startswith("effective") for k in o) <= 1
    assert re.fullmatch(DAY, o.get("effectiveDateTime", "2026-01-01"))
    if q := o.get("valueQuantity"):
        assert set(q) == {"value", "unit", "system", "code"} and isinstance(q["value"], float)
        assert q["system"] == "http://unitsofmeasure.org" and q["code"] in {"mm", "um", "[diop]", "deg", "a", "d", "1"}


def check_bundle(b):
    assert b["resourceType"] == "Bundle" and b["type"] == "collection" and set(b) <= {"resourceType", "type", "entry"}
    assert b.get("entry", [0]), "an empty list is not valid JSON of FHIR"
    names = [e["fullUrl"] for e in b.get("entry", [])]
    assert len(names) == len(set(names)) and all(re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", n) for n in names)
    for e in b.get("entry", []):
        assert set(e) == {"fullUrl", "resource"}
        check_observation(e["resource"])
    assert json.loads(json.dumps(b, allow_nan=False)) == b


def table():
    return pd.DataFrame(
        {
            "eye_id": ["e1", "e2", "e1"],
            "patient_id": ["p1", "p1", "p1"],
            "eye": ["OD", "OS", "OD"],
            "clinic_id": "c1",
            "exam_date": pd.to_datetime(["2026-01-02", "2026-01-02", "2026-05-02"]),
            "surgery_date": pd.to_datetime(["2026-02-01", "2026-02-01", None]),
            "age_y": [31.0, 31.0, 32.0],
            "size_mm": [13.2, 13.2, np.nan],
            "icl_se_d": [-10.25, -9.75, np.nan],
            "ata_mm": [12.21, 12.18, 12.2],
            "k_d": [44.005, np.nan, 44.0],
            "aca_deg": [41.35, 40.0, np.nan],
            "clr_um": [0.0, -120.0, 10.0],
            "orientation": ["horizontal", None, None],
            "vault_um": [640.0, 0.0, np.nan],
            "vault_day": [30.0, np.nan, np.nan],
            "vault_device": ["AS-OCT", None, None],
        }
    )


def observations(bundle, name):
    return [e["resource"] for e in bundle["entry"] if e["resource"]["code"]["coding"][0]["code"] == name]


def test_the_bundle_is_what_the_standard_asks():
    check_bundle(to_fhir(table()))
    check_bundle(to_fhir(table().head(0)))
    assert to_fhir(table()) == to_fhir(table())


def test_the_checks_of_this_test_can_fail():
    for spoil in (
        lambda o: o.pop("status"),
        lambda o: o.update(status="done"),
        lambda o: o.update(value=3),
        lambda o: o["code"].pop("coding"),
        lambda o: o.update(effectiveDateTime="31.01.2026"),
    ):
        broken = to_fhir(table())
        spoil(broken["entry"][0]["resource"])
        with pytest.raises((AssertionError, KeyError)):
            check_bundle(broken)


def test_there_and_back():
    there = table()
    back = from_fhir(json.loads(json.dumps(to_fhir(there))))
    there = check_eyes(there)[[c for c in FIELDS if c in there]]
    pd.testing.assert_frame_equal(back, there, check_dtype=False)


@settings(max_examples=60)
@given(st.data())
def test_any_row_comes_back(data):
    numbers = [f for f in FIELDS.values() if f.kind == "number"]
    row = {"eye_id": "e1", "patient_id": "p1", "eye": data.draw(st.sampled_from(["OD", "OS"]))}
    for f in data.draw(st.lists(st.sampled_from(numbers), min_size=1, max_size=6, unique_by=lambda f: f.name)):
        row[f.name] = data.draw(st.floats(*map(float, f.hard), allow_nan=False))
    back = from_fhir(json.loads(json.dumps(to_fhir(pd.DataFrame([row])))))
    assert back.iloc[0].to_dict() == row


def test_the_vault_is_labelled_and_never_dated_with_the_examination():
    bundle = to_fhir(table())
    first, second = observations(bundle, "vault_um")
    phases = [c["coding"][0]["code"] for c in first["category"]]
    assert "post-operative" in phases and "after surgery" in first["code"]["text"]
    assert first["effectiveDateTime"] == "2026-03-03" and "effectiveDateTime" not in second
    assert observations(bundle, "ata_mm")[0]["effectiveDateTime"] == "2026-01-02"
    for name, field in FIELDS.items():
        for o in observations(bundle, name):
            assert ("post-operative" in [c["coding"][0]["code"] for c in o["category"]]) == (not field.preop)


def test_sides_units_and_zero():
    bundle = to_fhir(table())
    right, left = observations(bundle, "vault_um")
    assert right["bodySite"]["coding"][0]["code"] == "24028007" and left["bodySite"]["coding"][0]["code"] == "7771000"
    assert left["valueQuantity"]["value"] == 0.0 and observations(bundle, "clr_um")[0]["valueQuantity"]["value"] == 0.0
    assert observations(bundle, "k_d")[0]["valueQuantity"]["code"] == "[diop]" and set(SIDES) == {"OD", "OS"}
    assert {f.unit for f in FIELDS.values() if f.unit} <= set(UCUM)


@pytest.mark.parametrize("who", ["Zweistein", "Alberta Zweistein", "12345678", "", None])
def test_what_looks_like_a_name_stays(who):
    for column in ("patient_id", "eye_id"):
        with pytest.raises(InputError, match="pseudonym"):
            to_fhir(table().assign(**{column: who}))


def test_remarks_and_missing_identities():
    assert "secret" not in json.dumps(to_fhir(table().assign(remark="secret")))
    with pytest.raises(InputError, match="patient_id"):
        to_fhir(table().drop(columns="patient_id"))


def test_the_way_back_is_strict():
    def altered(change):
        bundle = to_fhir(table())
        change(observations(bundle, "ata_mm")[0])
        return bundle

    with pytest.raises(InputError, match="another unit"):
        from_fhir(altered(lambda o: o["valueQuantity"].update(code="um")))
    with pytest.raises(InputError, match="disagree"):
        from_fhir(altered(lambda o: o["bodySite"]["coding"][0].update(code="7771000")))
    with pytest.raises(InputError):
        from_fhir(altered(lambda o: o["valueQuantity"].update(value=1221.0)))
    foreign = altered(lambda o: o["code"]["coding"][0].update(system="http://loinc.org"))
    assert np.isnan(from_fhir(foreign).loc[0, "ata_mm"])
    with pytest.raises(InputError):
        from_fhir({"resourceType": "Patient"})


def test_reading_is_quiet(read):
    with warnings.catch_warnings(action="ignore"):
        odd = as_bytes(axial(an_eye(**GOOD), PatientBirthDate="00000000"))
    with warnings.catch_warnings(action="error"):
        assert "age_y" not in read(odd, age=lambda born, day: 30).eyes
