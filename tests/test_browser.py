"""The report and `gsi view` in a browser: `make test-browser` (Chromium from Debian, named by GSI_CHROMIUM; skipped without it).

Screenshots go to GSI_SCREENSHOTS (build/screenshots).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
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
            page.wait_for_selector("html[data-ready='1']", state="attached", timeout=60_000)
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


def marks(page, plot: str) -> int:
    return page.locator(f"#{plot} .drawing svg .mark-symbol path, #{plot} .drawing svg .mark-rect path").count()


def test_every_plot_is_drawn(open_page, one):
    page = open_page(one)
    plots = page.locator("figure.plot")
    assert plots.count() >= 16
    for i in range(plots.count()):
        figure = plots.nth(i)
        assert figure.get_attribute("data-drawn") == "1"
        assert figure.locator(".drawing svg path[d]").count() > 3, figure.get_attribute("id")
        box = figure.locator(".drawing svg").bounding_box()
        assert box["width"] > 300
        assert box["height"] > 150
    shoot(page, "report-1280", full_page=True)


def test_legend_zoom_and_hover(open_page, one):
    page = open_page(one)
    figure = page.locator("#r1-drift")
    before = marks(page, "r1-drift")
    key = figure.locator(".legend button").nth(1)
    key.focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(200)
    assert key.get_attribute("aria-pressed") == "false"
    assert marks(page, "r1-drift") == before - 10, "one point for each level is gone"
    key.click()
    page.wait_for_timeout(200)
    assert marks(page, "r1-drift") == before
    ticks = lambda: figure.locator(".drawing svg .role-axis-label text").all_inner_texts()  # noqa: E731
    whole = ticks()
    figure.get_by_label("Zoom in").click()
    page.wait_for_timeout(200)
    assert ticks() != whole
    figure.get_by_label("Whole plot").click()
    page.wait_for_timeout(200)
    assert ticks() == whole
    figure.locator(".drawing svg .mark-symbol path").last.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "share" in page.locator("#vg-tooltip-element").inner_text()


def test_samples_are_filtered_searched_and_paged(open_page, one):
    page = open_page(one)
    page.wait_for_selector(".rollout")
    form = page.locator(".filters")
    say = page.locator(".found [role=status]")
    total = int(say.inner_text().split()[0].replace(",", ""))
    assert page.locator(".rollout").count() == 25
    first = page.locator(".rollout summary").first.inner_text()
    page.get_by_role("button", name="Next").click()
    playwright.expect(page.locator(".pager input")).to_have_value("2")
    assert page.locator(".rollout summary").first.inner_text() != first
    page.locator(".pager input").fill("999999")
    page.keyboard.press("Enter")
    playwright.expect(page.get_by_role("button", name="Next")).to_be_disabled()
    form.get_by_label("Guidance", exact=True).select_option("state_reset")
    form.get_by_label("Verdict", exact=True).select_option("accepted")
    playwright.expect(say).not_to_have_text(f"{total:,} rollouts")
    summaries = page.locator(".rollout summary").all_inner_texts()
    assert all("accepted" in s and "state_reset:" in s for s in summaries)
    page.locator(".rollout summary").first.click()
    assert page.locator(".rollout mark").first.inner_text()
    assert "gold answer" in page.locator(".rollout .body").first.inner_text()
    form.get_by_label("Guidance", exact=True).select_option("")
    form.get_by_label("Verdict", exact=True).select_option("")
    playwright.expect(say).to_have_text(f"{total:,} rollouts")
    form.get_by_label("Text", exact=True).fill("HALF IS")
    playwright.expect(say).to_have_text("1 rollout")
    page.locator(".rollout summary").first.click()
    assert page.locator(".rollout math").count() == 3
    assert "It costs $5 and then $6, not $$." in page.locator(".rollout pre").nth(1).inner_text()
    page.get_by_label("Math as formulas").uncheck()
    assert r"$\frac{1}{2}$" in page.locator(".rollout pre").nth(1).inner_text()
    form.get_by_label("Text", exact=True).fill("nowhere at all")
    playwright.expect(say).to_have_text("0 rollouts")


def test_hostile_text_does_nothing(open_page, one):
    page = open_page(one)
    page.wait_for_selector(".rollout")
    page.get_by_label("Text", exact=True).fill("{{ 7*7 }}")
    playwright.expect(page.locator(".found [role=status]")).to_have_text("1 rollout")
    page.locator(".rollout summary").first.click()
    assert HOSTILE in page.locator(".rollout pre").first.inner_text()
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_light_and_dark_wide_and_narrow(open_page, one, width, dark):
    page = open_page(one, width, dark)
    page.wait_for_selector(".rollout")
    page.locator(".rollout summary").first.click()
    page.locator("figure details summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(red, green, blue) < 60) == dark
    assert serious(page) == []
    shoot(page, f"report-{width}-{'dark' if dark else 'light'}", full_page=True)


def test_print_shows_plots_in_light_colours_and_no_controls(open_page, one):
    page = open_page(one, dark=True)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("figure .drawing svg").first.is_visible()
    assert not page.locator(".zoom").nth(0).is_visible()
    assert not page.locator(".browser").is_visible()
    shoot(page, "report-print", full_page=True)
    assert len(page.pdf(format="A4")) > 50_000


def test_several_runs_by_keyboard(open_page, two):
    page = open_page(two)
    assert page.locator("#compare-differences svg").count() == 1
    assert serious(page) == []
    shoot(page, "compare-1280", full_page=True)
    page.get_by_role("tab", name="Comparison").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="vanilla").get_attribute("aria-selected") == "true"
    page.wait_for_selector("#r1-shares[data-drawn]")
    page.keyboard.press("End")
    page.wait_for_selector("#r2-shares[data-drawn]")
    assert not page.locator("#panel-compare").is_visible()
    assert not page.locator("#panel-r1").is_visible()
    assert serious(page) == []


def test_without_scripts_the_figures_can_still_be_read(browser, one):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(one)
    page.locator("#r1-shares details summary").click()
    assert page.locator("#r1-shares table").is_visible()
    assert "needs JavaScript" in page.locator("#r1-shares").inner_text()
    context.close()


def test_view_lists_compares_and_pages(open_page, runs):
    with viewing(runs) as port:
        page = open_page(f"http://127.0.0.1:{port}/", ready=False)
        assert page.locator("tbody tr").count() == 2
        assert serious(page) == []
        shoot(page, "view-runs")
        page.get_by_label("Compare vanilla").check()
        page.get_by_label("Compare state_reset").check()
        page.get_by_role("button", name="Compare").click()
        page.wait_for_selector("#compare-differences[data-drawn]")
        page.goto(f"http://127.0.0.1:{port}/run/state_reset")
        page.wait_for_selector(".rollout")
        say = page.locator(".found [role=status]")
        page.get_by_label("Text", exact=True).fill("half is")
        playwright.expect(say).to_have_text("1 rollout")
        page.locator(".rollout summary").first.click()
        assert page.locator(".rollout math").count() == 3


def test_a_live_run_updates(open_page, tmp_path):
    path = tmp_path / "runs" / "live"
    script = f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); import scripted, gsi; from pathlib import Path; gsi.run(scripted.config(Path({str(path)!r}), strategy='state_reset'))"
    env = os.environ | {"SCRIPTED_DELAY": "0.05", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, env=env) as child:
        try:
            while not (path / "ledger.sqlite").exists() or not (path / "run.json").exists():
                assert child.poll() is None
            with viewing(tmp_path / "runs") as port:
                page = open_page(f"http://127.0.0.1:{port}/run/live")
                panel = page.locator("#live")
                page.wait_for_selector("#live[data-state='running'] .bars meter", timeout=60_000)
                playwright.expect(panel).to_contain_text("left in this stage", timeout=60_000)
                assert serious(page) == []
                shoot(page, "view-live")
                seen = int(panel.get_attribute("data-rollouts"))
                page.wait_for_selector(f"#live:not([data-rollouts='{seen}'])", timeout=60_000)
                page.wait_for_selector("html[data-renewed]", state="attached", timeout=120_000)
                page.wait_for_selector("#r1-shares[data-drawn]", timeout=120_000)
                page.wait_for_selector("#live[data-state='finished']", state="attached", timeout=180_000)
                assert child.wait(60) == 0
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)


def test_a_folder_that_is_broken_everywhere_still_has_a_page(open_page, runs, tmp_path):
    run = tmp_path / "broken"
    shutil.copytree(runs / "state_reset", run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[1] |= {"tail/coverage": float("nan"), "sample/tokens": HOSTILE, "tail/share/level_3": [1], f"train/dropped/{HOSTILE}": 5}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "{torn")
    (run / "iter_1" / "eval.json").write_bytes(b'{"validation": "\xff')
    shutil.rmtree(run / "iter_2")
    page = open_page(write_report([run], tmp_path / "r.html").as_uri())
    text = page.locator(".missing").inner_text()
    for name in ("iter_1/eval.json", "iter_2/eval.json", "metrics.jsonl line 4"):
        assert name in text
