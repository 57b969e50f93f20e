"""The page in a real browser, with the network off: what appears belongs to the trial that was chosen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import made_studies
import pytest
from browser import programs, start
from made_studies import FAILS, SCRIPT
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from connsearch.cost import network_cost
from connsearch.cost.connections import connections
from connsearch.report import pareto_html, report_of, write_report
from connsearch.search.study import Study
from connsearch.spec.network import NetworkSpec
from connsearch.text import si


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    found = start(tmp_path_factory.mktemp("profile"))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study whose networks were trained, but for one that failed."""
    programs()
    return made_studies.run(tmp_path_factory.mktemp("real") / "study", 5, made_studies.half_real)


Open = Callable[..., Chrome]


@pytest.fixture
def opened(browser: Chrome, tmp_path: Path) -> Iterator[Open]:
    """Open the page of a study; at the end nothing went wrong in it, and it asked for nothing."""
    pages: list[str] = []

    def open_page(study: Study, anchor: str = "") -> Chrome:
        path = write_report(report_of(study, with_importance=False), tmp_path / "report.html")
        pages.append(path.as_uri())
        browser.get("about:blank")
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(f"{path.as_uri()}{anchor}")
        return browser

    yield open_page
    assert browser.get_log("browser") == []
    assert requests(browser) == set(pages)
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def requests(browser: Chrome) -> set[str]:
    """Return what the browser has asked for."""
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }


def text(browser: Chrome, selector: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, selector).text


def count(browser: Chrome, selector: str) -> int:
    return len(browser.find_elements(By.CSS_SELECTOR, selector))


def mark(browser: Chrome, trial: int) -> Any:
    return browser.find_element(By.CSS_SELECTOR, f".panel .point[data-trial='{trial}']")


def check_shown(browser: Chrome, study: Study, number: int) -> None:
    """Compare graph, costs, curve and command on the page with the record of a trial."""
    attrs = study.trials()[number].user_attrs
    spec = NetworkSpec.from_dict(attrs["network"])
    cost = network_cost(spec)
    assert text(browser, "#trial-title") == f"Trial {number}"
    facts = text(browser, "#trial-facts").splitlines()
    assert facts[facts.index("MACs per image") + 1] == si(cost.macs)
    # the graph
    assert count(browser, "#graph .node") == len(spec.graph().nodes)
    assert count(browser, "#graph .edge") == cost.n_edges
    # cost by connection
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#by-edge tbody tr')].map((row) => "
        "[row.cells[0].textContent, row.cells[1].textContent, +row.cells[3].dataset.value, "
        "+row.cells[5].dataset.value, +row.cells[6].dataset.value])"
    )
    known = [[c.source, c.target, c.macs, c.params, c.bytes_read] for c in connections(spec)]
    assert sorted(rows) == sorted(known)
    nodes = browser.execute_script(
        "return [...document.querySelectorAll('#by-node tbody td:nth-child(4)')].map((c) => +c.dataset.value)"
    )
    assert sum(nodes) == cost.macs
    assert nodes == sorted(nodes, reverse=True)
    # the curve: a dot for each epoch of training and validation, the lower the lower
    dots = browser.execute_script(
        "return [...document.querySelectorAll('#curve-error .dot.val')].map((dot) => +dot.getAttribute('cy'))"
    )
    errors = [record["val_error"] for record in attrs["curve"]]
    assert len(dots) == len(errors)
    order = sorted(range(len(dots)), key=lambda i: (errors[i], dots[i]))
    assert [dots[i] for i in order] == sorted(dots, reverse=True)
    # the command
    assert (
        text(browser, "#trial-commands code")
        == f"connsearch retrain {study.directory} {number} --seeds 0,1,2"
    )


# ---- choosing a trial --------------------------------------------------------------------------------------


