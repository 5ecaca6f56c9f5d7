"""The page as a file: what it may load and run, and that it holds the run, whatever is written in that."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from support import fake_run
from thinkprm_jax.errors import UserError
from thinkprm_jax.report import data, mathematics, page
from thinkprm_jax.report.figures import overview
from thinkprm_jax.report.sources import load_run

ROOT = Path(__file__).parents[2]
SCRIPTS = [ROOT / "thinkprm_jax/report" / name for name in page.SCRIPTS]


class Elements(HTMLParser):
    """(tag, attributes) of all elements, and the text of each script and style in it."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, dict[str, str | None], str]] = []
        self._open: tuple[str, dict[str, str | None], str] | None = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open = (tag, dict(attrs), "")

    def handle_data(self, data):
        if self._open is not None:
            self._open = (*self._open[:2], self._open[2] + data)

    def handle_endtag(self, tag):
        if self._open is not None and tag == self._open[0]:
            self.texts.append(self._open)
            self._open = None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load_run(fake_run.write_search(tmp_path_factory.mktemp("run"), problems=40, n=2, chains=2))


@pytest.fixture(scope="module")
def html(run) -> str:
    return page.render(run)


@pytest.fixture(scope="module")
def elements(html) -> Elements:
    return Elements(html)


def parts_of(elements: Elements) -> list[dict]:
    problems = []
    for tag, attributes, text in elements.texts:
        if tag == "script" and (attributes.get("id") or "").startswith("part-"):
            packed = attributes["type"] == "text/plain"
            problems += json.loads(gzip.decompress(base64.b64decode(text)) if packed else text)
    return problems


