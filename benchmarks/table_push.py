"""Print the table of docs/benchmarks/push.md and write its plot, from what bench_push measured.

    python -m benchmarks.table_push benchmarks/results/push.json...

Of several measurements of one cell the last counts. The plot is SVG, drawn by hand: a
dependency for eight lines is one too many.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "docs" / "benchmarks"
COLOURS = {"cloudtrain": "#0b6", "rsync": "#06c", "tar over ssh": "#c60"}


def main() -> None:
    cells: dict[tuple[float, float, str], dict[str, Any]] = {}
    for name in sys.argv[1:]:
        for cell in json.loads(Path(name).read_text())["cells"]:
            cells[cell["rtt_ms"], cell["mbit"], cell["tool"]] = cell
    rows = sorted({key[:2] for key in cells})
    tools = [tool for tool in dict.fromkeys(key[2] for key in cells) if tool != "rsync, line open"]
    lines = [f"| line | {' | '.join(tools)} | cloudtrain / rsync |", "|---" * (len(tools) + 2) + "|"]
    for rtt, mbit in rows:
        found = [cells.get((rtt, mbit, tool)) for tool in tools]
        ours, theirs = cells.get((rtt, mbit, "cloudtrain")), cells.get((rtt, mbit, "rsync"))
        times = f"{ours['share'] / theirs['share']:.2f}" if ours and theirs else ""
        busy = " *" if ours and ours["load"] > 1.9 and mbit > 200 else ""
        shown = [f"{cell['share']:.3f}" if cell else "" for cell in found]
        lines.append(f"| {rtt:g} ms, {mbit:g} Mbit/s{busy} | {' | '.join(shown)} | {times} |")
    print("\n".join(lines))
    (OUT / "push.svg").write_text(plot(cells, rows))


def plot(cells: dict[tuple[float, float, str], dict[str, Any]], rows: list[tuple[float, float]]) -> str:
    """Draw bars: the share of the line that each tool reached."""
    width, height, bar = 60 * len(rows) + 60, 260, 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="10">'
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = 200 - 180 * share
        parts.append(f'<path d="M40 {y}H{width}" stroke="#ccc"/><text x="8" y="{y + 3}">{share:.0%}</text>')
    for column, (rtt, mbit) in enumerate(rows):
        x = 48 + 60 * column
        for number, (tool, colour) in enumerate(COLOURS.items()):
            share = cells.get((rtt, mbit, tool), {}).get("share", 0)
            parts.append(
                f'<rect x="{x + bar * number}" y="{200 - 180 * share:.1f}" width="{bar - 2}" height="{180 * share:.1f}" fill="{colour}"/>'
            )
        parts.append(f'<text x="{x}" y="214">{rtt:g} ms</text><text x="{x}" y="226">{mbit:g} Mbit</text>')
    for number, (tool, colour) in enumerate(COLOURS.items()):
        parts.append(
            f'<rect x="{48 + 110 * number}" y="238" width="10" height="10" fill="{colour}"/><text x="{62 + 110 * number}" y="247">{tool}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
