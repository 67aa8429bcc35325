"""Reports: what is refused, what a page holds, that it is the same bytes again, and that nothing good is lost."""

import json
import re

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lensnb import page, report
from lensnb.report import InputError, ReportFailed, TemplateError, check_page, render_many, run_report

PARAMETERS = """month: str = None  # required: as 2026-10
n: int = 12
share: float = 0.5
seed: int = 0
data: str = ''  # local: a place on this machine"""
BODY = """import sys, warnings
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from lensnb.report import banner, figure, number, status, table, text
values = np.random.default_rng(seed).normal(600, 200, n)
means = [values[i::3].mean() for i in range(3)]
groups = pd.DataFrame({'group': ['a', 'b', 'c'], 'mean': means, 'n': [n // 3] * 3, 'sd': np.nan})
banner('Made-up <eyes>.')
text('{n} eyes in {month}, cost {cost}, mean {mean:.0f} um, rate {rate:.1%}.', n=n, month=month, mean=values.mean(),
     rate=np.nan, cost='$5 and $6')
number('mean', values.mean(), 'um', label='mean vault', fmt='.0f')
table(groups.set_index('group'), 'groups', 'Mean by group (um)', formats={'mean': '.0f'})
for name in ('first', 'second'):
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.scatter(range(n), values, clip_on=True)
    ax.plot(range(n), np.sort(values))
    ax.set(xlabel='eye', ylabel='vault (um)')
    figure(fig, name, f'{n} points and the {name} line', caption=f'n = {n}')
print('printed'); warnings.warn('careful')
status('watch', 'Somebody looks.');"""


def template(folder, *code, name="template", parameters=PARAMETERS, tag="parameters"):
    """A notebook with a title, a parameter cell and cells of code; a string that starts with > is prose."""
    cells = [new_markdown_cell("# template\n> for its author"), new_code_cell(parameters)]
    cells += [new_markdown_cell(c[1:]) if c.startswith(">") else new_code_cell(c) for c in code]
    if tag:
        cells[1].metadata["tags"] = [tag]
    nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def files(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())} if folder.exists() else {}


# One good report, one that fails, and the same once more in other processes: shared by the tests below


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def good(work):
    path = template(work, ">## Vault\nAll of it.", BODY, ">## End")
    asked = {"month": "2026-10", "data": "/".join(["", "home", "ann", "eyes.csv"])}
    return run_report(path, work / "out" / "clinic", asked, title="Clinic <A>", data_sha256="ab" * 32)


@pytest.fixture(scope="module")
def many(work, good):
    """Two processes: the good job again, a failing cell over a good report, a program that ends, a dead kernel."""
    again = work / "again"
    again.mkdir()
    (again / "broken.html").write_text("the good page of last month")
    (again / "broken.json").write_text("{}")
    broken = template(work, "1 + 1;", "def f(): return 1 / n\nf()", name="broken")
    leaves = template(work, "n;", "import sys; sys.exit()", name="leaves")
    dies = template(work, "n;", "import os; os._exit(3)", "n;", name="dies")
    jobs = [
        dict(
            template=work / "template.ipynb",
            out=again / "clinic",
            parameters={"month": "2026-10", "data": "elsewhere.csv"},
            title="Clinic <A>",
            data_sha256="ab" * 32,
        ),
        dict(template=broken, out=again / "broken", parameters={"month": "2026-10", "n": 0}, title="Broken"),
        dict(template=leaves, out=again / "leaves", parameters={"month": "2026-10"}, title="Leaves"),
        dict(template=dies, out=again / "dies", parameters={"month": "2026-10"}, title="Dies"),
        dict(template=work / "absent.ipynb", out=again / "absent", parameters={}, title="Absent"),
    ]
    return render_many(jobs, processes=2, progress=False), again


@pytest.fixture(scope="module")
def sidecar(good):
    return json.loads(good.json.read_text(encoding="utf-8"))


