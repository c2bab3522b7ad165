"""Shows pages as browsers and paper do: three widths, light and dark, and a PDF.

Says how many screens each has, what it asks of others, and the errors of its script.

pip install -e '.[browser]'
python docs/make_screenshots.py OUT report.html [report.html ...]
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

WIDTHS = (390, 820, 1400)
HEIGHT = 900  # of a screen
OPEN = "document.querySelectorAll('details').forEach(each => { each.open = true })"


def show(page: Page, path: Path, out: Path, name: str, width: int) -> None:
    """Takes pictures of a page, closed and opened; prints how many screens it has."""
    asked: list[str] = []
    page.on("request", lambda each: asked.append(each.url))
    page.on("console", lambda each: each.type == "error" and asked.append(each.text))
    page.on("pageerror", lambda error: asked.append(str(error)))
    page.goto(path.resolve().as_uri())
    for state in ("closed", "opened"):
        if state == "opened":
            page.evaluate(OPEN)
        page.screenshot(path=out / f"{name}_{state}.png", full_page=True)
        screens = page.evaluate("document.documentElement.scrollHeight") / HEIGHT
        print(f"{name} {state}: {screens:.1f} screens of {width} x {HEIGHT}")
    others = [each for each in asked if not each.startswith(("file:", "data:"))]
    print(f"{name}: {len(others)} requests and errors", *others)


def main(out: Path, paths: list[Path]) -> None:
    """Takes all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for path in paths:
            study = path.resolve().parent.name
            for width in WIDTHS:
                for scheme in ("light", "dark"):
                    page = browser.new_page(
                        viewport={"width": width, "height": HEIGHT}, color_scheme=scheme
                    )
                    show(page, path, out, f"{study}_{width}_{scheme}", width)
                    page.close()
            page = browser.new_page()
            page.goto(path.resolve().as_uri())
            page.pdf(path=out / f"{study}.pdf", format="A4")
            page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]])
