"""An analysis of weight sharing on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynas.cli import console

if TYPE_CHECKING:
    from pynas.analysis import SharingAnalysis


def print_tables(found: SharingAnalysis, what: str) -> None:
    """Print correlations, picking, pruning and the biases of the first setting; ``what`` is the title."""
    shares = found.protocol.shares
    rows: list[list[object]] = []
    for s in found.settings:
        stable = [s.seeds.tau if s.seeds else None]
        stable += [sum(c.tau for c in s.checkpoints) / len(s.checkpoints) if s.checkpoints else None]
        rows.append([s.name, str(s.kendall), str(s.spearman), s.kendall_top and str(s.kendall_top), *stable])
    title = f"{what}; {100 * found.protocol.confidence:g} % intervals"
    columns = ["setting", "Kendall", "Spearman", f"Kendall, top {found.protocol.top:.0%}"]
    console.print_table(title, [*columns, "between seeds", "between checkpoints"], rows)
    picks = [("chance", found.chance), *((s.name, s.picks) for s in found.settings)]
    console.print_table(
        f"picking the best (regret in {found.quality.difference})",
        ["setting", "picked", "regret", "rank", *(f"finds a top {share:.0%}" for share in shares)],
        [
            (name, p.count, round(p.regret, 3), round(p.rank, 2), *(round(p.found[s], 3) for s in shares))
            for name, each in picks
            for p in each
        ],
    )
    prunings = [("chance", found.chance_prunings), *((s.name, s.prunings) for s in found.settings)]
    console.print_table(
        "pruning the worst",
        [
            "setting",
            "removed",
            "of the worst",
            *(f"of the top {share:.0%}" for share in shares),
            "mean gains",
        ],
        [
            (
                name,
                p.share,
                round(p.worst_removed, 3),
                *(round(p.best_lost[s], 3) for s in shares),
                round(p.gain, 3),
            )
            for name, each in prunings
            for p in each
        ],
    )
    first = found.settings[0]
    console.print_table(
        f"bias of operations, {first.name}: rank error of architectures that hold it, and with each copy",
        ["operation", "present", "rank error", "each copy"],
        [(b.name, b.present, str(b.error), str(b.slope)) for b in first.bias],
    )
