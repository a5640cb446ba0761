"""Draw what a run made of its model, as README.md shows it: both networks to scale, and four measurements.

    python tools/before_after.py RUN docs/before_after.svg

The picture adapts to a dark page by itself, and is the same at every run of the same journal.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, TOP, STEP = 760, 236, 40, 58
TALLEST = 110  # the widest layer's bar, in pixels
STYLE = """
text { font: 14px system-ui, sans-serif; fill: #222; text-anchor: middle }
.large { font-size: 20px; font-weight: 600 }
.small { font-size: 12px; fill: #666 }
.bar { stroke: #0072b2; stroke-width: 6; stroke-linecap: round }
.between { fill: #0072b2; fill-opacity: .18 }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e4e4 } .small { fill: #a0a0a0 }
  .bar { stroke: #56b4e9 } .between { fill: #56b4e9 }
}"""


def main() -> None:
    """Draw the run that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    lines = (given.run / "journal.jsonl").read_text().splitlines()
    given.picture.write_text(picture([json.loads(line) for line in lines]))
    print(given.picture)


def picture(events: list[dict[str, Any]]) -> str:
    """The picture of a run that has ended, as SVG."""
    started = next(event for event in events if event["event"] == "started")
    ended = next(event for event in reversed(events) if event["event"] == "finished")
    before, after = ended["before"], ended["after"]
    first, second = (sizes(text) for text in (started["topologies"][0], ended["topology"]))
    scale = TALLEST / max(first + second)
    shares = [
        (f"{before['parameters']:,} → {after['parameters']:,}", "parameters"),
        (f"{before['size'] / 1000:.0f} kB → {after['size'] / 1000:.0f} kB", "file"),
        (f"{before['latency'] * 1000:.1f} µs → {after['latency'] * 1000:.1f} µs", "one row, one thread"),
        (f"{ended['start_test_accuracy']:.4f} → {ended['test_accuracy']:.4f}", "test accuracy"),
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{started['topologies'][0]} became {ended['topology']}</title><style>{STYLE}</style>",
        *network(first, scale, WIDTH // 4 - 20),
        f'<text class="large" x="{WIDTH // 2 - 40}" y="{TOP + TALLEST // 2 + 6}">→</text>',
        *network(second, scale, 3 * WIDTH // 4 - 40),
    ]
    for i, (value, name) in enumerate(shares):
        x = WIDTH * (2 * i + 1) // 8
        parts += [f'<text x="{x}" y="202">{value}</text>', f'<text class="small" x="{x}" y="222">{name}</text>']
    return "\n".join([*parts, "</svg>"]) + "\n"


def sizes(topology: str) -> list[int]:
    """The widths of a perceptron's layers: 64-10-10."""
    return [int(size) for size in topology.split("-")]


def network(widths: list[int], scale: float, centre: int) -> list[str]:
    """Bars for the layers, as tall as they are wide, and what connects them; the middle is at ``centre``."""
    middle, left = TOP + TALLEST / 2, centre - STEP * (len(widths) - 1) / 2
    xs = [left + STEP * i for i in range(len(widths))]
    halves = [max(width * scale / 2, 1) for width in widths]
    parts = []
    for i in range(len(widths) - 1):
        corners = [(xs[i], -halves[i]), (xs[i + 1], -halves[i + 1]), (xs[i + 1], halves[i + 1]), (xs[i], halves[i])]
        points = " ".join(f"{x:g},{middle + y:.1f}" for x, y in corners)
        parts.append(f'<polygon class="between" points="{points}"/>')
    for x, half, width in zip(xs, halves, widths, strict=True):
        parts.append(f'<path class="bar" d="M{x:g},{middle - half:.1f}V{middle + half:.1f}"/>')
        parts.append(f'<text x="{x:g}" y="{middle - half - 10:.1f}">{width}</text>')
    return parts


if __name__ == "__main__":
    main()
