"""Take the documentation's pictures in Chromium: a report's page, a failed episode, how policies learned.

python benchmarks/screenshots.py il-bench-report [--output docs/images]
"""

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from il_bench.report import curves

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
WIDTH, HEIGHT = 1200, 860


def failed(folder: Path) -> str:
    """The address of the shipped policies' first near miss, or else of their first failure."""
    rows = json.loads((folder / "report.json").read_text(encoding="utf-8"))["success"]
    found = [
        (episode["ending"] != "near miss", episode["seed"], row["policy"])
        for row in rows
        for episode in row["episodes"]
        if not episode["success"] and row["policy"] != "untrained"
    ]
    _, seed, policy = min(found)
    return f"#{policy}/{seed}"


def main() -> None:
    """Write page.png, player.png and training-curves.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    report = (options.report.resolve() / "report.html").as_uri()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        learned = Path(folder) / "curves.html"
        learned.write_text(curves.render(curves.read_beside_shipped(())), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        size = (options.report / "report.html").stat().st_size
        print(f"report.html: {size / 1e6:.2f} MB, ready after {opened(browser, report):.2f} s")
        for name, address, part in (
            ("page", report, None),
            ("player", report + failed(options.report), None),
            ("training-curves", learned.as_uri(), "#training-charts"),
        ):
            path = options.output / f"{name}.png"
            take(browser, address, part, path)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


def opened(browser: Any, address: str) -> float:
    """Seconds until a page is drawn, recordings unpacked: the median of five times."""
    times = []
    for _ in range(5):
        context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        times.append(float(page.evaluate("document.documentElement.dataset.ready")) / 1000)
        context.close()
    return statistics.median(times)


def take(browser: Any, address: str, part: str | None, path: Path) -> None:
    """Take a picture of a page, or of a part of it; of an episode, at a late step."""
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce", color_scheme="light"
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    if page.locator("#player-step").count():
        page.locator("#player-step").fill("210")
    (page.locator(part) if part else page).screenshot(path=path)
    context.close()


if __name__ == "__main__":
    main()
