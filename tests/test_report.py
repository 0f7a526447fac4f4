"""The report is one whole file, shows what it was given, and asks no one for anything."""

import base64
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from PIL import Image

from bvae_jax.comparison.figures import Drawn
from bvae_jax.comparison.page import (
    TEMPLATE,
    HtmlCell,
    HtmlTable,
    Section,
    bullets,
    code,
    figure,
    joined,
    number_cells,
    pairs_to_html,
    paragraph,
    titled,
    to_html,
    write_page,
)
from bvae_jax.comparison.page import Page as Report
from bvae_jax.explore.page import TEMPLATE as EXPLORER
from bvae_jax.runs import rundir

VOID = {"meta", "link", "img", "input", "wbr", "br", "hr"}
HOSTILE = "<script>alert('x')</script> \"q\" & $title ${lead} </pre></details><!-- ]]> \udcff"
READ = HOSTILE.replace("\udcff", "\\udcff")  # a byte that is no UTF-8, as it is shown
NAMES = ["nll", "elbo", "mig", "sap_r2", "dci_disentanglement", "factor_vae_score", "irs"]


class Page(HTMLParser):
    """All elements of a page: (tag, attributes, text directly in it), and whether they close."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements, self.open = [], []
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"{tag}: an attribute stands twice"
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2].append(data)

    def all(self, tag):
        return [(attrs, "".join(text)) for name, attrs, text in self.elements if name == tag]

    def texts(self, tag):
        return [text.strip() for _, text in self.all(tag)]

    def values(self, attribute):
        return [attrs[attribute] for _, attrs, _ in self.elements if attribute in attrs]


def written(tmp_path, report):
    write_page(tmp_path / "report.html", report)
    return Page(tmp_path / "report.html")


def figures(folder, count, text):
    made = []
    for number in range(count):
        each = Drawn(folder / f"{number} & 'so'", f"{text} {number}", text)
        png, pdf = each.files
        Image.new("RGB", (340, 200 + number), (number, 90, 150)).save(png)
        pdf.write_bytes(b"%PDF-1.4\n" + bytes(range(number, 256)))
        made.append(each)
    return made


def members(settings, seeds, text=""):
    columns = ["setting", "seed", *(name + text for name in NAMES), "directory"]
    rows = [
        (f"{text}{s},{d}", [
            HtmlCell(f"β = {s}{text}", "words"), HtmlCell(str(d)),
            *number_cells([s + d / 7] * len(NAMES)), HtmlCell(f"runs/{s}/{d}{text}", "words"),
        ])
        for s in range(settings) for d in range(seeds)
    ]  # fmt: skip
    return HtmlTable(columns, rows)


def full(folder, text="some", count=2):
    marks = ("best", "tied", "", "words")
    cells = [HtmlCell(text, mark, text, text) for mark in marks]
    table = to_html(text, HtmlTable([text] * 4, [(text, cells)] * count, text))
    drawn = figures(folder, count, text)
    return Report(
        title=text, lead=text, facts=[(text, text)] * count, cautions=[text] * count,
        sections=[
            Section(text, joined([table, figure(drawn[0], titled=False)])),
            Section("Nothing", ""),
            Section("Folded", joined(map(figure, drawn)) + titled(text, bullets([text] * 2)), True),
            Section("Members", to_html("m", members(count, 2, text)), True),
            Section("Versions", pairs_to_html("Versions", text, {text: text}), True),
            Section("Commands", joined([code(text), code(text), paragraph(text)]), True),
        ],
    )  # fmt: skip


def of_table(table):
    return Report("t", "", sections=[Section("Scores", to_html("Scores", table))])


REPORTS = {
    "full": full,
    "hostile": lambda folder: full(folder, HOSTILE),
    "long names": lambda folder: full(folder, "a_rather/long=name," * 20),
    "empty": lambda folder: Report("Nothing", ""),
    "one member": lambda folder: of_table(members(1, 1)),
    "300 members": lambda folder: of_table(members(30, 10)),
    "table without rows": lambda folder: of_table(HtmlTable(["a"], [])),
}


@pytest.mark.parametrize("name", REPORTS)
def test_page_is_well_formed_and_points_nowhere_else(tmp_path, name):
    page = written(tmp_path, REPORTS[name](tmp_path))
    assert page.source.startswith("<!DOCTYPE html>")
    ids = page.values("id")
    assert len(set(ids)) == len(ids)
    references = page.values("href") + page.values("src")
    assert all(r.startswith("data:") or r[1:] in ids for r in references)
    assert all(r[0] == "#" for r in references if not r.startswith("data:"))
    assert not {"srcset", "action", "data", "poster", "background"} & {
        attribute for _, attrs, _ in page.elements for attribute in attrs
    }
    assert not re.search(r"url\(|@import|//", "".join(page.texts("style")))
    assert all(attrs["alt"] for attrs, _ in page.all("img"))
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert (levels[0], levels.count(1)) == (1, 1)
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert all(attrs["scope"] in ("col", "row") for attrs, _ in page.all("th"))


def test_sections_are_what_there_is_and_some_are_folded(tmp_path):
    page = written(tmp_path, full(tmp_path))
    assert page.texts("h2") == ["some", "Folded", "Members", "Versions", "Commands"]
    assert page.texts("summary") == page.texts("h2")[1:]
    assert not any("open" in attrs for attrs, _ in page.all("details"))
    assert written(tmp_path, REPORTS["empty"](tmp_path)).texts("h2") == []
    style = "".join(page.texts("style"))
    assert "details:not([open]) { display: none; }" in style.split("@media print")[1]


def test_everything_given_is_shown(tmp_path):
    page = written(tmp_path, Report(
        title="T1", lead="L1", facts=[("f", "v")], cautions=["One.", "Two."], sections=[
            Section("A", pairs_to_html("p", "value", {"m1": "no dci"})),
            Section("B", joined([code("bvae a \\\n  b"), code("c"), bullets(["m2"]), bullets([])])),
        ],
    ))  # fmt: skip
    assert page.texts("title") == page.texts("h1") == ["T1"]
    assert "L1" in page.texts("p")
    assert (page.texts("dt"), page.texts("dd")) == (["f"], ["v"])
    assert page.texts("code") == ["bvae a \\\n  b", "c"]
    assert "m1no dci" in page.texts("tr")
    assert page.texts("li") == ["One.", "Two.", "m2"]


def test_pictures_are_embedded_byte_for_byte(tmp_path):
    drawn = figures(tmp_path, 3, "some")
    page = written(tmp_path, Report("t", "", sections=[Section("F", joined(map(figure, drawn)))]))

    def decoded(uri, kind):
        head, data = uri.split(",")
        assert head == f"data:{kind};base64"
        return base64.b64decode(data, validate=True)

    pictures = [decoded(attrs["src"], "image/png") for attrs, _ in page.all("img")]
    pngs, pdfs = zip(*(each.files for each in drawn), strict=True)
    assert pictures == [png.read_bytes() for png in pngs]
    links = [attrs for attrs, text in page.all("a") if text == "PDF"]
    assert [decoded(a["href"], "application/pdf") for a in links] == [p.read_bytes() for p in pdfs]
    assert [attrs["download"] for attrs in links] == [pdf.name for pdf in pdfs]


def test_text_from_outside_is_only_text(tmp_path):
    hostile, plain = written(tmp_path, full(tmp_path, HOSTILE)), written(tmp_path, full(tmp_path))

    def skeleton(page):
        return [(tag, list(attrs)) for tag, attrs, _ in page.elements if tag != "wbr"]

    assert skeleton(hostile) == skeleton(plain)
    assert hostile.values("class") == plain.values("class")
    assert hostile.texts("script") == plain.texts("script")
    assert hostile.texts("h1") == [READ]
    assert hostile.texts("code") == [READ, READ]
    assert READ in hostile.values("title")
    assert f"{READ} 0" in hostile.values("alt")


def test_table_has_its_marks_and_their_legend(tmp_path):
    cells = [
        HtmlCell("0.31", "best", "3 seeds", "[0.3, 0.4]"),
        HtmlCell("0.30", "tied"),
        HtmlCell("nan"),
        HtmlCell("a", "words"),
    ]
    table = HtmlTable(["sap_r2", "b", "c", "d"], [("β = 4", cells)], "A note.")
    page = written(tmp_path, of_table(table))
    classes = [(attrs.get("class"), attrs.get("title"), text) for attrs, text in page.all("td")]
    assert classes[1:] == [("best", "3 seeds", "0.31[0.3, 0.4]"), ("tied", None, "0.30"),
                           (None, None, "nan"), ("words", None, "a")]  # fmt: skip
    assert page.texts("strong")[0] == "0.31"
    heads = [(attrs["scope"], attrs.get("class"), text) for attrs, text in page.all("th")]
    assert heads == [("col", None, "sap_r2"), ("col", None, "b"), ("col", None, "c"),
                     ("col", "words", "d"), ("row", None, "β = 4")]  # fmt: skip
    note = "Bold: the best. : not distinguishable from the best. A note."
    assert page.texts("p")[-1] == note
    unmarked = HtmlTable(["a"], [("x", [HtmlCell("1")])])
    page = written(tmp_path, of_table(unmarked))
    assert len(page.texts("p")) == 1, "the lead, no legend"


@pytest.mark.parametrize("cells", [[], [HtmlCell("1")], [HtmlCell("1")] * 3])
def test_table_wants_a_cell_for_each_column(tmp_path, cells):
    with pytest.raises(ValueError, match="zip"):
        written(tmp_path, of_table(HtmlTable(["a", "b"], [("x", cells)])))


def test_ragged_table(tmp_path):
    table = HtmlTable(["a", "b"], [("x", [HtmlCell("1")] * 2), ("y", [HtmlCell("1")])])
    with pytest.raises(ValueError, match="zip"):
        written(tmp_path, of_table(table))


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.5, 1e-7, -0.25], ["0.5000", "0.0000", "-0.2500"]),
        ([6123.44, 9.5, float("nan")], ["6123.4", "9.5", "nan"]),
        ([1e6 + 0.5, 1.25, float("-inf")], ["1000000", "1", "-inf"]),
        ([737280.0, 0.0, 3.0], ["737280", "0", "3"]),
        ([float("nan")], ["nan"]),
    ],
)
def test_numbers_of_a_column_have_as_many_decimals(values, wanted):
    cells = number_cells(values)
    assert [cell.text for cell in cells] == wanted
    assert [cell.title for cell in cells] == [str(value) for value in values]


def test_replaces_the_old_file_or_leaves_it(tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    write_page(path, Report("Old", ""))
    old = path.read_bytes()
    with pytest.raises(FileNotFoundError):
        figure(Drawn(tmp_path / "none", "f", ""))

    def crash(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rundir.os, "fsync", crash)
        with pytest.raises(KeyboardInterrupt):
            write_page(path, Report("New", ""))
    assert path.read_bytes() == old
    write_page(path, Report("New", ""))
    assert Page(path).texts("h1") == ["New"]
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def luminance(colour):
    """Relative luminance of #rgb or #rrggbb (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("page", "count", "inks"), [
    (TEMPLATE, 3, ("ink", "soft", "link")), (EXPLORER, 2, ("ink", "soft", "accent", "far"))],
)  # fmt: skip
def test_text_has_contrast_in_light_dark_and_print(page, count, inks):
    style = page.read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(blocks) == count
    for block in blocks:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]+);", block))
        for ink in inks:
            for ground in ("page", "tint"):
                low, high = sorted(luminance(colours[name]) for name in (ink, ground))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)


