"""The page as it is used: in Chromium, driven by Playwright, with axe-core for labels and contrast."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from il_bench.report import schema, views
from il_bench.rollout.recording import UNITS
from il_bench.rollout.recordings import Recordings
from tests.report import recorded
from tests.report.test_latency import row as latency_row
from tests.report.test_page import in_reach, outcomes_of
from tests.report.test_tokenizers import tokenizer

CHROMIUM = os.environ.get("IL_BENCH_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
)
HOSTILE = "<img src=x onerror=document.title='owned'>"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium"),
]
Page = Any


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser itself."""
    api = pytest.importorskip("playwright.sync_api", reason="needs the extra il-bench[browser]")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every section, of which one policy has lost episodes of its baseline."""
    folder = tmp_path_factory.mktemp("seen")
    recorded.written(
        folder,
        latency=[latency_row(policy="wander"), latency_row("control step", policy="wander")],
        tokenizers=[tokenizer("bins")],
    )
    return folder


class Opened:
    """Opens pages, and keeps what they complain about."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium
        self.complaints: list[str] = []
        self._contexts: list[Any] = []

    def __call__(self, path: Path, address: str = "", *, width: int = 1200, dark: bool = False) -> Page:
        context = self._chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        self._contexts.append(context)
        page = context.new_page()
        page.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type == "error" else None,
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith(("file:", "data:", "blob:"))
                else self.complaints.append(asked.url)
            ),
        )
        page.goto(f"{path.as_uri()}{address}")
        page.wait_for_selector("html[data-ready]")
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def show(chromium: Any) -> Iterator[Opened]:
    """Open pages; at the end, none may have complained or asked the network for anything."""
    opened = Opened(chromium)
    yield opened
    opened.close()
    assert opened.complaints == []


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def eventually(page: Page, condition: str) -> None:
    """Wait until an expression holds; Playwright's own way needs an `eval`, which the page forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never: {condition}")


@pytest.mark.parametrize("width", [380, 768, 1600])
def test_nothing_needs_sideways_scrolling(show: Opened, folder: Path, width: int) -> None:
    page = show(folder / "report.html", width=width)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert overflow(page) <= 0
    page = show(folder / "report.html", f"#wander/{recorded.SEEDS[3]}", width=width)
    assert overflow(page) <= 0
    assert page.evaluate("byId = document.getElementById('player'), byId.scrollWidth - byId.clientWidth") <= 0


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("address", ["", f"#wander+expert/{recorded.SEEDS[3]}"])
def test_contrast_and_labels_hold(show: Opened, folder: Path, dark: bool, address: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs il-bench[browser]")
    page = show(folder / "report.html", address, dark=dark)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    found = axe.Axe().run(page)
    assert [(each["id"], each["nodes"][0]["html"][:160]) for each in found.response["violations"]] == []


def test_the_player_shows_the_recorded_states(show: Opened, folder: Path) -> None:
    seed = recorded.SEEDS[3]
    rows = Recordings(folder, "wander", "keypoints").load()[0][seed] * tuple(UNITS.values())
    page = show(folder / "report.html", f"#wander/{seed}")
    assert page.inner_text("#player-title") == f"wander, seed {seed}"
    for step in (0, 17, len(rows) - 1):
        page.locator("#player-step").fill(str(step))
        agent, block = rows[step, :2], rows[step, 2:4]
        said = page.inner_text(".readout")
        assert f"coverage {rows[step, 7]:.3f}" in said
        assert f"agent {agent[0]:.1f}, {agent[1]:.1f} · block {block[0]:.1f}, {block[1]:.1f}" in said
        # The canvas holds what the text says: the agent's colour lies where the agent is.
        at = page.evaluate(
            "([x, y]) => { const c = document.querySelector('canvas'), s = c.width / 512;"
            "return [...c.getContext('2d').getImageData(x * s, y * s, 1, 1).data].slice(0, 3); }",
            agent.tolist(),
        )
        assert at == [31, 95, 168]
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#player-at") == f"step 1 of {len(rows) - 1}"
    page.locator("#player-speed").select_option("8")
    page.keyboard.press("Space")
    eventually(page, "Number(document.getElementById('player-step').value) > 8")
    assert page.inner_text("#player-play") == "pause"
    page.keyboard.press("Space")
    assert "il-bench replay wander --seed" in page.inner_text(".facts code")


def test_addresses_and_keys_lead_from_episode_to_episode(show: Opened, folder: Path) -> None:
    page = show(folder / "report.html", f"#wander+expert/{recorded.SEEDS[3]}")
    assert page.locator("canvas").count() == 2
    page.keyboard.press("n")
    assert page.evaluate("location.hash") == f"#wander+expert/{recorded.SEEDS[4]}"
    page.keyboard.press("p")
    page.keyboard.press("Escape")
    eventually(page, "location.hash == ''")
    assert not page.locator("#player").is_visible()
    page.evaluate("location.hash = '#wander/1'")
    eventually(page, "document.getElementById('found').textContent.includes('no episode 1 of wander')")
    page.evaluate("location.hash = '#expert/?success'")
    eventually(page, "document.getElementById('filter-policy').value === 'expert'")
    assert page.locator(".tile").count() == len(recorded.SEEDS)


def test_filters_count_what_the_report_counts(show: Opened, folder: Path) -> None:
    page = show(folder / "report.html")
    rows = schema.load(folder / "report.json").success
    page.locator("#filter-policy").select_option("*")
    for which, right in {
        "all": lambda each: True,
        "failed": lambda each: not each.success,
        "solved": lambda each: each.success,
        "near": lambda each: not each.success and each.best_coverage > 0.9,
        "outside": lambda each: each.outside > 0,
    }.items():
        page.locator("#filter-which").select_option(which)
        n = sum(right(episode) for row in rows for episode in row.episodes)
        assert page.inner_text("#found").startswith(f"{n} of {2 * len(recorded.SEEDS)} episodes")
    counts = {row.policy: sum(each.ending == "stuck" for each in row.episodes) for row in rows}
    for policy, n in counts.items():
        link = page.locator(f"#failures a[href='#{policy}/?stuck']")
        assert [link.nth(i).inner_text() for i in range(link.count())] == ([str(n)] if n else [])


def test_every_chart_has_its_numbers_and_can_be_saved(show: Opened, folder: Path) -> None:
    page = show(folder / "report.html")
    for part in ("evidence", "progress", "speed-charts"):
        figures = page.locator(f"#{part} figure")
        assert figures.count() > 0
        figures.first.locator("summary").click()
        figures.first.locator("tbody tr").first.wait_for()
    with page.expect_download() as saved:
        page.locator("#progress figure button").first.click()
    assert saved.value.suggested_filename.endswith(".svg")
    page.locator("#tokens summary", has_text="moves occur").click()
    page.locator(".moves button").first.hover()
    assert page.inner_text(".said").startswith("tokens ")


def test_two_runs_show_what_flipped_in_step(show: Opened, folder: Path, tmp_path: Path) -> None:
    before = schema.load(folder / "report.json")
    rows = tuple(recorded.row(row.policy, recorded.worse(outcomes_of(row), 20)) for row in before.success)
    shutil.copytree(folder / "recordings", tmp_path / "recordings")
    later = before.model_copy(update={"success": rows})
    assert views.draw(later, tmp_path, tmp_path / "two.html", before=folder / "report.json")[1] == []
    page = show(tmp_path / "two.html")
    assert page.locator("#changes tbody tr").count() == 2
    page.locator("#flips a").first.click()
    page.wait_for_selector("#player[open]")
    assert page.inner_text("#player-title").startswith("expert and expert (other run), seed ")


def test_an_environment_of_ones_own_has_rewards_and_no_arena(show: Opened, tmp_path: Path) -> None:
    in_reach(tmp_path)
    page = show(tmp_path / "report.html", "#reacher/200000")
    said = page.inner_text("#player")
    assert "only its rewards are recorded" in said and "Reward over the steps" in said
    assert page.locator("canvas").count() == 0 and "il-bench replay" not in said
    assert overflow(page) <= 0


def test_a_hostile_report_runs_nothing(show: Opened, tmp_path: Path) -> None:
    found = recorded.written(
        tmp_path,
        failed=HOSTILE,
        solved="</script><script>document.title='owned'</script>",
        tokenizers=[tokenizer(HOSTILE)],
    )
    assert found.success[0].policy == HOSTILE
    page = show(tmp_path / "report.html")
    page.locator(".tile").first.click()
    page.wait_for_selector("#player[open]")
    assert "owned" not in page.title() or page.title().startswith("il_bench: ")
    assert page.locator("img").count() == 0
    assert HOSTILE in page.inner_text("#player-title")


def test_it_prints_without_what_only_works_on_a_screen(show: Opened, folder: Path) -> None:
    page = show(folder / "report.html")
    page.emulate_media(media="print")
    assert not page.locator("#filters").is_visible() and page.locator("#policies").is_visible()
