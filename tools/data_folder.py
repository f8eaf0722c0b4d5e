"""The option ``--data`` that the tools share."""

import argparse
import os
from pathlib import Path


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--data``: by default ``$AUDIOSR_DATA``, required where that is not set."""
    default = os.environ.get("AUDIOSR_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        default=default,
        required=not default,
        help="folder of the recordings, see docs/data.md [default: $AUDIOSR_DATA]",
    )
