"""How fluid a report of 100,000 rollouts is: `python tests/page_speed.py [N]`, with Chromium named by GSI_CHROMIUM or found in the path.

Prints for each step what the page's main thread computed (CPU time, which a busy machine blurs little), the longest single task on the
clock, the memory of its scripts and the number of DOM nodes. The rollouts are short, so that all of them fit into the page.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from gsi.bench.report import build_run
from gsi.report.html import write_report

ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WATCH = "() => { window.tasks = []; new PerformanceObserver((l) => l.getEntries().forEach((e) => tasks.push(e.duration))).observe({ type: 'longtask' }); }"


def main(rollouts: int) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        build_run(Path(folder) / "run", rollouts, words=(8, 16))
        report = write_report([Path(folder) / "run"], Path(folder) / "report.html")
        browser = p.chromium.launch(executable_path=os.environ.get("GSI_CHROMIUM") or shutil.which("chromium"), args=ARGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(600_000)
        measure = page.context.new_cdp_session(page)
        measure.send("Performance.enable", {"timeDomain": "threadTicks"})

        def step(name: str, act) -> None:
            before = {m["name"]: m["value"] for m in measure.send("Performance.getMetrics")["metrics"]}
            page.evaluate("() => { window.tasks?.splice(0); }")
            act()
            page.wait_for_timeout(400)  # the search waits for a pause in typing
            page.wait_for_selector(".browser .list[aria-busy='false']", state="attached")
            now = {m["name"]: m["value"] for m in measure.send("Performance.getMetrics")["metrics"]}
            longest = page.evaluate("() => Math.max(0, ...(window.tasks ?? []))")
            count = page.locator(".found [role=status]").inner_text()
            print(f"{name:<22} {1000 * (now['TaskDuration'] - before['TaskDuration']):6.0f} ms CPU, longest task {longest:5.0f} ms, heap {now['JSHeapUsedSize'] / 1e6:4.0f} MB, {now['Nodes']:,.0f} nodes; {count}", flush=True)  # fmt: skip

        def opened() -> None:
            page.goto(report.as_uri())
            page.wait_for_selector("html[data-ready='1']", state="attached")

        def page_number(n: int) -> None:
            page.locator(".pager input").fill(str(n))
            page.keyboard.press("Enter")

        choose = lambda name, value: page.get_by_label(name, exact=True).select_option(value)  # noqa: E731
        step(f"open {report.stat().st_size / 1e6:.1f} MB", opened)
        page.evaluate(WATCH)
        step("next page", lambda: page.get_by_role("button", name="Next").click())
        step("a page in the middle", lambda: page_number(rollouts // 50))
        step("last page", lambda: page_number(rollouts))
        step("one level", lambda: choose("Level", "7"))
        step("accepted", lambda: choose("Verdict", "accepted"))
        step("hardest first", lambda: choose("Order", "hardest"))
        step("all levels", lambda: choose("Level", ""))
        step("all", lambda: choose("Verdict", ""))
        step("longest first", lambda: choose("Order", "longest"))
        step("search", lambda: page.get_by_label("Text", exact=True).fill("answer is 13"))
        step("another search", lambda: page.get_by_label("Text", exact=True).fill("kilos left"))
        step("in vain", lambda: page.get_by_label("Text", exact=True).fill("nowhere at all"))
        browser.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
