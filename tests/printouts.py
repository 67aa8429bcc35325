"""Invented printouts of eye devices, to try the reading of documents on: four layouts, Korean labels, every damage.

Nothing here belongs to a person: names, numbers and values come from a random generator. A printout knows its own
truth, so a reader can be marked: `make(seed)` gives the file's bytes, the values that stand on it, and the identity
that must not come out. The same seed gives the same page.
"""

import io
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

WIDTH, HEIGHT = 1240, 1754  # A4 at 150 dots an inch
LAYOUTS = ("tomography", "oct", "biometry", "planning")
DAMAGES = ("pdf text", "clean", "pdf image", "skew", "jpeg", "noise", "blur", "faint", "photo", "small", "scan", "fax")
READABLE = DAMAGES[:-1]  # a person reads these at arm's length; a fax at fax resolution is to be refused
FONTS = ("NanumGothic", "NanumBarunGothic", "NanumSquareR", "NanumGothicBold", "NanumBarunGothicBold")
FONT_FOLDER = Path("/usr/share/fonts/truetype/nanum")
NO_FONTS = None if FONT_FOLDER.is_dir() else "invented printouts need Korean fonts: apt install fonts-nanum"
FAMILY = ("김", "이", "박", "최", "정", "Hong", "Seo")
GIVEN = ("하늘", "가온", "다솜", "로운", "Mina", "Jisu", "Arin")


@dataclass
class Printout:
    """One page as a file, with what is printed on it."""

    name: str  # file name, extension included
    data: bytes
    layout: str
    damage: str
    truth: dict = field(default_factory=dict)  # (eye, field) -> value in the field's unit
    identity: tuple = ()  # words that must not come out
    patient: str = ""
    exam_date: str = ""
    language: int = 0  # 0 Latin labels, 1 Korean only, 2 both

    def write(self, folder) -> Path:
        path = Path(folder) / self.name
        path.write_bytes(self.data)
        return path


# What an eye measures


def invent_eye(rng) -> dict:
    """Values of one invented eye on the grid on which devices print them."""
    acd, ata = rng.normal(3.2, 0.25), rng.normal(12.1, 0.4)
    cct, k = rng.normal(540, 32), rng.normal(43.5, 1.4)
    size = rng.choice([12.1, 12.6, 13.2, 13.7], p=[0.1, 0.4, 0.4, 0.1])
    eye = dict(
        acd_mm=(acd, 2.4, 4.4, 2), ata_mm=(ata, 10.8, 13.5, 2), acw_mm=(ata - rng.normal(0.3, 0.2), 10.2, 13.5, 2),
        sts_h_mm=(ata - rng.normal(0.2, 0.3), 10.6, 13.5, 2), sts_v_mm=(ata + rng.normal(0.3, 0.3), 10.6, 13.6, 2),
        wtw_mm=(ata - rng.normal(0.37, 0.3), 10.4, 13.0, 1), lt_mm=(rng.normal(3.7, 0.26), 2.9, 4.7, 2),
        clr_um=(10 * round(rng.normal(12, 22)), -480, 880, 0), cct_um=(cct, 440, 650, 0), k_d=(k, 38, 48.5, 2),
        aca_deg=(rng.normal(38, 6), 20, 64, 1), al_mm=(rng.normal(26.5, 1.2), 22, 32, 2),
        pupil_mm=(rng.normal(3.6, 0.6), 2.2, 6.5, 2), vault_um=(10 * round(rng.normal(48, 20)), 60, 1400, 0),
        icl_se_d=(0.25 * round(rng.normal(-40, 12)), -18, -3, 2), size_mm=(size, 12.1, 13.7, 1),
    )  # fmt: skip
    eye = {name: round(float(np.clip(v, lo, hi)), d) for name, (v, lo, hi, d) in eye.items()}
    return eye | dict(acd_ext_mm=round(eye["acd_mm"] + eye["cct_um"] / 1000, 2))


