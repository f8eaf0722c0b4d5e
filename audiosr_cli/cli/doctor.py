"""``audiosr doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from audiosr_cli.cli import console


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each finding.")] = False,
) -> None:
    """Check the installation.

    Prints versions, devices and bundled models, and runs each command on one second of audio. Exits with 1 if something
    is wrong.
    """
    from audiosr_cli.doctor import examine

    problems = 0
    for finding in examine():
        problems += not finding.ok
        if as_json:
            console.print_output(json.dumps(asdict(finding)))
        else:
            console.print_output(
                f"{finding.group:8} {finding.name:18} {'' if finding.ok else 'WRONG: '}{finding.value}"
            )
    if problems:
        raise typer.Exit(1)
