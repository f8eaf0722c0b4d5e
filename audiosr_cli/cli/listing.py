"""Lists of files: the names of outputs, what a dry run predicts, and what folders contain besides recordings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from audiosr_cli.cli.console import print_error, print_message, print_output

if TYPE_CHECKING:
    from audiosr_cli.batch.folders import FolderWalk
    from audiosr_cli.batch.run import Outcome
    from audiosr_cli.cli.options import Shared


def print_names(outputs: Sequence[str], shared: Shared) -> None:
    """Print names of files, which may contain line feeds: with --print0 each ends with a NUL byte."""
    if shared.print0:
        print_output("".join(f"{name}\0" for name in outputs), end="")
    elif not shared.quiet:
        print_output("\n".join(outputs))


def print_planned(outcome: Outcome, targets: list[str], shared: Shared, at_most: bool = False) -> None:
    """Print what a dry run predicts for a recording, ``at_most`` if maybe not all ``targets`` will be written."""
    source, error = outcome.item.source, outcome.error
    if error is not None:
        print_error(error)
    if shared.as_json:
        event = "failed" if error else "planned" if targets else "skipped"
        row = {"event": event, "input": source, "outputs": targets} | ({"at_most": True} if at_most else {})
        print_output(json.dumps(row | ({"error": str(error), "hint": error.hint} if error else {})))
    elif error is None and not targets:
        print_message(f"{source}: would be skipped, because its outputs exist")
    if shared.print0:
        print_names(targets, shared)
        return
    for target in [] if shared.as_json else targets:
        print_output(f"{source} → {target}")


def print_left_out(walk: FolderWalk, shared: Shared) -> None:
    """Print what the folders of a call contain besides its recordings, once for the whole call."""
    if shared.as_json:
        for name, counts in walk.left_out.items():
            if counts.total():
                print_output(json.dumps({"event": "left_out", "input": name, "counts": +counts}))
    elif (left_out := walk.describe()) and not shared.quiet:
        folders = [name for name, counts in walk.left_out.items() if counts.total()]
        print_message(f"left out of {folders[0] if len(folders) == 1 else f'{len(folders)} folders'}: {left_out}")
