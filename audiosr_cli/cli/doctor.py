"""``audiosr doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from audiosr_cli.cli import console


def doctor(as_json: Annotated[bool, typer.Option("--json", help="One JSON object a finding.")] = False) -> None:
    """Look whether this installation is well: versions, devices, models, and a second of every task.

    Exit code 1 where something is not.
    """
    from audiosr_cli.doctor import examine

    ill = 0
    for finding in examine():
        ill += not finding.fine
        if as_json:
            console.put(json.dumps(asdict(finding)))
        else:
            console.put(f"{finding.group:8} {finding.name:18} {'' if finding.fine else 'WRONG: '}{finding.value}")
    if ill:
        raise typer.Exit(1)
