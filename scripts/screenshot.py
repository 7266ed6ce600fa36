"""Picture the console in a real browser, as a person sees it.

The console must be running (`make demo`, or `streamlit run dashboard/app.py`). Needs Chromium (Debian: `apt-get install chromium`).
"""
import argparse
import os
import sys
from pathlib import Path

from config import settings
from scripts._arguments import ended, positive
from store import disk

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
READY = ".headline"
PAGES = ("desk", "positions", "sizing", "decisions", "order", "models", "fillprob", "control")


def chromium() -> str | None:
    """Where a Chromium is; None where there is none."""
    return next((path for path in CHROMIUM if Path(path).exists()), None)


def picture(url: str, to: Path, width: int = 1600, height: int = 1000, whole: bool = False, settle_ms: int = 2500) -> list[str]:
    """Writes a PNG of the page at `url`, and returns what the browser complained of. `RuntimeError` where the page stays empty."""
    from playwright.sync_api import Error, sync_playwright
    said: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(url, wait_until="domcontentloaded")
            page.wait_for_selector(READY, timeout=30_000)
            page.wait_for_timeout(settle_ms)
            if whole:   # the page scrolls inside its own frame: make the window as tall as that
                tall = page.evaluate("Math.max(...[...document.querySelectorAll('section,[data-testid=stMain]')].map(e => e.scrollHeight))")
                page.set_viewport_size({"width": width, "height": max(height, int(tall))})
                page.wait_for_timeout(800)
            to.parent.mkdir(parents=True, exist_ok=True)
            part = to.with_suffix(".part.png")
            page.screenshot(path=part)
            os.replace(part, to)
        except Error as error:
            raise RuntimeError(f"{url}: {str(error).splitlines()[0]}") from None
        finally:
            browser.close()
    return said


@disk.told("screenshot")
def main(argv: list[str] | None = None) -> int:
    """One picture, or one of every page."""
    parser = argparse.ArgumentParser(prog="sluice screenshot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="example:\n  python -m scripts.screenshot --page desk --out docs/images/console.png")
    parser.add_argument("--page", default="desk", choices=PAGES, help="which; default: %(default)s")
    parser.add_argument("--out", type=Path, default=settings.ROOT / "docs" / "images" / "console.png", help="the PNG to write")
    parser.add_argument("--url", help="where the console is; default: the configured port of this machine")
    parser.add_argument("--width", type=positive, default=1600, help="of the window in pixels; default: %(default)s")
    parser.add_argument("--height", type=positive, default=1000, help="of the window in pixels; default: %(default)s")
    parser.add_argument("--whole", action="store_true", help="the whole page, not only what fits the window")
    args = parser.parse_args(argv)
    if chromium() is None:
        print(f"no Chromium at {', '.join(CHROMIUM)}: apt-get install chromium", file=sys.stderr)
        return 1
    ports = settings.load().ports
    base = (args.url or f"http://{ports.bind}:{ports.console}").rstrip("/")
    page = "" if args.page == "desk" else args.page   # the first page is the address itself
    try:
        complaints = picture(f"{base}/{page}", args.out, args.width, args.height, args.whole)
    except RuntimeError as error:
        print(f"no picture: {error}\nIs the console running? `make demo` starts it.", file=sys.stderr)
        return 1
    print(args.out)
    for line in complaints:
        print(f"the browser complained: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
