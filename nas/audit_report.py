"""An audit as a table, a CSV, a JSON record and a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.console import Console, plain, quantity
from supernets.files import atomic_write, write_json

if TYPE_CHECKING:
    from nas.audit import Audit


def write_audit(found: Audit, folder: Path, facts: Mapping[str, Any], console: Console) -> dict[str, Any]:
    """Writes audit.json, audit.csv and audit.png into `folder`, says what they say, and returns the record.

    Raises:
        OSError: the folder cannot be written or the disk is full; earlier files are intact.
    """
    rows = audit_rows(found)
    record = {**facts, "what": found.what, "fidelity": found.fidelity.as_dict(), "networks": rows}
    text = io.StringIO()
    columns = [name for name in rows[0] if name != "arch"]
    writer = csv.DictWriter(text, [*columns, "arch"], lineterminator="\n")
    writer.writeheader()
    archs = [arch.to_json() for arch in found.archs]
    writer.writerows({**row, "arch": arch} for row, arch in zip(rows, archs, strict=True))
    atomic_write(folder / "audit.csv", text.getvalue().encode())
    plot_audit(found, folder / "audit.png")
    write_json(folder / "audit.json", plain(record))
    console.table(
        ["network", "MACs", "params", "in the supernet", "alone", "rank in it", "rank alone"],
        [
            (
                str(row["network"]),
                quantity(row["macs"]),
                quantity(row["params"]),
                row["supernet"],
                row["alone"],
                row["supernet_rank"],
                row["alone_rank"],
            )
            for row in rows
        ],
    )
    for line in verdict(found):
        console.say(f"          {line}")
    console.say(f"          {folder / 'audit.png'}, audit.csv, audit.json")
    return record


def audit_rows(found: Audit) -> list[dict[str, Any]]:
    """One row per network, in order of multiply-adds; rank 1 is the best."""
    shared, alone = (_ranks(scores, found.higher_is_better) for scores in (found.shared, found.alone))
    return [
        {
            "network": i + 1,
            "macs": int(found.macs[i]),
            "params": int(found.params[i]),
            "supernet": float(found.shared[i]),
            "alone": float(found.alone[i]),
            "supernet_rank": int(shared[i]),
            "alone_rank": int(alone[i]),
            "arch": dict(arch),
        }
        for i, arch in enumerate(found.archs)
    ]


def verdict(found: Audit) -> list[str]:
    """What the numbers say, in a few lines."""
    f = found.fidelity
    if math.isnan(f.tau):
        return [f"all networks score the same {found.what}: there is no ranking to judge"]
    sides = f"by multiply-adds alone {f.tau_macs:.2f}, by parameters alone {f.tau_params:.2f}"
    lines = [
        f"Kendall tau {f.tau:.2f} (95 % interval {f.low:.2f} to {f.high:.2f}) over {f.networks} networks",
        f"without the supernet: {sides}",
        f"alone they are {abs(f.gap):.4f} {found.what} {'better' if f.gap >= 0 else 'worse'} on average; the "
        f"network that the supernet puts first is {f.regret:.4f} behind the best",
        f"in the supernet {f.monotone:.0%} of the steps up in multiply-adds do not lose {found.what}"
        if found.higher_is_better
        else f"in the supernet {f.monotone:.0%} of the steps up in multiply-adds do not raise {found.what}",
    ]
    best_count = np.nanmax([f.tau_macs, f.tau_params, -1.0])
    if f.low <= 0:
        lines.append(
            "the ranking is not shown to be better than chance: train longer, or audit more networks"
        )
    elif f.tau <= best_count:
        lines.append("counting parameters or multiply-adds ranks these networks as well as the supernet does")
    return lines


def plot_audit(found: Audit, path: Path) -> None:
    """Draws the two scores against each other, one dot per network, as a PNG, written atomically."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 12, "text.parse_math": False}
    with rc_context(style):
        sheet = Figure(figsize=(8, 6.4), dpi=100, layout="constrained")
        FigureCanvasAgg(sheet)
        axes = sheet.add_subplot()
        ends = [float(v) for v in (np.min([found.shared, found.alone]), np.max([found.shared, found.alone]))]
        axes.plot(ends, ends, color="#9AA3AF", linewidth=1, zorder=1, label="the same both ways")
        dots = axes.scatter(
            found.shared,
            found.alone,
            c=np.log10(np.maximum(found.macs, 1)),
            cmap="viridis",
            s=70,
            edgecolors="white",
            linewidths=1,
            zorder=2,
        )
        for i in range(len(found.archs)):
            axes.annotate(
                str(i + 1),
                (found.shared[i], found.alone[i]),
                xytext=(5, 5),
                textcoords="offset points",
                fontsize=9,
            )
        sheet.colorbar(dots, ax=axes, label="log10 of multiply-adds")
        axes.set_xlabel(f"{found.what} with the supernet's weights")
        axes.set_ylabel(f"{found.what} trained alone")
        f = found.fidelity
        axes.set_title(
            f"Kendall tau {f.tau:.2f} ({f.low:.2f} to {f.high:.2f}), {f.networks} networks", loc="left"
        )
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E6E9EE", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, loc="upper left")
        picture = io.BytesIO()
        sheet.savefig(picture, format="png", metadata={"Software": None})
    atomic_write(path, picture.getvalue())


def _ranks(scores: Any, higher_is_better: bool) -> Any:
    """1 for the best; equal scores share the better rank."""
    good = np.asarray(scores) if higher_is_better else -np.asarray(scores)
    return 1 + (good[None, :] > good[:, None]).sum(axis=1)
