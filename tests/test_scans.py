"""Pages: upright, judged, and read without a network."""

import io
import socket

import numpy as np
import printouts
import pytest
from PIL import Image

from lensnb.scans import LIMITS, gate, page_count, read_page, read_pages, shades, skew
from lensnb.schema import InputError

pytestmark = pytest.mark.skipif(bool(printouts.NO_FONTS), reason=str(printouts.NO_FONTS))

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


def picture_of(printout) -> Image.Image:
    return Image.open(io.BytesIO(printout.data)).convert("L")


@pytest.mark.parametrize("turn", [-3.0, -1.2, 0.0, 0.6, 2.5])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_angle_of_a_sheet_is_found(seed, turn):
    sheet = picture_of(printouts.make(seed, damage="clean")).rotate(turn, Image.BICUBIC, fillcolor=255)
    assert skew(np.asarray(sheet)) == pytest.approx(turn, abs=0.2)


@pytest.mark.parametrize("seed", range(8))
def test_a_fax_is_refused_however_it_arrives(seed, folder):
    printout = printouts.make(seed, damage="fax")
    page = read_page(printout.write(folder))
    assert "two colours" in page.quality.reason and not page.words
    wrapped = folder / f"{seed}.pdf"
    picture_of(printout).save(wrapped, resolution=100)
    assert "two colours" in read_page(wrapped).quality.reason


@pytest.mark.parametrize("damage", ["clean", "noise", "blur", "faint", "small", "jpeg"])
def test_the_gate_lets_readable_pages_pass(damage):
    grey = np.asarray(picture_of(printouts.make(2, damage=damage)))
    assert shades(grey) > LIMITS["shades"]


def test_every_limit_of_the_gate_refuses_beyond_it_and_not_at_it():
    for name, limit in LIMITS.items():
        worse = limit * (1.01 if name in ("grain", "skew_deg") else 0.99)
        assert gate({name: worse}).reason and not gate({name: limit}).reason
    assert gate(dict(skew_deg=-2 * LIMITS["skew_deg"])).reason


def test_the_text_of_a_pdf_is_taken_as_it_stands(folder):
    printout = printouts.make(3, damage="pdf text")
    page = read_page(printout.write(folder))
    assert page.kind == "text" and all(w.exact for w in page.words)
    assert any("각막" in w.text or "WTW" in w.text or "White" in w.text or "HVID" in w.text for w in page.words)


def test_a_searchable_scan_is_read_as_the_picture_that_it_is(folder):
    """Office scanners hide recognised text under the picture; it looks exact and is not."""
    import ctypes

    import pypdfium2 as pdfium
    import pypdfium2.raw as raw

    scan = folder / "scan.pdf"
    Image.open(io.BytesIO(printouts.make(3, damage="clean").data)).convert("RGB").save(scan, resolution=150)
    pdf = pdfium.PdfDocument(scan)
    for i in range(8):
        item = raw.FPDFPageObj_NewTextObj(pdf, b"Helvetica", 10)
        said = ctypes.create_string_buffer(f"QXJ {i}\0".encode("utf-16-le"))
        raw.FPDFText_SetText(item, ctypes.cast(said, ctypes.POINTER(ctypes.c_ushort)))
        raw.FPDFPageObj_Transform(item, 1, 0, 0, 1, 40, 100 + 30 * i)
        raw.FPDFTextObj_SetTextRenderMode(item, raw.FPDF_TEXTRENDERMODE_INVISIBLE)
        raw.FPDFPage_InsertObject(pdf[0], item)
        pdf[0].gen_content()
    searchable = folder / "searchable.pdf"
    pdf.save(searchable)
    page = read_page(searchable)
    assert page.kind == "picture" and not any(w.exact or "QXJ" in w.text for w in page.words)


def test_a_picture_file_may_hold_several_pages(folder):
    stack = [picture_of(printouts.make(seed, damage="fax")) for seed in (0, 4)]
    stack[0].save(folder / "stack.tiff", save_all=True, append_images=stack[1:])
    assert page_count(folder / "stack.tiff") == 2
    assert [p.number for p in read_pages(folder / "stack.tiff")] == [1, 2]


@pytest.mark.parametrize("name", ["cut.png", "cut.pdf", "cut.jpg", "table.csv", "absent.pdf"])
def test_what_cannot_be_opened_is_an_error_that_names_no_file(name, folder):
    whole = printouts.make(0, damage={"pdf": "pdf image", "jpg": "jpeg"}.get(name[-3:], "clean")).data
    if name != "absent.pdf":
        (folder / name).write_bytes(whole[:300])
    with pytest.raises(InputError) as e:
        read_pages(folder / name)
    assert e.value.remedy and str(folder) not in str(e.value)


def test_a_picture_that_breaks_off_in_the_middle_is_an_error(folder):
    whole = printouts.make(0, damage="clean").data
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError):
        read_pages(folder / "half.png")


def test_reading_needs_no_network(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    from lensnb import scans

    scans.engine.cache_clear()
    page = scans.read_page(printouts.make(7, damage="small").write(folder))
    assert not page.quality.reason and len(page.words) > 10
