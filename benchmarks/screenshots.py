"""Take the documentation's pictures of a report's page in Chromium: the page, and the player on a failed episode.

python benchmarks/screenshots.py il-bench-report [--output docs/images]
"""

import argparse
import json
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

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
    """Write page.png and player.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    address = f"{(options.report.resolve() / 'report.html').as_uri()}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, part in (("page", ""), ("player", failed(options.report))):
            context = browser.new_context(
                viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce", color_scheme="light"
            )
            page = context.new_page()
            page.goto(address + part)
            page.wait_for_selector("html[data-ready]")
            if part:
                page.locator("#player-step").fill("210")
            path = options.output / f"{name}.png"
            page.screenshot(path=path)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