def test_the_policy_allows_the_page_its_own_script_and_style_and_nothing_else(elements):
    (policy,) = [a["content"] for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"]
    allowed = dict(rule.split(" ", 1) for rule in policy.split("; "))

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    (style,) = [text for tag, _, text in elements.texts if tag == "style"]
    (script,) = [text for tag, attributes, text in elements.texts if tag == "script" and "type" not in attributes]
    assert allowed["default-src"] == "'none'"
    assert allowed["script-src"] == digest(script)
    assert allowed["style-src"] == digest(style)
    assert (allowed["base-uri"], allowed["form-action"]) == ("'none'", "'none'")
    assert "require-trusted-types-for 'script'" in policy


def test_nothing_in_the_page_points_outside_or_runs_by_itself(elements):
    for tag, attributes in elements.found:
        assert tag not in (
            "img",
            "iframe",
            "object",
            "embed",
            "link",
            "base",
            "form",
            "audio",
            "video",
            "foreignobject",
        )
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("style", "src", "srcset", "action", "formaction", "xlink:href")
            assert name != "href" or (value or "").startswith("#")


def test_style_and_scripts_load_nothing(elements):
    for _, attributes, text in elements.texts:
        if "type" not in attributes:
            urls = [url for url in re.findall(r"url\(([^)]*)\)", text) if not url.startswith("#")]
            assert urls == []
            assert not re.search(r"@import|https?:|\bfetch\(|XMLHttpRequest|WebSocket|\bimport\b", text)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_no_markup_of_texts(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|DOMParser", text
    )


def test_no_element_comes_from_the_texts_of_a_run(run, elements):
    hostile = [problem for problem in run.problems if "hacked" in problem.text]
    assert hostile
    harmless = dataclasses.replace(
        run, problems=tuple(dataclasses.replace(problem, text="text") for problem in run.problems)
    )

    def tags(found: Elements) -> list[str]:  # formulas are made of elements that are on a list of ours
        return [tag for tag, _ in found.found if tag not in mathematics.ELEMENTS]

    assert tags(elements) == tags(Elements(page.render(harmless)))


@pytest.mark.parametrize("packed", [False, True])
def test_the_page_holds_the_whole_run(run, monkeypatch, packed):
    monkeypatch.setattr(data, "PLAIN_UP_TO", 0 if packed else 1 << 40)
    monkeypatch.setattr(data, "PART", 20_000)
    elements = Elements(page.render(run))
    assert parts_of(elements) == json.loads(json.dumps([data.problem_json(problem) for problem in run.problems]))
    types = {a.get("type") for tag, a, _ in elements.texts if (a.get("id") or "").startswith("part-")}
    assert types == ({"text/plain"} if packed else {"application/json"})


def test_the_index_finds_a_problem_in_its_part(run, monkeypatch):
    monkeypatch.setattr(data, "PLAIN_UP_TO", 1 << 40)
    monkeypatch.setattr(data, "PART", 20_000)
    encoded = data.encode(run)
    index = json.loads(encoded.index)
    assert len(encoded.parts) > 2
    parts = [json.loads(part) for part in encoded.parts]
    places = [row[3] for row in index["rows"]]
    assert places == [number for number, part in enumerate(parts) for _ in part]
    assert [row[0] for row in index["rows"]] == [problem["name"] for part in parts for problem in part]


def test_filters_count_the_problems_they_hold_of(run):
    index = json.loads(data.encode(run).index)
    flags = {flag["key"]: flag["count"] for flag in index["flags"]}
    wrong = [any(solution.wrong for solution in problem.solutions) for problem in run.problems]
    assert flags["wrong"] == sum(wrong) > 0
    bit = [flag["key"] for flag in index["flags"]].index("wrong")
    assert [bool(row[4] >> bit & 1) for row in index["rows"]] == wrong


def test_json_cannot_end_its_element_and_comes_back_whole():
    value = ["</script><!--<script>", "a\u2028b\u2029", "\ud800 alone", "\x00\x1f\x7f", "&amp; é 漢 \ufeff"]
    text = data.dump(value)
    assert json.loads(text) == value
    assert not re.search("[<>&\u2028\u2029\ud800]", text)
    text.encode()


def test_the_first_problems_can_be_read_without_scripts(run, html):
    plain = html.split('<section id="plain"')[1].split("</section>")[0]
    assert plain.count("<article") == page.PLAIN
    assert f"{len(run.problems) - page.PLAIN} more problems" in plain
    assert "&lt;/script&gt;&lt;script&gt;window.hacked = 1" in plain
    first = run.problems[0].solutions[0]
    assert f"P(correct) {first.verdict_score:.3f}" in plain
    assert 'id="p20"' in plain
    assert "\x00" not in plain


def test_the_same_run_gives_the_same_page(run, html):
    assert page.render(run) == html


def test_what_looks_like_a_template_in_a_text_stays_what_it_is(run):
    text = "{{ 7 * 7 }} {% raw %} {# no comment #} ${x} &amp;"
    first = dataclasses.replace(run.problems[0], text=text)
    html = page.render(dataclasses.replace(run, problems=(first,), notes=(text,)), title=text)
    escaped = text.replace("&", "&amp;")
    assert html.count(escaped) == 4  # title, heading, note and problem
    assert "49" not in re.findall(r"<title>(.*?)</title>", html)[0]


def test_a_template_that_misses_a_value_fails():
    with pytest.raises(UndefinedError):
        page.environment().from_string("{{ nowhere }}").render()


def test_every_value_of_a_template_is_escaped_and_freed_of_what_a_page_cannot_hold():
    shown = page.environment().from_string("{{ value }}").render(value="<b onclick='x'>\x00 & \ud800\"")
    assert shown == "&lt;b onclick=&#39;x&#39;&gt;\ufffd &amp; \ufffd&#34;"


def test_the_files_of_the_page_are_part_of_the_package():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"thinkprm_jax.report" = ["*.html", "*.css", "*.js"]' in text
    here = {
        path.name for path in (ROOT / "thinkprm_jax/report").iterdir() if path.suffix in (".js", ".css", ".html")
    }
    assert here == {*page.SCRIPTS, "page.css", "page.html", "plain.html", "charts.html"}


def test_figures_of_a_search_are_those_of_its_accuracy_file(run):
    shown = {figure.name: figure.estimate for figure in overview(run)}
    recorded = run.accuracy["by_n"]["2"]
    assert shown["accuracy, weighted@2"].value == recorded["weighted"]["value"]
    assert shown["pass@2"].n == 40
    judged = [solution for problem in run.problems for solution in problem.solutions if solution.judged]
    right = sum((solution.verdict_score >= 0.5) == solution.correct for solution in judged)
    assert shown["verdicts right"].value == pytest.approx(right / len(judged))


@pytest.mark.parametrize(
    ("by_n", "message"),
    [
        ([], "accuracy.json: the field `by_n` must be an object"),
        ({"0": {}}, "accuracy.json: the field `by_n` must be an object from numbers"),
        (
            {"2": {"naive": {"value": 0.5}}},
            "`by_n.2.naive` must be an object with the numbers value, low, high and n",
        ),
        ({"2": {"naive": {"value": 7, "low": 0, "high": 1, "n": 2}}}, "`by_n.2.naive` must hold shares in [0, 1]"),
    ],
)
def test_an_accuracy_file_that_is_none_is_named(run, by_n, message):
    with pytest.raises(UserError) as error:
        overview(dataclasses.replace(run, accuracy={"by_n": by_n}))
    assert message in str(error.value)


def test_an_unfinished_search_is_counted_as_the_search_would_count_it(tmp_path):
    folder = fake_run.write_search(tmp_path / "run", problems=30)
    recorded = json.loads((folder / "accuracy.json").read_text())["by_n"]
    (folder / "accuracy.json").unlink()
    shown = {figure.name: figure.estimate.value for figure in overview(load_run(folder))}
    for method in ("naive", "weighted", "majority"):
        assert shown[f"accuracy, {method}@4"] == pytest.approx(recorded["4"][method]["value"])


def test_the_evaluation_has_the_figures_of_evaluate(tmp_path):
    from thinkprm_jax.evaluation.summary import summarise
    from thinkprm_jax.records.evaluation import Outcome

    rows = fake_run.details_rows(30)
    shown = overview(load_run(fake_run.write_lines(tmp_path / "details.jsonl", rows)))
    summary = summarise([Outcome(**row["outcome"]) for row in rows])
    assert [f.estimate for f in shown if f.name == "first-error F1"] == [summary.first_error_f1]
    assert [f.estimate for f in shown if f.name == "AUROC of the score"] == [summary.auroc]


def charts_of(html: str) -> list[str | None]:
    return [attributes["data-chart"] for _, attributes in Elements(html).found if "data-chart" in attributes]


def test_charts_show_what_is_known(run, html, tmp_path):
    assert charts_of(html) == ["accuracy", "scores", "calibration"]
    rows = [row for row in fake_run.score_rows(6) if row.pop("label") is not None]
    without_truth = page.render(load_run(fake_run.write_lines(tmp_path / "score.jsonl", rows)))
    assert charts_of(without_truth) == ["scores"]
    assert "verdicts right" not in without_truth