def test_a_click_shows_what_belongs_to_the_point(opened: Open, real: Study) -> None:
    browser = opened(real)
    front = real.pareto_front().points["trial"].tolist()
    others = real.pareto_front().dominated["trial"].tolist()[:1]
    for number in [*front, *others, front[0]]:
        ActionChains(browser).move_to_element(mark(browser, number)).click().perform()
        check_shown(browser, real, number)
        assert mark(browser, number).get_attribute("aria-pressed") == "true"
        assert count(browser, ".panel .point.chosen") == 1
        assert browser.execute_script("return location.hash") == f"#trial-{number}"


def test_arrows_and_enter_do_what_the_mouse_does(opened: Open, study: Study) -> None:
    browser = opened(study)
    front = study.pareto_front().points["trial"].tolist()
    assert len(front) > 2
    stops = browser.find_elements(By.CSS_SELECTOR, ".panel .point[tabindex='0']")
    assert [int(stop.get_attribute("data-trial")) for stop in stops] == front[:1]
    browser.execute_script("arguments[0].focus()", stops[0])
    keys = ActionChains(browser)
    keys.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER).perform()
    check_shown(browser, study, front[2])
    keys.send_keys(Keys.ARROW_LEFT, Keys.SPACE).perform()
    check_shown(browser, study, front[1])
    keys.send_keys(Keys.END, Keys.ARROW_RIGHT, Keys.ENTER).perform()
    check_shown(browser, study, front[-1])
    keys.send_keys(Keys.HOME, Keys.ENTER).perform()
    check_shown(browser, study, front[0])


def test_rows_of_tables_and_addresses_choose_too(opened: Open, study: Study) -> None:
    front = study.pareto_front().points["trial"].tolist()
    browser = opened(study, f"#trial-{front[1]}")
    check_shown(browser, study, front[1])
    browser.find_element(By.CSS_SELECTOR, f"#front-table tr[data-trial='{front[0]}'] button").click()
    check_shown(browser, study, front[0])
    assert text(browser, "#front-table tr.chosen th") == str(front[0])
    browser.execute_script(f"location.hash = '#trial-{front[-1]}'")
    browser.execute_async_script("setTimeout(arguments[0], 50)")
    check_shown(browser, study, front[-1])


def test_a_trial_that_failed_says_why(opened: Open, real: Study) -> None:
    browser = opened(real)
    browser.find_element(By.CSS_SELECTOR, f"#failures a[href='#trial-{FAILS}']").click()
    browser.execute_async_script("setTimeout(arguments[0], 50)")
    assert text(browser, "#trial-title") == f"Trial {FAILS}"
    assert text(browser, "#trial-notes") == f"why it failed: RuntimeError: {SCRIPT}"
    assert not browser.find_element(By.ID, "trial-curve").is_displayed()
    assert count(browser, "#graph .node") > 0
    assert browser.title == made_studies.QUESTION


# ---- the rest of the page ----------------------------------------------------------------------------------


