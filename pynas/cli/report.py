"""``pynas report``: write the page of a stored search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pynas._errors import UserError
from pynas._plural import counted
from pynas.cli import console, flags, specs


def report(
    store: Annotated[str, typer.Argument(help="SQLite file or database URL that a search wrote.")],
    run: Annotated[int | None, typer.Option(help="Number of the run; default: the newest.")] = None,
    output: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    space: Annotated[
        str | None,
        typer.Option(help="Your own space of that search: package.module:object or template:FILE."),
    ] = None,
    inline: flags.Inline = False,
    json: flags.Json = False,
) -> None:
    """Write the HTML report of a stored search, also while it is still running.

    Example: pynas report runs.db --output report.html
    """
    from pynas.report import write_search_report
    from pynas.report.search import registered_space
    from pynas.store import Store

    flags.check_outputs(output=output)
    with Store(store, read_only=True) as opened:
        chosen = opened.run(run)
        found = registered_space(chosen) if space is None else specs.open_space(space)
        if found is not None and found.name != chosen.config.space:
            raise UserError(
                f"--space {space}: run {chosen.id} searched {chosen.config.space}, not {found.name}"
            )
        trials = opened.trials(chosen) if found is None else opened.trials(chosen, check=found.check)
    write_search_report(output, chosen, trials, space=found, inline=inline)
    if json:
        return console.print_json({"run": chosen.id, "trials": len(trials), "report": str(output)})
    console.say(f"report: {output} (run {chosen.id}, {counted(len(trials), 'trial')})")
    return None
