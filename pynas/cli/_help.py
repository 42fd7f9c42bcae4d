"""Help as it is written: click fills paragraphs, which would run the lines of examples together."""

from __future__ import annotations

import inspect

import typer


def keep_examples(app: typer.Typer) -> None:
    """Let the examples of every command and group under ``app`` stand on lines of their own."""
    for command in app.registered_commands:
        command.help = _marked(command.help or inspect.getdoc(command.callback) or "")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            group.typer_instance.info.help = _marked(group.typer_instance.info.help or "")
            keep_examples(group.typer_instance)


def _marked(text: str) -> str:
    """With click's mark of a paragraph that is not to be filled before each that starts with an example."""
    return text.replace("\n\nExample", "\n\n\b\nExample")
