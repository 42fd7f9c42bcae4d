"""Makes the pictures of docs/steering.md: the tutorial's example, searched by a real browser.

Run from the repository root: ``python docs/make_screenshots.py``. It needs the extra ``dev`` and a Chromium,
and takes a minute. The search is seeded; machines move numbers a little, so look at the pictures, and at the
text that quotes them.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.steer.browser import Visitor, chromium, missing, rectangle  # noqa: E402

FOLDER = ROOT / "docs" / "steering"
LARGEST = 150_000  # bytes of a picture


def keep(page: Any, name: str, **options: Any) -> None:
    """Write what is seen, without losing anything."""
    from PIL import Image

    page.wait_for_timeout(700)
    picture = Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")
    path = FOLDER / f"{name}.webp"
    picture.save(path, lossless=True, method=6)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {picture.width} x {picture.height}, {size:,} bytes")
    if size > LARGEST:
        raise SystemExit(f"{path.name}: expected at most {LARGEST:,} bytes")


def section(page: Any, name: str, picture: str) -> None:
    """A picture of one view."""
    page.locator("#messages .close").evaluate_all("all => all.forEach(each => each.click())")
    view = page.locator(f"#{name}")
    view.scroll_into_view_if_needed()
    page.evaluate(f"document.querySelector('header').style.position = 'static'; {name!r}")
    box = view.bounding_box()
    shift = page.evaluate("window.scrollY")
    clip = {"x": box["x"], "y": box["y"] + shift, "width": box["width"], "height": box["height"]}
    keep(page, picture, full_page=True, clip=clip)


def main() -> None:
    """Train, search, and take five pictures."""
    import torch

    from pynas.steer import steer

    if missing():
        raise SystemExit(missing())
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    with steer(budget=60) as search, chromium() as browser:
        visitor = Visitor(browser, 1280, 900, charts=True)
        page = visitor.open(search.url)
        if not search.wait(180):
            raise SystemExit("the example did not end in three minutes")
        worst = min(
            (each for each in search.steering.blocks()["blocks"] if not each["thin"]),
            key=lambda each: each["high"],
            default=None,
        )
        if worst is None:
            raise SystemExit("no block has evidence that is not thin; search longer")
        print(f"{worst['id']}: fitness {worst['fitness']:.3f} [{worst['low']:.3f}, {worst['high']:.3f}]")
        page.get_by_role("button", name="Look at the best").click()
        page.locator(f'#template-view [data-block="{worst["id"]}"]').click()
        page.evaluate("scrollTo(0, 0)")
        page.mouse.move(1, 1)
        keep(page, "overview")
        section(page, "blocks", "blocks")
        rectangle(page, 0.06, 0.06, 0.4, 0.5)
        page.mouse.move(1, 1)
        section(page, "candidates", "candidates")
        page.locator("#block-panel").get_by_role("button", name="Forbid").click()
        keep(page, "preview", clip=_around(page.locator("dialog[open]"), 30))
        page.get_by_role("button", name="Apply").click()
        visitor.close()
        phone = Visitor(browser, 390, 844, charts=True, color_scheme="dark", device_scale_factor=1.5)
        page = phone.open(search.url)
        keep(page, "phone")
        phone.close()


def _around(target: Any, room: int) -> dict[str, float]:
    box = target.bounding_box()
    return {
        "x": box["x"] - room,
        "y": max(0, box["y"] - room),
        "width": box["width"] + 2 * room,
        "height": box["height"] + 2 * room,
    }


if __name__ == "__main__":
    main()
