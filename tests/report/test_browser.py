"""The page in a real browser: a Chromium on PATH (`chromium.NAMES`), or the one that THINKPRM_CHROMIUM names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import chromium, fake_run
from thinkprm_jax.report import page as pages
from thinkprm_jax.report.sources import load_run

PATH = chromium.find_chromium()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PATH is None, reason="no Chromium on PATH: the page is tried in no browser"),
]
PROBLEMS = 1000


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """ "large": 1,000 problems in packed parts; "details": with true first errors, unpacked."""
    folder = tmp_path_factory.mktemp("pages")
    runs = {
        "large": fake_run.write_search(folder / "large", PROBLEMS, n=2, chains=2),
        "details": fake_run.write_lines(folder / "details.jsonl", fake_run.details_rows(30)),
    }
    for name, source in runs.items():
        (folder / f"{name}.html").write_text(pages.render(load_run(source)), encoding="utf-8", newline="\n")
    return {name: folder / f"{name}.html" for name in runs}


@pytest.fixture(scope="module")
def tab() -> Iterator[chromium.Page]:
    assert PATH is not None
    with chromium.browser(PATH) as tab:
        yield tab


@pytest.fixture
def show(tab, files):
    """Shows a page at an address; afterwards nothing may have gone wrong in it, or been asked for."""

    def show(name: str, fragment: str = "", width: int = 1280, dark: bool = False) -> chromium.Page:
        tab.shape(width, 800, dark, phone=width < 700)
        tab.open(files[name], fragment)
        if fragment.startswith("#p") and fragment != "#problems":
            tab.until("document.querySelector('#problem-view h2') !== null")
        return tab

    tab.problems.clear()
    tab.requests.clear()
    yield show
    assert tab.problems == []
    assert [url for url in tab.requests if not url.startswith(("file:", "about:blank"))] == []
    assert tab.run("window.hacked === undefined")


def count(tab: chromium.Page) -> str:
    return tab.run("document.getElementById('count').textContent")


def press(tab: chromium.Page, selector: str) -> None:
    tab.run(f"document.querySelector({selector!r}).click()")


def choose(tab: chromium.Page, identifier: str, value: str) -> None:
    box = f"document.getElementById('{identifier}')"
    tab.run(f"{box}.value = {value!r}; {box}.dispatchEvent(new Event('change'))")


def current(tab: chromium.Page) -> str:
    return tab.run("document.querySelector('#problem-view h2').textContent")


def test_a_thousand_problems_are_usable_at_once(show):
    tab = show("large")
    assert count(tab) == "1,000 problems"
    assert 5 < tab.run("document.querySelectorAll('#list li').length") < 40
    assert (
        tab.run("performance.getEntriesByName('thinkprm-ready')[0].startTime") < 5000
    )  # 0.2 s on a quiet machine
    tab.run("document.getElementById('scroller').scrollTop = 1e9")
    tab.until(f"document.querySelector('#list [data-at=\"{PROBLEMS - 1}\"]') !== null")


@pytest.mark.parametrize("number", [1, 3, 500, PROBLEMS])
def test_a_problem_has_an_address(show, number):
    tab = show("large", f"#p{number}.2")
    assert current(tab) == f"Problem {number} of 1,000"
    assert tab.run("document.querySelector('[aria-label=Solutions] [aria-selected=true]').textContent")[:2] == "#2"
    assert tab.run("document.title").startswith(f"{number} · Search: large")


def test_hostile_text_is_text(show):
    tab = show("large", "#p3")
    text = tab.run("document.querySelector('.problem-text').textContent")
    assert text.startswith("</script><script>window.hacked = 1</script>")


def test_filters_show_what_they_count_and_go_together(show):
    tab = show("large")
    index = tab.run("JSON.parse(document.getElementById('index').textContent)")
    bits = {flag["key"]: 1 << bit for bit, flag in enumerate(index["flags"])}
    press(tab, "[data-flag=wrong]")
    wrong = [row for row in index["rows"] if row[4] & bits["wrong"]]
    assert count(tab) == f"{len(wrong)} of 1,000 problems"
    press(tab, "[data-flag=disputed]")
    both = [row for row in wrong if row[4] & bits["disputed"]]
    assert 0 < len(both) < len(wrong)
    assert count(tab) == f"{len(both)} of 1,000 problems"
    press(tab, "#clear")
    assert count(tab) == "1,000 problems"


@pytest.mark.parametrize(
    ("order", "column", "sign"), [("low", 6, 1), ("high", 6, -1), ("disagreement", 7, -1), ("gap", 8, -1)]
)
def test_orders(show, order, column, sign):
    tab = show("large")
    index = tab.run("JSON.parse(document.getElementById('index').textContent)")
    choose(tab, "order", order)
    shown = tab.run("[...document.querySelectorAll('#list a')].map((link) => Number(link.dataset.at))")
    keys = [index["rows"][at][column] for at in shown]
    assert keys == sorted(keys, key=lambda key: sign * key)
    known = [row[column] for row in index["rows"] if row[column] is not None]
    assert keys[0] == (min(known) if sign > 0 else max(known))


def test_search_finds_text_of_problems_and_of_chains(show):
    tab = show("large")
    tab.run(
        "(() => { const box = document.getElementById('search'); box.focus(); box.value = 'HUGO fills 7 bags';"
        " box.dispatchEvent(new Event('input')); })()"
    )
    tab.until("/^[1-9]\\d* of 1,000 problems$/.test(document.getElementById('count').textContent)")
    assert "Hugo fills 7 bags" in tab.run("document.querySelector('#list a').textContent")
    tab.run(
        "(() => { const box = document.getElementById('search'); box.value = 'looking at units, the result';"
        " box.dispatchEvent(new Event('input')); })()"
    )
    tab.until("/^[5-9]\\d\\d of 1,000 problems$/.test(document.getElementById('count').textContent)")


def test_a_bar_of_the_scores_shows_their_problems(show):
    tab = show("large")
    index = tab.run("JSON.parse(document.getElementById('index').textContent)")
    tab.run("document.querySelector('.bin[data-low=\"0.9\"]').dispatchEvent(new MouseEvent('click'))")
    inside = [row for row in index["rows"] if any(s is not None and 0.9 <= s < 0.95 for s, _ in row[2])]
    assert count(tab) == f"{len(inside)} of 1,000 problems"


def test_groups_of_an_evaluation_are_a_filter(show):
    tab = show("details")
    tab.run("document.getElementById('group').value = '0'")
    choose(tab, "group", "0")
    name = tab.run("document.querySelector('#group option:checked').textContent")
    assert f"{count(tab).split()[0]})" == name.split("(")[1]


def test_keys_walk_through_problems_solutions_and_chains(show):
    tab = show("large", "#p1")
    tab.key("j")
    tab.until("document.querySelector('#problem-view h2').textContent === 'Problem 2 of 1,000'")
    tab.key("k")
    tab.until("document.querySelector('#problem-view h2').textContent === 'Problem 1 of 1,000'")
    tab.key("ArrowRight")
    assert tab.run("location.hash") == "#p1.2"
    tab.key("]")
    assert tab.run("location.hash") == "#p1.2.2"
    tab.key("/")
    tab.until("document.activeElement.id === 'search'")
    tab.key("Escape")
    tab.key("o")
    tab.until("document.body.dataset.view === 'overview'")
    tab.key("?")
    assert tab.run("document.getElementById('keys').open")


def test_a_step_and_its_verdict_lead_to_each_other(show):
    tab = show("details", "#p1")
    press(tab, ".dot-button[data-chain='1'][data-step='0']")
    assert tab.run("document.querySelector('#chains [aria-selected=true]').textContent").startswith("Chain 2")
    assert tab.run("document.activeElement.id") in ("mark-1-0", "forced-1-0")
    press(tab, "#chains .mark[id^=mark-], #chains .forced-list .mark")
    assert tab.run("document.activeElement.id").startswith("step-")


def test_forced_verdicts_and_true_errors_are_marked(show, files):
    tab = show("details")
    rows = fake_run.details_rows(30)
    forced = next(
        number
        for number, row in enumerate(rows, start=1)
        if any(any(chain["step_forced"]) for chain in row["verdict"].get("chains", []))
    )
    tab.run(f"location.hash = '#p{forced}.1.all'")
    tab.until("document.querySelectorAll('.dot-button.forced').length > 0")
    assert "forced" in tab.run("document.querySelector('.forced-list').textContent")
    wrong = next(number for number, row in enumerate(rows, start=1) if row["label"] >= 0)
    tab.run(f"location.hash = '#p{wrong}'")
    tab.until(f"document.querySelector('#problem-view h2').textContent.startsWith('Problem {wrong} ')")
    error = tab.run("document.querySelector('.true-error').closest('.step').id")
    assert error == f"step-{rows[wrong - 1]['label']}"


@pytest.mark.parametrize("fragment", ["", "#problems", "#p4", "#p9.1.all"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(show, fragment, width):
    tab = show("large", fragment, width)
    assert tab.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert tab.run(
        "(() => { const pane = document.getElementById('main'); return pane.scrollWidth <= pane.clientWidth; })()"
    )


CONTRAST = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const over = (colours) => { canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const linear = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => { const [r, g, b] = rgb.map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  let worst = [21, ''];
  for (const element of document.querySelectorAll('body *')) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const ignored = element.closest('script, style, svg, [hidden], :disabled');
    if (!text || ignored || !element.getClientRects().length) continue;
    const grounds = [];
    for (let at = element; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
    const ground = over(['white', ...grounds]);
    const ink = over(['white', ...grounds, getComputedStyle(element).color]);
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, `${element.className} ${element.textContent.slice(0, 40)}`];
  }
  return worst;
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("fragment", ["", "#p7", "#p9.1.all"])
def test_text_stands_out_from_its_ground(show, fragment, dark):
    ratio, where = show("large", fragment, dark=dark).run(CONTRAST)
    assert ratio >= 4.5, where  # WCAG 2.2, AA


def test_every_control_has_a_name(show):
    tab = show("large", "#p1")
    nameless = """[...document.querySelectorAll('button, a, input, select, [role=button]')].filter((control) =>
      !(control.textContent.trim() || control.getAttribute('aria-label') || control.labels?.length)).length"""
    assert tab.run(nameless) == 0


def test_without_scripts_the_first_problems_can_be_read(tab, files):
    tab.scripts(enabled=False)
    try:
        tab.shape(1280, 800)
        tab.call("Page.navigate", url=files["details"].as_uri())
        tab.until("document.querySelectorAll('#plain article').length === 20")
        assert tab.run("document.querySelector('#plain article').getClientRects().length") == 1
        assert tab.run("document.querySelector('.browse').getClientRects().length") == 0
        assert tab.run("document.querySelector('noscript .note') !== null")
    finally:
        tab.scripts(enabled=True)


def test_formulas_are_drawn(show, files) -> None:
    pytest.importorskip("latex2mathml")
    row = {"problem": r"What is $\frac{1}{2}$ of \(x\)? And \(\frac{\)?", "steps": ["It is $x^2$."]}
    verdict = {"prefix_score": 0.5, "step_scores": [0.5], "step_labels": [1], "chains": []}
    source = fake_run.write_lines(files["details"].with_name("formulas.jsonl"), [{**row, "verdict": verdict}])
    files["formulas"] = source.with_suffix(".html")
    files["formulas"].write_text(pages.render(load_run(source)), encoding="utf-8", newline="\n")
    tab = show("formulas", "#p1")
    fraction = "document.querySelector('.problem-text mfrac')"
    assert tab.run(f"{fraction}.namespaceURI").endswith("MathML")
    above, below = (f"{fraction}.children[{place}].getBoundingClientRect()" for place in (0, 1))
    assert tab.run(f"{below}.top >= {above}.bottom - 2")
    assert tab.run("document.querySelectorAll('.problem-text math').length") == 2
    assert tab.run("document.querySelector('.problem-text .tex').textContent") == r"\(\frac{\)"
    assert tab.run("document.querySelector('.step-text msup') !== null")