DECIMALS = dict(clr_um=0, cct_um=0, vault_um=0, wtw_mm=1, aca_deg=1, size_mm=1)
UNITS = dict(clr_um="\u03bcm", cct_um="\u03bcm", vault_um="\u03bcm", aca_deg="°", k_d="D", icl_se_d="D")
LABELS = {  # Latin only, Korean only, both; a page takes one column
    "acd_mm": ("ACD (Int.)", "내측 전방깊이", "전방깊이 ACD (Int.)"),
    "acd_ext_mm": ("ACD (Ext.)", "외측 전방깊이", "전방깊이 ACD (Ext.)"),
    "ata_mm": ("ATA", "각간거리", "각간거리 ATA"),
    "acw_mm": ("ACW", "전방너비", "전방너비 ACW"),
    "sts_h_mm": ("STS-H", "수평 섬모체구거리", "섬모체구거리 STS-H"),
    "sts_v_mm": ("STS-V", "수직 섬모체구거리", "섬모체구거리 STS-V"),
    "wtw_mm": ("WTW", "각막직경", "각막직경(WTW)"),
    "lt_mm": ("LT", "수정체두께", "수정체두께 LT"),
    "clr_um": ("CLR", "수정체융기", "수정체융기 CLR"),
    "cct_um": ("CCT", "중심각막두께", "중심각막두께 CCT"),
    "k_d": ("Km", "평균 각막곡률", "평균 각막곡률 Km"),
    "aca_deg": ("ACA", "전방각", "전방각 ACA"),
    "al_mm": ("AL", "안축장", "안축장 AL"),
    "pupil_mm": ("Pupil Dia", "동공크기", "동공 Pupil Dia"),
    "vault_um": ("Vault", "볼트", "볼트 Vault"),
    "icl_se_d": ("ICL SE", "렌즈도수", "렌즈도수 ICL SE"),
    "size_mm": ("ICL Size", "렌즈크기", "렌즈크기 ICL Size"),
}
LONG = {"wtw_mm": ("White to White", "W-T-W", "HVID"), "ata_mm": ("Angle to Angle",), "lt_mm": ("Lens Thickness",),
        "clr_um": ("Crystalline Lens Rise",), "al_mm": ("Axial Length",), "k_d": ("Mean K",)}  # fmt: skip
SIDES = {"OD": ("OD", "OD (우안)", "Right (OD)", "우안 OD", "OD (Right)"),
         "OS": ("OS", "OS (좌안)", "Left (OS)", "좌안 OS", "OS (Left)")}  # fmt: skip


# A page is a list of things to draw


class Canvas:
    """Collects what to draw in page units; drawn later as a picture or as a PDF with text."""

    def __init__(self, rng, comma=False):
        self.rng, self.items, self.comma, self.truth = rng, [], comma, {}
        self.font = FONTS[rng.integers(len(FONTS))]
        self.language = rng.choice(3, p=[0.5, 0.08, 0.42])  # Latin, Korean only, both
        self.styles = {n: rng.integers(3) for n in LABELS}

    def text(self, x, y, words, size=24, right=False, colour=0):
        self.items.append(("text", x, y, str(words), size, right, colour))

    def line(self, *xy):
        self.items.append(("line", *xy))

    def patch(self, x, y, w, h, kind):
        self.items.append(("patch", x, y, w, h, kind, int(self.rng.integers(2**31))))

    def label(self, name):
        if self.language == 0 and name in LONG and self.styles[name] == 0:
            return LONG[name][self.rng.integers(len(LONG[name]))]
        return LABELS[name][self.language]

    def number(self, value, decimals):
        written = f"{value:.{decimals}f}"
        if value < 0 and self.rng.random() < 0.3:
            written = written.replace("-", "\u2013")  # the Nanum fonts have this dash and no minus sign
        return written.replace(".", ",") if self.comma else written

    def value(self, eye, name, values):
        """The number of a field as it is printed, and a note of it in the truth."""
        self.truth[eye, name] = values[name]
        return self.number(values[name], DECIMALS.get(name, 2))


