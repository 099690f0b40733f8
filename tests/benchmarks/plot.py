"""Draw the CSV that `attention.py` writes: time against length, and where the time goes at every setting."""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PARTS = ("dense half", "sparse half", "other")


def read(path):
    with path.open(newline="") as file:
        return [
            {
                name: float(value) if value.replace(".", "", 1).replace("e-", "", 1).isdigit() else value
                for name, value in row.items()
            }
            for row in csv.DictReader(file)
        ]


def is_default(row):
    return row["attention"] == "dense" or (row["SAR"], row["SRR"], row["flat"]) == (0.0625, 0.125, 0.5)


def draw_lengths(rows, path):
    lines = defaultdict(list)
    for row in filter(is_default, rows):
        label = (
            f"dense, {row['dense kernel']}"
            if row["attention"] == "dense"
            else f"sparse, {row['attention']} + {row['dense kernel']}"
        )
        lines[label].append((row["tokens"], row["ms"]))
    figure, axes = plt.subplots(figsize=(7, 4.5), dpi=120)
    for label, points in lines.items():
        axes.plot(
            *zip(*sorted(points), strict=True),
            marker="o",
            markersize=3,
            linestyle="--" if label.startswith("dense") else "-",
            label=label,
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="tokens, half of them the source",
        ylabel="ms per attention call",
        title="Self-attention of the 14B model, released settings",
    )
    lengths = sorted({row["tokens"] for row in rows})
    axes.minorticks_off()
    axes.set_xticks(lengths, [f"{length:,.0f}" for length in lengths])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def draw_settings(rows, path):
    longest = max(row["tokens"] for row in rows)
    rows = [row for row in rows if row["attention"] != "dense" and row["tokens"] == longest]
    labels = [
        f"{row['attention']} + {row['dense kernel']}\nSAR {row['SAR']:g}, SRR {row['SRR']:g}, flat {row['flat']:g}"
        for row in rows
    ]
    figure, axes = plt.subplots(figsize=(8, 0.55 * len(rows) + 1.5), dpi=120)
    left = [0.0] * len(rows)
    for part in PARTS:
        widths = [row[part] for row in rows]
        axes.barh(labels, widths, left=left, label=part)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="ms per attention call", title=f"{longest:,.0f} tokens")
    axes.tick_params(axis="y", labelsize=7)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def main(path):
    rows = read(path)
    draw_lengths(rows, path.with_name(path.stem + "_lengths.png"))
    draw_settings(rows, path.with_name(path.stem + "_settings.png"))
    print(f"plots: {path.with_name(path.stem + '_lengths.png')}, {path.with_name(path.stem + '_settings.png')}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