def test_tables_sort_by_a_column(opened: Open, study: Study) -> None:
    browser = opened(study)
    head = browser.find_element(By.CSS_SELECTOR, "#front-table th:nth-child(2)")
    cells = "document.querySelectorAll('#front-table tbody td:nth-child(2)')"
    errors = f"return [...{cells}].map((cell) => +cell.dataset.value)"
    head.find_element(By.TAG_NAME, "button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    up = browser.execute_script(errors)
    assert up == sorted(up)
    head.find_element(By.TAG_NAME, "button").click()
    assert browser.execute_script(errors) == up[::-1]


def test_edges_show_what_is_asked_for(opened: Open, study: Study) -> None:
    browser = opened(study)
    for name in ("parameters", "bytes read", "MACs"):
        browser.find_element(By.XPATH, f"//*[@id='measures']/button[text()='{name}']").click()
        assert text(browser, "#measures [aria-pressed='true']") == name
        column = {"MACs": 3, "parameters": 5, "bytes read": 6}[name]
        drawn = browser.execute_script(
            "return [...document.querySelectorAll('#graph .edge')].map((edge) => [+document.querySelector("
            "`#by-edge tr[data-edge='${edge.dataset.edge}']`).cells[arguments[0]].dataset.value, "
            "+edge.getAttribute('stroke-width'), edge.classList.contains('shade-0')])",
            column,
        )
        assert [width for _, width, _ in sorted(drawn)] == sorted(width for _, width, _ in drawn)
        assert all((value == 0) == nothing for value, _, nothing in drawn)


def test_a_row_of_the_costs_lights_its_edge(opened: Open, study: Study) -> None:
    browser = opened(study)
    row = browser.find_element(By.CSS_SELECTOR, "#by-edge tbody tr")
    ActionChains(browser).move_to_element(row).perform()
    hot = browser.find_elements(By.CSS_SELECTOR, "#graph .edge.hot")
    assert [edge.get_attribute("data-edge") for edge in hot] == [row.get_attribute("data-edge")]


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_no_width_makes_the_page_scroll_sideways(opened: Open, study: Study, width: int) -> None:
    browser = opened(study)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    try:
        browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        sizes = browser.execute_script(
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth, "
            "document.querySelector('.chart').clientWidth, document.querySelector('.panel').clientWidth]"
        )
        assert sizes[0] == sizes[1] <= width
        assert sizes[2] == sizes[3]
        check_shown(
            browser, study, study.pareto_front().knee() or study.pareto_front().points["trial"].iloc[0]
        )
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def bad(*_: object, **__: object) -> None:
    raise RuntimeError("no luck")


@pytest.mark.parametrize(
    "objectives", [["val_error"], ["val_error", "macs"], ["val_error", "macs", "params"]]
)
def test_a_front_of_a_single_point(opened: Open, tmp_path: Path, objectives: list[str]) -> None:
    study = made_studies.run(tmp_path / "one", 1, objectives=dict.fromkeys(objectives, "minimize"))
    browser = opened(study)
    assert count(browser, ".panel .point") == max(1, len(objectives) - 1)
    ActionChains(browser).move_to_element(mark(browser, 0)).click().perform()
    check_shown(browser, study, 0)


def test_a_front_of_many_points(opened: Open, tmp_path: Path) -> None:
    study = made_studies.run(tmp_path / "many", 40)
    browser = opened(study)
    front = study.pareto_front().points["trial"].tolist()
    assert count(browser, ".panel .point.front") == len(front) > 5
    for number in (front[0], front[len(front) // 2], front[-1]):
        ActionChains(browser).move_to_element(mark(browser, number)).click().perform()
        check_shown(browser, study, number)


@pytest.mark.parametrize(
    ("n", "outcome"), [(0, made_studies.made_up), (2, bad)], ids=["no trial", "all failed"]
)
def test_a_study_without_a_front(opened: Open, tmp_path: Path, n: int, outcome: Any) -> None:
    browser = opened(made_studies.run(tmp_path / "none", n, outcome))
    assert text(browser, "#front .note") == "No trial can be ranked yet: none has finished well."
    assert count(browser, ".panel") == 0
    assert count(browser, "#graph .node") == (0 if n == 0 else count(browser, "#by-node tbody tr"))


def test_the_page_of_a_front_alone(opened: Open, browser: Chrome, study: Study, tmp_path: Path) -> None:
    opened(study)  # what is checked at the end holds here too
    front = study.pareto_front()
    pareto_html(front, tmp_path / "report.html")
    browser.refresh()
    for number in front.points["trial"].tolist()[::-1]:
        ActionChains(browser).move_to_element(mark(browser, number)).click().perform()
        assert text(browser, "#trial-title") == f"Trial {number}"
    assert count(browser, "#graph") == 0


def test_the_page_is_readable_without_its_script(opened: Open, study: Study) -> None:
    browser = opened(study)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.refresh()
        assert count(browser, "svg") == 0
        assert browser.find_element(By.ID, "front-table").is_displayed()
        assert not browser.find_element(By.ID, "trial").is_displayed()
        assert "does not run here" in text(browser, "#front noscript")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        browser.refresh()