def test_a_report_is_three_files_and_says_its_state(good):
    assert sorted(files(good.html.parent)) == ["clinic.html", "clinic.json", "clinic.run.json"]
    assert good.status == "watch"


def test_the_page_passes_the_gate_and_shows_what_it_should(good):
    html = good.html.read_text(encoding="utf-8")
    assert check_page(html) == []
    body = html[html.index("<body>") :]
    for words in ("Clinic &lt;A&gt;", "All of it.", "Made-up &lt;eyes&gt;.", "12 eyes in 2026-10", "rate not avail"):
        assert words in body, words
    assert "cost $5 and $6," in re.sub(r"<[^>]+>|\\", "", body), "money is no formula"
    assert body.index("Somebody looks.") < body.index("Made-up"), "the state stands at the top"
    for words in ("for its author", "default_rng", "printed", "careful", "style=\"border", "home"):
        assert words not in body, words


def test_the_page_says_how_it_was_made(good, work, sidecar):
    foot = good.html.read_text(encoding="utf-8").partition("<footer>")[2]
    made = sidecar["made"]
    sha = report.template_sha256(work / "template.ipynb")
    for words in ("ab" * 32, sha, "template.ipynb", "month = 2026-10", "seed = 0"):
        assert words in foot, words
    assert "Research use only. Not a medical device" in foot and sidecar["disclaimer"] in foot
    assert made["parameters"] == {"month": "2026-10", "n": 12, "share": 0.5, "seed": 0} and made["seed"] == 0


def test_every_number_shown_in_a_table_is_in_the_sidecar(good, sidecar):
    html = good.html.read_text(encoding="utf-8")
    shown = [re.sub(r"<[^>]+>", "", c) for c in re.findall(r"<t[dh][^>]*>.*?</t[dh]>", html[html.index("<tbody>") :])]
    (table,) = [r for r in sidecar["results"] if r["kind"] == "table"]
    assert table["columns"] == ["group", "mean", "n", "sd"]
    recorded = [v for row in table["rows"] for v in row]
    words = [v if isinstance(v, str) else "–" if v is None else f"{v:.0f}" for v in recorded]
    assert shown == words and any(isinstance(v, float) and v != round(v) for v in recorded)


def test_the_sidecar_keeps_order_and_full_precision(sidecar):
    values = np.random.default_rng(0).normal(600, 200, 12)
    kinds = [r["kind"] for r in sidecar["results"]]
    assert kinds == ["banner", "text", "number", "table", "figure", "figure"]
    sentence, number = sidecar["results"][1:3]
    assert number["value"] == values.mean() == sentence["values"]["mean"] and sentence["values"]["rate"] is None
    assert sidecar["status"] == {"level": "watch", "sentence": "Somebody looks."}


def test_two_figures_of_a_page_share_no_identifier(good):
    html = good.html.read_text(encoding="utf-8")
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in re.findall(r"<svg.*?</svg>", html, re.S)]
    assert len(ids) == 2 and all(ids) and not ids[0] & ids[1]
    assert all(i.startswith("first-") for i in ids[0])


def test_points_are_pixels_and_lines_are_not(good):
    svg = re.search(r"<svg.*?</svg>", good.html.read_text(encoding="utf-8"), re.S)[0]
    assert svg.count("data:image/png;base64") == 1
    assert "PathCollection" not in svg and svg.count("<use") < 150


def test_a_second_run_gives_the_same_bytes(good, many):
    (again, *_), folder = many
    for one, two in ((good.html, again.html), (good.json, again.json)):
        assert one.read_bytes() == two.read_bytes()
    assert good.run_json.read_bytes() != again.run_json.read_bytes()


def test_the_log_holds_what_varies_and_no_place(good):
    log = json.loads(good.run_json.read_text(encoding="utf-8"))
    assert {"started", "seconds", "commit", "python", "versions", "printed", "local", "sha256"} == set(log)
    assert log["local"] == {"data": "eyes.csv"} and "printed\n" in log["printed"] and "careful" in log["printed"]
    assert not re.search(r"(?<!\d)/(?:home|tmp|root|usr)", json.dumps(log))