def identity_band(page, title, single=None):
    """An invented person on top, as devices print it; returns the words that must not come out."""
    rng = page.rng
    name = FAMILY[rng.integers(len(FAMILY))] + " " + GIVEN[rng.integers(len(GIVEN))]
    number = f"{rng.integers(10_000_000, 99_999_999)}"
    born = f"{rng.integers(1975, 2004)}-{rng.integers(1, 13):02d}-{rng.integers(1, 28):02d}"
    exam = f"{rng.integers(2021, 2026)}-{rng.integers(1, 13):02d}-{rng.integers(1, 28):02d}"
    page.text(70, 50, title, 34)
    page.text(70, 110, f"Name 이름: {name}")
    page.text(650, 110, f"Patient ID: {number}")
    page.text(70, 148, f"Date of birth: {born}")
    page.text(650, 148, f"Exam date: {exam}")
    if rng.random() < 0.6:
        page.line(60, 196, WIDTH - 60, 196)
    return (name, number, born), number, exam


# Four layouts


def tomography(page, eyes):
    """Both eyes side by side, every label printed twice, colour maps below with numbers in them."""
    rng, side = page.rng, page.rng.integers(len(SIDES["OD"]))
    shown = ["cct_um", "k_d", "acd_mm", "aca_deg", "wtw_mm", "pupil_mm", "acd_ext_mm"]
    order = list(rng.permutation(shown))
    step = int(rng.integers(40, 50))
    for eye, x in (("OD", 70), ("OS", 660)):
        page.text(x + rng.integers(-6, 7), 230, SIDES[eye][side], 30)
        y = 300
        for label, words in (("K1", "D"), ("K2", "D"), ("Axis", "°")):
            v = eyes[eye]["k_d"] + rng.normal(0, 0.5) if words == "D" else rng.integers(0, 180)
            page.text(x, y, label)
            page.text(x + 400, y, page.number(v, 2 if words == "D" else 0), right=True)
            page.text(x + 412, y, words)
            y += step
        for name in order:
            page.text(x, y, page.label(name))
            page.text(x + 400, y, page.value(eye, name, eyes[eye]), right=True)
            page.text(x + 412, y, UNITS.get(name, "mm"))
            y += step
        page.text(x, y, "ACV")
        page.text(x + 400, y, f"{rng.integers(120, 260)}", right=True)
        page.text(x + 412, y, "mm³")
        page.patch(x, y + 90, 480, 480, "map")
        for _ in range(9):
            page.text(x + rng.integers(20, 420), y + 100 + rng.integers(20, 420), rng.integers(480, 620), 20)


def oct_single(page, eyes):
    """One eye; a grey picture of the chamber; lens rise in micrometres or, stated, in millimetres."""
    rng, eye = page.rng, ("OD", "OS")[page.rng.integers(2)]
    values, side = eyes[eye], page.rng.integers(len(SIDES["OD"]))
    page.text(70, 220, ("Eye: " if rng.random() < 0.3 else "") + SIDES[eye][side], 32)
    page.patch(70, 290, 1100, 330, "oct")
    after = rng.random() < 0.15
    shown = ["ata_mm", "acw_mm", "clr_um", "acd_mm", "acd_ext_mm", "lt_mm", "cct_um", "aca_deg"]
    shown, y = list(rng.permutation(shown)) + (["vault_um"] if after else []), 670
    in_mm = rng.random() < 0.25
    for name in shown:
        page.text(90, y, page.label(name) + ":" * int(rng.integers(2)))
        if name == "clr_um" and in_mm:
            page.truth[eye, name] = values[name]
            page.text(620, y, page.number(values[name] / 1000, 2), right=True)
            page.text(632, y, "mm")
        else:
            page.text(620, y, page.value(eye, name, values), right=True)
            page.text(632, y, UNITS.get(name, "mm"))
        y += 52
    others = [("AOD500 (N)", f"{rng.uniform(0.4, 0.9):.3f} mm"), ("TISA500 (T)", f"{rng.uniform(0.1, 0.4):.3f} mm²")]
    others += [("LV", f"{rng.integers(-300, 300)} \u03bcm"), ("Quality", f"{rng.integers(6, 10)}/10")]
    for label, v in others:
        page.text(90, y, label)
        page.text(420, y, v)
        y += 52


