"""Makes the pictures of README: two from the committed records, one of the page of a search that it runs.

Run from the repository root: ``python docs/make_pictures.py``. The page needs the extra ``dev`` and a
Chromium, and the search some seconds; ``--records`` makes the two others alone. They follow the reader's dark
setting. The search is seeded; machines move numbers a little, so look at the picture.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benches" / "results"
FOLDER = ROOT / "docs" / "pictures"
LARGEST = 150_000  # bytes of a picture
SPEED = "amd-epyc-zen4-2-threads.jsonl"
# case, baseline, what it is, unit of the figures.
CASES = (
    ("mixed_supernet/darts_8_cells", "loop, channels_last", "a training step of a DARTS supernet", "s"),
    (
        "mixed_op/darts_64x16x32x32_saved_products",
        "loop, channels_last",
        "what an edge keeps for backward",
        "",
    ),
    ("zico/nasbench201_float32", "published", "ZiCo of NAS-Bench-201 networks", "s"),
)
BASELINES = {"loop, channels_last": "loop over candidates", "published": "published procedure"}
PROXIES = ("vote(synflow,jacob_cov,snip)", "zico_per_sample", "naswot", "zico", "synflow", "params", "snip")
STYLE = """
text { font: 14px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; fill: #1f2937; }
.small { font-size: 12.5px; fill: #6b7280; } .line { stroke: #9ca3af; }
.own { fill: #2563eb; stroke: #2563eb; } .other { fill: #9ca3af; stroke: #9ca3af; }
.top { fill: #d97706; stroke: #d97706; }
@media (prefers-color-scheme: dark) {
  text { fill: #e5e7eb; } .small { fill: #9ca3af; } .own { fill: #60a5fa; stroke: #60a5fa; }
}
"""


def svg(name: str, width: int, height: int, title: str, parts: Iterable[str]) -> None:
    """Write a drawing."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    text = "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", *parts, "</svg>\n"])
    kept(FOLDER / f"{name}.svg", text.encode())


def kept(path: Path, content: bytes) -> None:
    """Write a file, unless it is too large to be a picture of a README."""
    if len(content) > LARGEST:
        raise SystemExit(f"{path.name}: expected at most {LARGEST:,} bytes, got {len(content):,}")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    print(f"{path.relative_to(ROOT)}: {len(content):,} bytes")


def label(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def speed() -> None:
    """Times and memory as shares of what they replace."""
    records: dict[str, Any] = {}
    for line in (RESULTS / SPEED).read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        records[record["case"]] = record  # the last one counts
    left, full, parts, y = 20, 440, [], 8
    for case, baseline, what, unit in CASES:
        record = records[case]
        replaced = record["timings"][baseline]["p50"]
        shown = f"{replaced:.2f} {unit}" if unit else f"{replaced:.0f} times its input"
        y += 22
        parts.append(label(left, y, what))
        for text, share, kind in (
            (f"{BASELINES[baseline]}: {shown}", 1.0, "other"),
            (f"pynas: {record['ratio']:.2f} of it", record["ratio"], "own"),
        ):
            box = f'y="{y + 8}" width="{full * share:.1f}" height="18"'
            parts.append(f'<rect x="{left}" {box} rx="3" class="{kind}"/>')
            parts.append(label(left + full * share + 8, y + 22, text, "small"))
            y += 24
        y += 10
    machine = records[CASES[0][0]]["machine"]
    where = f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}"
    about = f"{where}; medians of ratios in benches/results"
    parts.append(label(left, y + 14, about, "small"))
    svg("speed", 740, y + 28, "What an operation takes, beside what it replaces", parts)


def ranking() -> None:
    """Kendall's tau of proxies, over all architectures and among the most accurate."""
    record = json.loads((RESULTS / "ranking-nasbench201.json").read_text(encoding="utf-8"))
    found = record["ranking"]["correlations"]
    left, right, low, high = 240, 700, -0.4, 0.8
    at = lambda value: left + (value - low) / (high - low) * (right - left)  # noqa: E731
    parts, bottom = [], 44 + 34 * len(PROXIES)
    for tick in (-0.4, -0.2, 0, 0.2, 0.4, 0.6, 0.8):
        x, width = at(tick), 1.5 if tick == 0 else 0.4
        parts.append(
            f'<line x1="{x:.1f}" y1="34" x2="{x:.1f}" y2="{bottom}" class="line" stroke-width="{width}"/>'
        )
        parts.append(label(x, bottom + 18, f"{tick:g}", "small", "middle"))
    for i, name in enumerate(PROXIES):
        y = 56 + 34 * i
        parts.append(label(left - 12, y + 5, f"{name} (baseline)" if name == "params" else name, "", "end"))
        for key, kind, shift in (("kendall", "own", -5), ("kendall_top", "top", 6)):
            value = found[name][key]
            ends = f'x1="{at(value["low"]):.1f}" x2="{at(value["high"]):.1f}"'
            parts.append(f'<line {ends} y1="{y + shift}" y2="{y + shift}" class="{kind}" stroke-width="2"/>')
            parts.append(f'<circle cx="{at(value["value"]):.1f}" cy="{y + shift}" r="4.5" class="{kind}"/>')
    parts += [
        f'<circle cx="{left}" cy="14" r="5" class="own"/>',
        label(left + 12, 19, "all"),
        f'<circle cx="{left + 70}" cy="14" r="5" class="top"/>',
        label(left + 82, 19, "the 5 % most accurate"),
    ]
    about = (
        f"Kendall's tau with 200-epoch accuracy, {record['ranking']['architectures']:,} NAS-Bench-201 cells, "
        "95 % bootstrap intervals"
    )
    parts.append(label(right, bottom + 40, about, "small", "end"))
    svg("ranking", 740, bottom + 52, "How proxies rank NAS-Bench-201", parts)


def page() -> None:
    """The page of a search whose networks are a small version of the space's."""
    from PIL import Image

    sys.path.insert(0, str(ROOT))
    from tests.steer.browser import chromium

    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.html"
        command = ["search", "--space", "nasbench201:channels=8,num_cells=1", "--images", "digits"]
        command += ["--batch", "64", "--threads", "1", "--table", "analog", "--budget", "200"]
        command += ["--report", str(report)]
        subprocess.run([sys.executable, "-m", "pynas.cli", *command], check=True)
        with chromium() as browser:
            view = browser.new_context(viewport={"width": 1180, "height": 1560})
            tab = view.new_page()
            tab.goto(report.as_uri())
            tab.wait_for_selector("html[data-ready]")
            tab.wait_for_timeout(500)
            picture = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    held = io.BytesIO()
    picture.resize((886, 1170), Image.Resampling.LANCZOS).save(held, "WEBP", quality=88, method=6)
    kept(FOLDER / "page.webp", held.getvalue())


def main() -> None:
    """Make them."""
    parser = argparse.ArgumentParser(description="The pictures of README.")
    parser.add_argument("--records", action="store_true", help="leave out the page, which needs a search")
    given = parser.parse_args()
    speed()
    ranking()
    if not given.records:
        page()


if __name__ == "__main__":
    main()