def test_a_failure_names_its_cell_and_costs_the_others_nothing(many):
    (_, broken, leaves, dies, absent), folder = many
    assert isinstance(broken, ReportFailed) and "Cell 4" in str(broken) and "ZeroDivisionError" in str(broken)
    assert "def f()" in str(broken) and "broken.failed.ipynb" in str(broken)
    assert isinstance(leaves, ReportFailed) and "sys.exit()" in str(leaves)
    assert isinstance(dies, ReportFailed) and "Cell 4" in str(dies) and "Kernel died" in str(dies)
    assert isinstance(absent, TemplateError)


def test_a_failure_keeps_the_notebook_and_the_last_good_page(many):
    _, folder = many
    have = files(folder)
    assert have["broken.html"] == b"the good page of last month" and have["broken.json"] == b"{}"
    assert "broken.run.json" not in have and "leaves.html" not in have
    kept = nbformat.reads(have["broken.failed.ipynb"].decode(), as_version=4)
    assert any(o.output_type == "error" for c in kept.cells for o in c.get("outputs", []))
    assert not [name for name in have if name.endswith(".part")]


def test_a_good_run_removes_the_failed_notebook_and_leaves_nothing_else(work, tmp_path):
    path = template(tmp_path, ">Nothing is counted.")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.failed.ipynb").write_text("{}")
    result = run_report(path, out / "a", {"month": "2026-10"}, title="A")
    assert sorted(files(out)) == ["a.html", "a.json", "a.run.json"] and result.status == ""


def test_what_is_not_recorded_is_not_published(tmp_path):
    path = template(tmp_path, "n;", "n + 1")
    with pytest.raises(ReportFailed, match=r"Cell 4 .*not recorded"):
        run_report(path, tmp_path / "out" / "a", {"month": "2026-10"}, title="A")
    assert sorted(files(tmp_path / "out")) == ["a.failed.ipynb"]


# Refusals: nothing is run, nothing is written