@pytest.mark.once
def test_browser_sees_no_error_and_no_request(tmp_path, browser):
    for name in ("full", "hostile", "long names"):
        path = tmp_path / f"{name}.html"
        write_page(path, REPORTS[name](tmp_path))
        browser.open(path)
        browser.look(tmp_path / "page.png", 500)
        assert browser.said == browser.requested == []
        wide = browser.run("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{name}: the page scrolls sideways"
        seen = "[...document.images].filter(one => one.complete && one.naturalWidth == 340).length"
        assert browser.run(seen) == 3


@pytest.mark.once
@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ("<script>console.error('bad')</script>", ""),
        ("<script>throw Error('bad')</script>", ""),
        ("<img src='http://nowhere.invalid/a'>", "http://nowhere.invalid/a"),
        ("<p style='background: url(http://nowhere.invalid/b)'>x", "http://nowhere.invalid/b"),
    ],
)
def test_browser_would_see_them(tmp_path, browser, body, asked):
    path = tmp_path / "bad.html"
    path.write_text(f"<!DOCTYPE html><html><body>{body}")
    browser.open(path)
    assert browser.said
    assert browser.requested == ([asked] if asked else [])


@pytest.mark.once
def test_a_click_sorts_a_table(tmp_path, browser):
    texts = ["0.30 ± 0.01", "nan", "-2", "10", "0.30", "1e-3"]
    rows = [(str(row), [HtmlCell("w", "words"), HtmlCell(text)]) for row, text in enumerate(texts)]
    path = tmp_path / "report.html"
    write_page(path, of_table(HtmlTable(["word", "score"], rows)))
    browser.open(path)
    seen = browser.run("""(() => {
      const button = document.querySelector("th button"), seen = [];
      for (let click = 0; click < 4; click++) {
        seen.push([...document.querySelectorAll("tbody th")].map(th => th.textContent).join(""));
        seen.push(document.querySelector("[aria-sort]")?.getAttribute("aria-sort") ?? "none");
        button.click();
      }
      return seen.concat(document.querySelectorAll("th button").length);
    })()""")
    # Rows 0 and 4 are equal, so they keep their order.
    assert seen == [
        "012345", "none", "250431", "ascending", "304521", "descending", "012345", "none", 1,
    ]  # fmt: skip
