"""The page in a browser: it is drawn without an error or a request, and chosen in by mouse and keyboard."""

from __future__ import annotations

import json
import time

import pytest
from report_helpers import browser, small_run

WIDE, PHONE = 1400, 390
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("report") / "digits") / "report.html"


@pytest.fixture(params=[WIDE, PHONE], scope="module")
def opened(request, page, tmp_path_factory):
    found = browser(tmp_path_factory.mktemp("profile"), request.param)
    try:
        found.get("about:blank")
        found.get_log("performance")  # of the page that a browser begins with
        found.get(page.as_uri())
        for part in found.find_elements("css selector", "details"):
            found.execute_script("arguments[0].open = true", part)
        for chart in found.find_elements("css selector", "[data-chart]"):
            found.execute_script("arguments[0].scrollIntoView()", chart)
            wait(lambda chart=chart: not chart.is_displayed() or chart.get_attribute("data-drawn") == "yes")
        yield found
    finally:
        found.quit()


def wait(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def shown(found) -> list[str]:
    sections = found.find_elements("css selector", "section.of-class")
    return [section.get_attribute("aria-label") for section in sections if section.is_displayed()]


def test_all_is_drawn_without_an_error_or_a_request(opened):
    assert opened.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith(("file:", "data:", "blob:", "chrome:"))] == []
    visible = [chart for chart in opened.find_elements("css selector", "[data-chart]") if chart.is_displayed()]
    assert len(visible) >= 5
    for chart in visible:
        marks = chart.find_elements("css selector", "svg path, svg rect")
        assert len(marks) > 5, chart.get_attribute("aria-label")


def test_axes_and_legend_can_be_read(opened):
    chart = opened.find_element("css selector", '[data-chart="chart-accuracy"]')
    texts = [text.text for text in chart.find_elements("css selector", "svg text") if text.text]
    assert {"classes seen", "accuracy on the classes seen (%)", "DDM", "Random"} <= set(texts)
    boxes = [text.rect for text in chart.find_elements("css selector", "svg .role-axis-label text")]
    apart = [
        a["x"] + a["width"] <= b["x"] + 1 or b["x"] + b["width"] <= a["x"] + 1
        or a["y"] + a["height"] <= b["y"] + 1 or b["y"] + b["height"] <= a["y"] + 1
        for i, a in enumerate(boxes) for b in boxes[:i]
    ]  # fmt: skip
    assert boxes and all(apart)


def test_nothing_is_wider_than_the_screen(opened):
    assert opened.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_a_class_is_chosen_with_the_mouse_and_with_the_keyboard(opened):
    labels = opened.find_elements("css selector", ".picker label")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", labels[3])
    labels[3].click()
    name = labels[3].text
    assert f"Images of {name}" in shown(opened) and len(shown(opened)) == 2  # its images, and its step's losses
    images = [one for one in opened.find_elements("css selector", "figure.strip img") if one.is_displayed()]
    assert len(images) == 3 and all(one.get_property("naturalWidth") > 32 for one in images)
    from selenium.webdriver.common.keys import Keys

    opened.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    following = opened.find_elements("css selector", ".picker label")[4].text
    assert f"Images of {following}" in shown(opened) and f"Images of {name}" not in shown(opened)
    focused = opened.execute_script(
        "return getComputedStyle(document.activeElement.closest('label')).outlineStyle !== 'none'"
    )
    assert focused


def test_text_stands_out_from_its_ground(opened):
    """WCAG AA: 4.5 to 1 for text of ordinary size."""
    pairs = opened.execute_script(
        """
        const ground = (node) => {
          for (let at = node; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (colour !== 'rgba(0, 0, 0, 0)' && colour !== 'transparent') return colour;
          }
          return 'rgb(255, 255, 255)';
        };
        return [...document.querySelectorAll('h1, h2, h3, p, td, th, label, pre, summary, figcaption, legend, caption')]
          .filter((node) => node.offsetParent).map((node) => [node.textContent.trim().slice(0, 30),
            getComputedStyle(node).color, ground(node), parseFloat(getComputedStyle(node).fontSize)]);
        """
    )
    assert len(pairs) > 30
    for text, ink, paper, size in pairs:
        light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ink, paper)
        assert size >= 13, text


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