@pytest.mark.parametrize(
    "asked, says",
    [
        ({"month": "2026-10", "mnoth": 1}, "no parameter `mnoth`.*`month` may be meant"),
        ({}, "`month` is required"),
        ({"month": None}, "`month` must be str, not None"),
        ({"month": 202610}, "`month` must be str.*202610"),
        ({"month": "x", "n": 1.5}, "`n` must be int"),
        ({"month": "x", "n": True}, "`n` must be int"),
        ({"month": "x", "share": "half"}, "`share` must be float"),
        ({"month": "x", "share": float("nan")}, "`share` must be float"),
        ({"month": "x", "n": np.int64(3)}, "`n` must be int"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(tmp_path, asked, says):
    path = template(tmp_path)
    with pytest.raises(InputError, match=says):
        run_report(path, tmp_path / "out" / "a", asked, title="A")
    assert not (tmp_path / "out").exists()


def test_a_whole_number_is_a_float_and_the_request_wins_over_the_default(tmp_path):
    declared = report.template_parameters(template(tmp_path))
    asked = report.check_parameters(declared, {"month": "2026-10", "share": 1})
    assert asked == {"month": "2026-10", "n": 12, "share": 1, "seed": 0, "data": ""}


@pytest.mark.parametrize(
    "how, says",
    [
        (dict(tag=None), "one cell tagged `parameters`, it has 0.*nbdev_clean"),
        (dict(parameters="n = today()"), "may hold lines such as"),
        (dict(parameters="n = 1\nfor i in range(3): pass"), "may hold lines such as"),
        (dict(parameters="n = = 1"), "may hold lines such as"),
        (dict(parameters="n: int"), "may hold lines such as"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_refused(tmp_path, how, says):
    with pytest.raises(TemplateError, match=says):
        run_report(template(tmp_path, **how), tmp_path / "out" / "a", {"n": 1}, title="A")
    assert not (tmp_path / "out").exists()


def test_missing_and_broken_templates_are_refused(tmp_path):
    (tmp_path / "broken.ipynb").write_text("{")
    for name, says in (("absent.ipynb", "There is no template"), ("broken.ipynb", "is not a notebook")):
        with pytest.raises(TemplateError, match=says):
            run_report(tmp_path / name, tmp_path / "out" / "a", {}, title="A")
    with pytest.raises(TemplateError, match="99_weekly"):
        report.template_path("99_weekly")
    with pytest.raises(InputError, match="title"):
        run_report(template(tmp_path), tmp_path / "out" / "a", {"month": "x"}, title=" ")
    assert not (tmp_path / "out").exists()


def test_two_jobs_for_one_place_are_refused():
    with pytest.raises(InputError, match="same place"):
        render_many([dict(out="a"), dict(out="a")])
    assert render_many([], progress=False) == []


def test_the_hash_of_a_template_is_about_its_cells(tmp_path):
    path = template(tmp_path, "n")
    before = report.template_sha256(path)
    nb = nbformat.read(path, 4)
    nb.cells[2]["outputs"] = [nbformat.v4.new_output("stream", text="12")]
    nb.cells[2]["execution_count"] = 7
    nbformat.write(nb, path)
    assert report.template_sha256(path) == before
    nb.cells[1].metadata["tags"] = []
    nbformat.write(nb, path)
    assert report.template_sha256(path) != before


# The words of a template


@pytest.fixture
def seen(monkeypatch):
    """What the helpers record and show, without Jupyter."""
    kept = []
    monkeypatch.setattr(page, "_emit", lambda record, shown, words: kept.append((page.plain(record), shown)))
    return kept


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([pd.NA, pd.NaT, np.float32(0.1)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_record_survives_json_whatever_it_holds(value):
    found = page.plain(value)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@given(st.text(max_size=30))
def test_words_from_data_cannot_bring_markup(words):
    assert not check_words(f"<td>{page._escape(words)}</td>", {"td"})
    assert "<" not in re.sub(r"\\<", "", page._worded(words))


def check_words(html, allowed):
    tags, _ = page._parse(html)
    return [t for t, _ in tags if t not in allowed]


@given(st.floats(-1e12, 1e12), st.sampled_from(["", ".0f", "+.1f", ".0%", ".3g"]))
def test_a_formatted_number_reads_back_and_zero_has_no_minus(value, spec):
    words = page._formatted(value, spec)
    assert words.strip("+") != "-0" and not re.fullmatch(r"-0(\.0*)?%?", words)
    number = float(words.rstrip("%")) / (100 if words.endswith("%") else 1)
    assert abs(number - value) <= max(0.51, abs(value) * 0.006)


def test_an_empty_table_and_every_kind_of_column_can_be_shown(seen):
    day = pd.Timestamp("2026-10-01")
    df = pd.DataFrame({"day": [day, pd.NaT], "yes": [True, False], "n": [1, 2], "x": [0.1, np.inf]})
    df["who"] = ["<b>", None]
    page.table(df, "kinds", "Kinds")
    page.table(df.head(0), "none", "None")
    page.table(df.groupby("n", observed=True)["x"].agg(["mean", "size"]), "grouped", "Grouped")
    both = pd.MultiIndex.from_tuples([("a", 1)], names=["g", None])
    page.table(pd.DataFrame({"n": [3]}, index=both), "two", "Two levels")
    (kinds, shown), (_, empty), (grouped, _), (_, two) = seen
    assert kinds["rows"] == [["2026-10-01", True, 1, 0.1, "<b>"], [None, False, 2, None, None]]
    assert "&lt;b&gt;" in shown["text/html"] and shown["text/html"].count('class="num"') == 6
    assert "no rows" in empty["text/html"] and grouped["columns"] == ["n", "mean", "size"]
    assert two["text/html"].count('scope="row"') == 2


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: page.table(pd.DataFrame({"a": [1]}), "t", " "), "caption"),
        (lambda: page.table(pd.DataFrame({"a": [1]}), "T 1", "c"), "lower-case"),
        (lambda: page.table(pd.DataFrame({"a": [1]}), "t", "c", {"b": ".0f"}), "does not have"),
        (lambda: page.table(pd.DataFrame({"a": ["x"]}), "t", "c", {"a": ".0f"}), "Not a value for the format"),
        (lambda: page.table(pd.DataFrame([[1, 2]], columns=["a", "a"]), "t", "c"), "each name once"),
        (lambda: page.table(pd.DataFrame({"a": [object()]}), "t", "c"), "numbers, words, dates"),
        (lambda: page.figure(plt.figure(), "f", ""), "words for what"),
        (lambda: page.figure(plt.figure(), "f", None), "words for what"),
        (lambda: page.text("{a}"), "not given"),
        (lambda: page.text("{a:.0f}", a="x"), "does not fit the sentence"),
        (lambda: page.banner("x", "none"), "info, watch, act"),
        (lambda: page.status("red", "x"), "none, watch, act"),
    ],
)
def test_a_word_used_wrongly_is_refused(seen, call, says):
    with pytest.raises(InputError, match=says):
        call()
    assert not seen
    plt.close("all")


# The gate

GOOD = (
    '<!DOCTYPE html><html lang="en"><head><meta name="viewport" content="width=device-width"><title>t</title></head>'
    '<body><h1>a</h1><h2 id="b">b</h2><p><a href="#b">b</a> 3//4 and 5:1</p>'
    '<img alt="x" src="data:image/png;base64,a//b+http">'
    '<svg role="img" aria-label="x"><g clip-path="url(#c)"><clipPath id="c"></clipPath></g></svg>'
    '<table><caption>c</caption><tr><th scope="col">1</th></tr></table></body></html>'
)


def test_a_good_page_passes():
    assert check_page(GOOD) == []


@pytest.mark.parametrize(
    "link, good", [("cedar.html", True), ("../cedar.html", False), ("cedar.pdf", False), ("a/b.html", False)]
)
def test_a_link_may_lead_to_a_page_beside_it_and_no_further(link, good):
    assert (check_page(GOOD.replace('href="#b"', f'href="{link}"')) == []) == good


@pytest.mark.parametrize(
    "old, new",
    [
        ("<body>", "<body><script>x()</script>"),
        ("<body>", '<body onload="x()">'),
        ("#b", "javascript:x()"),
        ("#b", "https" + "://example.org"),
        ("#b", "//example.org/x"),
        ("<p>", "<p>see www.example.org "),
        ("<p>", "<style>@import 'x.css';</style><p>"),
        ("<p>", "<style>p{background:url(x.png)}</style><p>"),
        ("<p>", '<p style="background:url(\'x.png\')">'),
        ("<p>", '<link rel="stylesheet"><p>'),
        ("<p>", '<svg role="img" aria-label="x" xmlns="http' + '://www.w3.org/2000/svg"></svg><p>'),
        ("<p>", "<p>" + "/".join(["", "home", "ann", "eyes.csv"])),
        (' alt="x"', ""),
        (' alt="x"', ' alt=""'),
        (' aria-label="x"', ""),
        ("<caption>c</caption>", ""),
        (' scope="col"', ""),
        (' lang="en"', ""),
        ("<title>t</title>", ""),
        ("<h1>a</h1>", ""),
        ("h2", "h3"),
        ('id="b"', 'id="c"'),
        ('id="c"', 'id="d"'),
        ("</body>", "ä" * (page.PAGE_BYTES // 2) + "</body>"),
    ],
)
def test_the_gate_finds_what_is_wrong(old, new):
    assert old in GOOD and check_page(GOOD.replace(old, new))
