"""The page at `/` in a real browser: a Chromium on PATH, or the one that THINKPRM_CHROMIUM names."""

from __future__ import annotations

import pytest

from support import chromium
from support.serving import served, verifier

PATH = chromium.find_chromium()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PATH is None, reason="no Chromium on PATH: the page is tried in no browser"),
]


def test_steps_are_coloured_as_the_verdict_comes() -> None:
    assert PATH is not None
    with served(verifier()) as (address, _), chromium.browser(PATH) as tab:
        tab.shape(1000, 900)
        tab.call("Page.navigate", url=address)
        tab.until("document.readyState === 'complete' && location.protocol === 'http:'")
        tab.run("document.getElementById('judge').click()")
        tab.until("document.getElementById('whole').textContent.includes('score')")
        colours = "[...document.querySelectorAll('#steps li')].map(item => item.className)"
        assert tab.run(colours) == ["bad", "bad"]
        assert tab.run("document.getElementById('whole').textContent").startswith("First error in step 1")
        assert "incorrect" in tab.run("document.querySelector('#chains pre').textContent")

        tab.run("document.getElementById('solution').value = 'Step 1: <img src=x onerror=hacked=1> 78 + 12 = 90.'")
        tab.run("document.getElementById('judge').click()")
        tab.until(
            "document.querySelectorAll('#steps li').length === 1 && !document.getElementById('judge').disabled"
        )
        assert "<img" in tab.run("document.querySelector('#steps li').textContent")

        tab.run("document.getElementById('n').value = 3; document.getElementById('judge').click()")
        tab.until(
            "document.querySelectorAll('#chains pre').length === 3 && !document.getElementById('judge').disabled"
        )

        tab.run("document.getElementById('problem').value = 'x'.repeat(30000)")
        tab.problems.clear()
        tab.run("document.getElementById('judge').click()")
        tab.until("document.getElementById('failure').textContent.includes('characters')")
        assert [text for text in tab.problems if "400" not in text] == []  # the browser notes the status itself
        assert tab.run("window.hacked === undefined")
        assert {url.split("/")[2] for url in tab.requests if url.startswith("http")} == {address.split("/")[2]}