def biometry(page, eyes):
    """Both eyes, decimal commas, label and number in one string; "SE" here is a keratometry; depth is external."""
    rng, side = page.rng, page.rng.integers(len(SIDES["OD"]))
    page.comma = rng.random() < 0.8
    glue = "" if rng.random() < 0.4 else " "
    for eye, x in (("OD", 70), ("OS", 660)):
        values = eyes[eye]
        page.text(x + 200 * (side % 2), 230, SIDES[eye][side], 30)
        y = 310
        for name in ("al_mm", "cct_um", "acd_ext_mm", "lt_mm", "wtw_mm", "pupil_mm"):
            label = page.label(name)
            if name == "acd_ext_mm" and page.language != 1:
                label = "ACD"
            page.text(x, y, f"{label}: {page.value(eye, name, values)}{glue}{UNITS.get(name, 'mm')}")
            page.text(x + 420, y, f"SD: {rng.integers(3, 30)} \u03bcm", 20)
            y += 54
        k1, k2 = values["k_d"] - abs(rng.normal(0.4, 0.3)), values["k_d"] + abs(rng.normal(0.4, 0.3))
        page.text(x, y, f"SE: {page.number(values['k_d'] + 0.01, 2)} D")
        page.text(x, y + 54, f"K1: {page.number(k1, 2)} D @ {rng.integers(0, 180)}°")
        page.text(x, y + 108, f"K2: {page.number(k2, 2)} D @ {rng.integers(0, 180)}°")
        page.text(x, y + 162, f"{page.label('k_d')}: {page.value(eye, 'k_d', values)} D")
    page.text(70, 900, "n: 1,3375   Ref. 12 mm", 20)


def planning(page, eyes):
    """A table: quantities down, eyes across, units in the row headings; a cell may be empty."""
    rng, side = page.rng, page.rng.integers(len(SIDES["OD"]))
    page.comma = rng.random() < 0.3
    columns, y, ruled = {"OD": 640, "OS": 960}, 240, rng.random() < 0.5
    for eye, x in columns.items():
        page.text(x + 50, y, SIDES[eye][side], 26, right=True)
    names = ["icl_se_d", "size_mm", "wtw_mm", "ata_mm", "sts_h_mm", "sts_v_mm", "clr_um", "acd_mm", "cct_um", "lt_mm",
             "k_d", "aca_deg"]  # fmt: skip
    y += 60
    for name in names:
        page.text(90, y, f"{page.label(name)} [{UNITS.get(name, 'mm')}]")
        for eye, x in columns.items():
            gone = rng.random() < 0.06
            page.text(x + 20, y, ("---", "N/A", "-9999")[rng.integers(3)] if gone else page.value(eye, name, eyes[eye]),
                      right=True)  # fmt: skip
        if ruled:
            page.line(80, y + 40, 1080, y + 40)
        y += 52
    if ruled:
        for x in (480, 740, 1080):
            page.line(x, 232, x, y - 12)
    page.text(90, y + 60, "Comment: OU dominant OD, target plano", 22)


DRAW = {"tomography": (tomography, ("Scheimpflug Tomography", "Pentacam 4 Maps")),
        "oct": (oct_single, ("AS-OCT Anterior Segment", "CASIA2 Lens Analysis")),
        "biometry": (biometry, ("IOLMaster 700 Biometry", "IOLMaster 700")),
        "planning": (planning, ("UBM / AS-OCT ICL Planning", "ICL Planning Sheet"))}  # fmt: skip


# From drawings to bytes


