"""Charts of what the benches measured last, for docs/performance.md.

    cargo bench --bench kernels --bench whole && python benches/charts.py

reads Criterion's medians and writes docs/charts/*.svg; groups that were not run are left out, and said so.
"""

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "criterion"
OUT = ROOT / "docs" / "charts"

WAYS = [("interleaved", "#4477aa"), ("two_passes", "#ccbb44"), ("cached", "#228833")]
COUNTS = [1, 2, 4, 8]


def median(group, case):
    """Milliseconds, or None where it was not run."""
    path = RESULTS / group / case / "new" / "estimates.json"
    if not path.exists():
        return None
    return json.loads(path.read_text())["median"]["point_estimate"] / 1e6


def svg(title, rows, unit):
    """Horizontal bars: rows of (label, number, colour)."""
    left, wide, line = 260, 380, 22
    most = max(number for _, number, _ in rows)
    height = line * len(rows) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + wide + 90} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="#ffffff"/><text x="10" y="22" font-weight="bold">{title}</text>',
    ]
    for at, (label, number, colour) in enumerate(rows):
        y = 36 + at * line
        length = max(1.0, wide * number / most)
        parts.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{label}</text>')
        parts.append(f'<rect x="{left}" y="{y + 2}" width="{length:.1f}" height="{line - 6}" fill="{colour}"/>')
        parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 14}">{number:.3g}{unit}</text>')
    return "\n".join([*parts, "</svg>", ""])


def kernels():
    """How many times faster than burn's operation each kernel is."""
    rows = []
    for group in sorted(path.name for path in RESULTS.iterdir()):
        here, burn = median(group, "fabric"), median(group, "burn")
        if here and burn:
            rows.append((group, burn / here, "#4477aa"))
    return "Times faster than burn's operation (CPU)", rows, ""


def references():
    """How long an image takes, by way and number of references."""
    plain = median("world_20_steps", "plain")
    if plain is None:
        return "", [], ""
    rows = [("plain", plain, "#888888")]
    for count in COUNTS:
        for way, colour in WAYS:
            number = median("world_20_steps", f"{way}_{count}_and_{count}")
            if number is not None:
                rows.append((f"{count} liked, {count} disliked: {way.replace('_', ' ')}", number, colour))
    return "An image of the small world, 20 guided steps", rows, " ms"


def main():
    if not RESULTS.is_dir():
        sys.exit(f"benches/charts.py: found no results in {RESULTS}, wanted Criterion's; run `cargo bench` first")
    OUT.mkdir(parents=True, exist_ok=True)
    for name, chart in [("kernels", kernels), ("references", references)]:
        title, rows, unit = chart()
        if rows:
            (OUT / f"{name}.svg").write_text(svg(title, rows, unit))
            print(OUT / f"{name}.svg")
        else:
            print(f"{name}: not measured, left as it is")


if __name__ == "__main__":
    main()
