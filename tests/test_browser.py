"""The report and `gsi view` in a browser: `make test-browser` (Chromium from Debian, named by GSI_CHROMIUM; skipped without it).

Screenshots go to GSI_SCREENSHOTS (build/screenshots).
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import scripted
from test_view import ROOT, viewing

import gsi
from gsi.ledger import Ledger
from gsi.progress import Reporter
from gsi.report.html import write_report

CHROMIUM = os.environ.get("GSI_CHROMIUM", "")
if not CHROMIUM:
    pytest.skip("GSI_CHROMIUM names no browser; `make test-browser` does", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api")
axe_module = pytest.importorskip("axe_playwright_python.sync_playwright")
expect = (
    playwright.expect
)  # waits, as everything does that is asked of a page after a click: a page may need a task, a timer or a fetch until it has followed
PATIENCE = 120_000  # ms; a machine with much else to do is slow, which is no fault of the page
expect.set_options(timeout=PATIENCE)

SHOTS = Path(os.environ.get("GSI_SCREENSHOTS", ROOT / "build" / "screenshots"))
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
HOSTILE = "</script></pre><script>alert('owned')</script><img src=http://evil.test/x onerror=alert(1)>\"'{{ 7*7 }}${alert(2)}"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield found
        found.close()


@pytest.fixture
def open_page(browser):
    """A page that fails its test where anything is said on the console, a dialog opens, or a request leaves."""
    contexts, problems = [], []

    def opened(url: str, width: int = 1280, dark: bool = False, ready: bool = True):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: problems.append(f"console {m.type}: {m.text}"))
        page.on("pageerror", lambda e: problems.append(f"error: {e}"))
        page.on("dialog", lambda d: (problems.append(f"dialog: {d.message}"), d.dismiss()))
        page.on(
            "request",
            lambda r: problems.append(f"request: {r.url}") if not r.url.startswith(url.split("?")[0].rsplit("/", 1)[0][:21]) else None,
        )
        page.goto(url)
        if ready:
            page.wait_for_selector("html[data-ready='1']", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    evaluate = {"validation": 0.2, "tasks": [{"name": "chain", "args": {"seed": 77, "per_level": 3}}]}
    for strategy in ("vanilla", "state_reset"):
        gsi.run(scripted.config(root / strategy, strategy=strategy, evaluate=evaluate), reporter=Reporter("quiet"))
    ledger = Ledger(root / "state_reset" / "ledger.sqlite")
    row = replace(next(ledger.rows()), level=10, iteration=1, status="no_answer", correct=False)
    text = r"Half is $\frac{1}{2}$ and \[x^2 + 1 = 5\] so \boxed{\sqrt{4}}. It costs $5 and then $6, not $$."
    ledger.add([replace(row, query_id="with math", response=text, completion=text, given="", guidance=None, attempt=0)])
    ledger.add([replace(row, query_id=HOSTILE, response=HOSTILE, completion=HOSTILE, prompt=HOSTILE, given="", guidance=f"{HOSTILE}:0.5", extracted=HOSTILE, status="wrong", attempt=1)])  # fmt: skip
    ledger.close()
    return root


@pytest.fixture(scope="module")
def one(runs, tmp_path_factory) -> str:
    return write_report([runs / "state_reset"], tmp_path_factory.mktemp("one") / "one.html").as_uri()


@pytest.fixture(scope="module")
def two(runs, tmp_path_factory) -> str:
    return write_report([runs / "vanilla", runs / "state_reset"], tmp_path_factory.mktemp("two") / "two.html").as_uri()


def shoot(page, name: str, **options) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", **options)


def serious(page) -> list[str]:
    """What axe-core finds of serious or critical impact."""
    found = axe_module.Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {v['nodes'][0]['html'][:200]} {v['nodes'][0].get('failureSummary', '')[:300]}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]


def marks(page, plot: str):
    return page.locator(f"#{plot} .drawing svg .mark-symbol path, #{plot} .drawing svg .mark-rect path")


def listed(page):
    """The rollouts that are listed, once they are what the filters ask for."""
    expect(page.locator(".browser .list")).to_have_attribute("aria-busy", "false")
    return page.locator(".rollout")


def search(page, text: str) -> None:
    page.get_by_label("Text", exact=True).fill(text)
    listed(page)


def test_every_plot_is_drawn(open_page, one):
    page = open_page(one)
    plots = page.locator("figure.plot")
    assert plots.count() >= 16
    for i in range(plots.count()):
        figure = plots.nth(i)
        expect(figure).to_have_attribute("data-drawn", "1")
        assert figure.locator(".drawing svg path[d]").count() > 3, figure.get_attribute("id")
        box = figure.locator(".drawing svg").bounding_box()
        assert box["width"] > 300
        assert box["height"] > 150
    shoot(page, "report-1280", full_page=True)


def test_legend_zoom_and_hover(open_page, one):
    page = open_page(one)
    figure = page.locator("#r1-drift")
    before = marks(page, "r1-drift").count()
    key = figure.locator(".legend button").nth(1)
    key.focus()
    page.keyboard.press("Enter")
    expect(key).to_have_attribute("aria-pressed", "false")
    expect(marks(page, "r1-drift")).to_have_count(before - 10)  # one point for each level is gone
    key.click()
    expect(marks(page, "r1-drift")).to_have_count(before)
    ticks = "[...document.querySelectorAll('#r1-drift .drawing svg .role-axis-label text')].map((t) => t.textContent).sort().join()"  # in any order
    whole = page.evaluate(ticks)
    figure.get_by_label("Zoom in").click()
    page.wait_for_function(f"(whole) => {ticks} !== whole", arg=whole)
    figure.get_by_label("Whole plot").click()
    page.wait_for_function(f"(whole) => {ticks} === whole", arg=whole)
    figure.locator(".drawing svg .mark-symbol path").last.hover()
    expect(page.locator("#vg-tooltip-element.visible")).to_contain_text("share")


def test_samples_are_filtered_searched_and_paged(open_page, one):
    page = open_page(one)
    expect(listed(page)).to_have_count(25)
    form = page.locator(".filters")
    say = page.locator(".found [role=status]")
    total = int(say.inner_text().split()[0].replace(",", ""))
    summaries = page.locator(".rollout summary")
    first = summaries.first.inner_text()
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".pager input")).to_have_value("2")
    expect(summaries.first).not_to_have_text(first)
    page.locator(".pager input").fill("999999")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    form.get_by_label("Guidance", exact=True).select_option("state_reset")
    form.get_by_label("Verdict", exact=True).select_option("accepted")
    listed(page)
    expect(say).not_to_have_text(f"{total:,} rollouts")
    assert all("accepted" in s and "state_reset:" in s for s in summaries.all_inner_texts())
    summaries.first.click()
    expect(page.locator(".rollout mark").first).not_to_be_empty()
    expect(page.locator(".rollout .body").first).to_contain_text("gold answer")
    form.get_by_label("Guidance", exact=True).select_option("")
    form.get_by_label("Verdict", exact=True).select_option("")
    expect(say).to_have_text(f"{total:,} rollouts")
    search(page, "HALF IS")
    expect(say).to_have_text("1 rollout")
    summaries.first.click()
    expect(page.locator(".rollout math")).to_have_count(3)
    response = page.locator(".rollout pre").nth(1)
    expect(response).to_contain_text("It costs $5 and then $6, not $$.")
    page.get_by_label("Math as formulas").uncheck()
    expect(response).to_contain_text(r"$\frac{1}{2}$")
    search(page, "nowhere at all")
    expect(say).to_have_text("0 rollouts")


def test_a_rollout_is_never_open_and_empty(open_page, one):
    page = open_page(one)
    items = listed(page)
    # asked in the same task as the click that opens it
    opened = "(d) => { d.querySelector('summary').click(); return [d.open, d.querySelectorAll('.body pre').length >= 2]; }"
    assert items.nth(0).evaluate(opened) == [True, True]
    items.nth(1).locator("summary").focus()
    page.keyboard.press("Enter")
    expect(items.nth(1).locator(".body pre").first).to_be_visible()
    items.nth(2).evaluate("(d) => { d.open = true; }")  # as the browser's own search does
    expect(items.nth(2).locator(".body pre").first).to_be_visible()


def test_hostile_text_does_nothing(open_page, one):
    page = open_page(one)
    listed(page)
    search(page, "{{ 7*7 }}")
    expect(page.locator(".found [role=status]")).to_have_text("1 rollout")
    page.locator(".rollout summary").first.click()
    expect(page.locator(".rollout pre").first).to_contain_text(HOSTILE)
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_light_and_dark_wide_and_narrow(open_page, one, width, dark):
    page = open_page(one, width, dark)
    listed(page).locator("summary").first.click()
    expect(page.locator(".rollout .body").first).to_be_visible()
    page.locator("figure details summary").first.click()
    expect(page.locator("figure details table").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(red, green, blue) < 60) == dark
    assert serious(page) == []
    shoot(page, f"report-{width}-{'dark' if dark else 'light'}", full_page=True)


def test_print_shows_plots_in_light_colours_and_no_controls(open_page, one):
    page = open_page(one, dark=True)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    expect(page.locator("figure .drawing svg").first).to_be_visible()
    expect(page.locator(".zoom").nth(0)).not_to_be_visible()
    expect(page.locator(".browser")).not_to_be_visible()
    shoot(page, "report-print", full_page=True)
    assert len(page.pdf(format="A4")) > 50_000


def test_several_runs_by_keyboard(open_page, two):
    page = open_page(two)
    expect(page.locator("#compare-differences svg")).to_have_count(1)
    assert serious(page) == []
    shoot(page, "compare-1280", full_page=True)
    page.get_by_role("tab", name="Comparison").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="vanilla")).to_have_attribute("aria-selected", "true")
    page.wait_for_selector("#r1-shares[data-drawn]")
    page.keyboard.press("End")
    page.wait_for_selector("#r2-shares[data-drawn]")
    expect(page.locator("#panel-compare")).not_to_be_visible()
    expect(page.locator("#panel-r1")).not_to_be_visible()
    assert serious(page) == []


def test_without_scripts_the_figures_can_still_be_read(browser, one):
    context = browser.new_context(java_script_enabled=False)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(one)
    page.locator("#r1-shares details summary").click()
    expect(page.locator("#r1-shares table")).to_be_visible()
    expect(page.locator("#r1-shares")).to_contain_text("needs JavaScript")
    context.close()


def test_view_lists_compares_and_pages(open_page, runs):
    with viewing(runs) as port:
        page = open_page(f"http://127.0.0.1:{port}/", ready=False)
        expect(page.locator("tbody tr")).to_have_count(2)
        assert serious(page) == []
        shoot(page, "view-runs")
        page.get_by_label("Compare vanilla").check()
        page.get_by_label("Compare state_reset").check()
        page.get_by_role("button", name="Compare").click()
        page.wait_for_selector("#compare-differences[data-drawn]")
        page.goto(f"http://127.0.0.1:{port}/run/state_reset")
        listed(page)
        search(page, "half is")
        expect(page.locator(".found [role=status]")).to_have_text("1 rollout")
        page.locator(".rollout summary").first.click()
        expect(page.locator(".rollout math")).to_have_count(3)
        page.close()  # before the server ends, whom it would ask in vain


def test_a_live_run_updates(open_page, tmp_path):
    path = tmp_path / "runs" / "live"
    script = f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); import scripted, gsi; from pathlib import Path; gsi.run(scripted.config(Path({str(path)!r}), strategy='state_reset'))"
    env = os.environ | {"SCRIPTED_DELAY": "0.05", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, env=env) as child:
        try:
            while not (path / "ledger.sqlite").exists() or not (path / "run.json").exists():
                assert child.poll() is None
            while rollouts_in(path) < 40:
                assert child.poll() is None
            child.send_signal(signal.SIGSTOP)  # so that it is in the middle of its first sampling stage however long the browser takes
            with viewing(tmp_path / "runs") as port:
                page = open_page(f"http://127.0.0.1:{port}/run/live")
                panel = page.locator("#live")
                expect(page.locator("#live[data-state='running'] .bars meter").first).to_be_visible()
                expect(panel).to_contain_text("left in this stage")
                assert serious(page) == []
                shoot(page, "view-live")
                seen = panel.get_attribute("data-rollouts")
                child.send_signal(signal.SIGCONT)
                expect(panel).not_to_have_attribute("data-rollouts", seen)
                page.wait_for_selector("html[data-renewed]", state="attached")
                page.wait_for_selector("#r1-shares[data-drawn]", state="attached")
                page.wait_for_selector("#live[data-state='finished']", state="attached")
                page.close()
            assert child.wait(60) == 0
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)


def rollouts_in(run: Path) -> int:
    """Rollouts in the ledger of a run that is at work."""
    time.sleep(0.05)
    with closing(sqlite3.connect(run / "ledger.sqlite", timeout=30)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'rollouts'").fetchone():
            return 0
        return db.execute("SELECT count(*) FROM rollouts").fetchone()[0]


def test_a_folder_that_is_broken_everywhere_still_has_a_page(open_page, runs, tmp_path):
    run = tmp_path / "broken"
    shutil.copytree(runs / "state_reset", run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[1] |= {"tail/coverage": float("nan"), "sample/tokens": HOSTILE, "tail/share/level_3": [1], f"train/dropped/{HOSTILE}": 5}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "{torn")
    (run / "iter_1" / "eval.json").write_bytes(b'{"validation": "\xff')
    shutil.rmtree(run / "iter_2")
    page = open_page(write_report([run], tmp_path / "r.html").as_uri())
    for name in ("iter_1/eval.json", "iter_2/eval.json", "metrics.jsonl line 4"):
        expect(page.locator(".missing")).to_contain_text(name)