def _font(name, size):
    from PIL import ImageFont

    return ImageFont.truetype(str(FONT_FOLDER / f"{name}.ttf"), size)


def _patch(w, h, kind, seed):
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[0:h, 0:w] / max(w, h)
    if kind == "map":
        base = np.stack([np.sin(3 * xx + p) * np.cos(4 * yy - p) for p in (0.2, 1.4, 2.9)], -1)
        return (175 + 70 * base).clip(0, 255).astype(np.uint8)
    band = np.exp(-(((yy - 0.05 - 0.6 * (xx - 0.5) ** 2) * 26) ** 2)) * 150
    return (band[..., None] + rng.gamma(2, 12, (h, w, 1))).clip(0, 235).astype(np.uint8).repeat(3, -1)


def picture(page):
    """The page as an RGB picture."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    for kind, *rest in page.items:
        if kind == "patch":
            x, y, w, h, what, seed = rest
            image.paste(Image.fromarray(_patch(w, h, what, seed)), (int(x), int(y)))
        elif kind == "line":
            pen.line(rest, fill=(120, 120, 120), width=2)
        else:
            x, y, words, size, right, colour = rest
            pen.text((x, y), words, font=_font(page.font, size), fill=(colour,) * 3, anchor="ra" if right else "la")
    return image


def text_pdf(page) -> bytes:
    """The page as a PDF whose text can be selected."""
    import ctypes

    import pypdfium2 as pdfium
    import pypdfium2.raw as raw

    scale, pdf = 72 / 150, pdfium.PdfDocument.new()
    sheet = pdf.new_page(WIDTH * scale, HEIGHT * scale)
    font = (FONT_FOLDER / f"{page.font}.ttf").read_bytes()
    data = (ctypes.c_uint8 * len(font)).from_buffer_copy(font)
    handle = raw.FPDFText_LoadFont(pdf, data, len(font), raw.FPDF_FONT_TRUETYPE, 1)
    for kind, *rest in page.items:
        if kind != "text":
            continue
        x, y, words, size, right, _ = rest
        shape = _font(page.font, size)
        x, y = x - right * shape.getlength(words), y + shape.getmetrics()[0]
        item = raw.FPDFPageObj_CreateTextObj(pdf, handle, size * scale)
        coded = (words + "\0").encode("utf-16-le")
        raw.FPDFText_SetText(item, ctypes.cast(ctypes.create_string_buffer(coded), ctypes.POINTER(ctypes.c_ushort)))
        raw.FPDFPageObj_Transform(item, 1, 0, 0, 1, x * scale, (HEIGHT - y) * scale)
        raw.FPDFPage_InsertObject(sheet, item)
    sheet.gen_content()
    out = io.BytesIO()
    pdf.save(out)
    pdf.close()
    return out.getvalue()


# Damage


def _blur(image, radius):
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(radius))


def _noise(image, rng, sd):
    from PIL import Image

    pixels = np.asarray(image).astype(np.float32)
    pixels += rng.normal(0, sd, pixels.shape[:2])[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _skew(image, degrees):
    from PIL import Image

    return image.rotate(degrees, resample=Image.BICUBIC, fillcolor="white")


def _encode(image, suffix, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, suffix, **options)
    return out.getvalue()


def _fax(image):
    from PIL import Image

    small = image.convert("L").resize((864, 1143), Image.BILINEAR)
    return small.point(lambda v: 255 if v > 150 else 0).convert("1")


def _faint(image, rng):
    """Toner is running out: the ink is grey, unevenly."""
    from PIL import Image

    ink = np.linspace(*rng.uniform(0.35, 0.7, 2), image.width)[:, None]
    pixels = 255 - (255 - np.asarray(image).astype(np.float32)) * ink
    return _noise(Image.fromarray(pixels.astype(np.uint8)), rng, rng.uniform(2, 8))


def _photo(image, rng):
    """Photographed on a desk: one side darker, corners not quite square."""
    from PIL import Image

    w, h = image.size
    bend = rng.uniform(-12, 12, 8)
    corners = [(0, 0), (0, h), (w, h), (w, 0)]
    quad = [v for (x, y), i in zip(corners, range(0, 8, 2)) for v in (x + bend[i], y + bend[i + 1])]
    image = image.transform(image.size, Image.QUAD, quad, Image.BICUBIC, fillcolor="white")
    across, down = np.linspace(*rng.uniform(0.65, 1.0, 2), w), np.linspace(*rng.uniform(0.8, 1.0, 2), h)
    light = across[:, None] * down[:, None, None]
    return _blur(Image.fromarray((np.asarray(image) * light).clip(0, 255).astype(np.uint8)), rng.uniform(0.3, 0.8))


def _small(image, rng):
    """Scanned at 105 to 125 dots an inch."""
    from PIL import Image

    k = rng.uniform(0.7, 0.83)
    return image.resize((round(image.width * k), round(image.height * k)), Image.LANCZOS)


def damaged(image, damage, rng) -> tuple[str, bytes]:
    """File extension and bytes of a picture after an accident."""
    if damage == "clean":
        return "png", _encode(image, "PNG")
    if damage == "pdf image":
        return "pdf", _encode(image, "PDF", resolution=150, quality=int(rng.integers(70, 95)))
    if damage == "skew":
        return "png", _encode(_skew(image, rng.uniform(-3, 3)), "PNG")
    if damage == "jpeg":
        return "jpg", _encode(image, "JPEG", quality=int(rng.integers(18, 50)))
    if damage == "noise":
        return "png", _encode(_noise(image, rng, rng.uniform(10, 40)), "PNG")
    if damage == "blur":
        return "png", _encode(_blur(image, rng.uniform(0.8, 2.0)), "PNG")
    if damage == "faint":
        return "png", _encode(_faint(image, rng), "PNG")
    if damage == "photo":
        return "jpg", _encode(_photo(image, rng), "JPEG", quality=int(rng.integers(60, 85)))
    if damage == "small":
        return "png", _encode(_small(image, rng), "PNG")
    if damage == "scan":
        image = _blur(_skew(image, rng.uniform(-2, 2)), rng.uniform(0.4, 1.2))
        return "jpg", _encode(_noise(image, rng, rng.uniform(3, 15)), "JPEG", quality=int(rng.integers(30, 70)))
    if damage == "fax":
        if rng.random() < 0.5:
            return "png", _encode(_fax(image), "PNG")
        return "jpg", _encode(_fax(image).convert("L"), "JPEG", quality=85)  # a fax that went through a mailbox
    raise ValueError(damage)


def make(seed, layout=None, damage=None) -> Printout:
    """The printout number `seed`; layout and damage go round unless they are given."""
    rng = np.random.default_rng([20261, seed])
    layout = layout or LAYOUTS[seed % len(LAYOUTS)]
    damage = damage or DAMAGES[(seed // len(LAYOUTS)) % len(DAMAGES)]
    page, eyes = Canvas(rng), {eye: invent_eye(rng) for eye in ("OD", "OS")}
    draw, titles = DRAW[layout]
    identity, number, exam = identity_band(page, titles[rng.integers(len(titles))])
    draw(page, eyes)
    page.text(70, HEIGHT - 70, f"Software {rng.integers(1, 5)}.{rng.integers(0, 30):02d}   Page 1/1", 18)
    suffix, data = ("pdf", text_pdf(page)) if damage == "pdf text" else damaged(picture(page), damage, rng)
    name = f"{seed:05d}_{layout}_{damage.replace(' ', '-')}.{suffix}"
    return Printout(name, data, layout, damage, dict(page.truth), identity, number, exam, int(page.language))


def page_truth(printout, fields) -> dict:
    """What a reader that knows only `fields` can be asked for."""
    return {key: v for key, v in printout.truth.items() if key[1] in fields and not math.isnan(v)}
