"""``audiosr train``."""

from __future__ import annotations

import os
from pathlib import Path

from audiosr_cli.cli import console
from audiosr_cli.cli.train_options import (
    Configs,
    TrainOptions,
    parse_batch_size,
    printed_events,
    with_train_options,
)
from audiosr_cli.errors import UsageError


@with_train_options
def train(configs: Configs, *, options: TrainOptions) -> None:
    """Train a model on your own recordings.

    The best weights are saved in --out as a .safetensors file for --model. Each validation prints a JSON object to
    standard error. You can stop training at any time with Ctrl-C and continue it with --resume; after a hard kill, at
    most one minute of work is lost. Under torchrun, several processes or machines train together.
    """
    from audiosr_cli.runtime.memory import keep_freed_memory

    keep_freed_memory()
    if options.pack is not None:
        _pack(configs, options, options.pack)
        return
    from audiosr_cli.runtime.device import pick_device
    from audiosr_cli.train.run import TrainCall
    from audiosr_cli.train.run import train as run

    init = options.init or []
    if len(configs) > 1 or len(init) > 1:
        raise UsageError("give only one CONFIG and one --init; several are for --pack")
    call = TrainCall(
        data=options.data,
        minutes=options.minutes,
        resume=options.resume,
        device=pick_device(options.device),
        init=init[0] if init else None,
        export=options.export,
        tensorboard=options.tensorboard,
        until=options.until,
        export_every=options.export_every,
        part_bytes=round(options.part_mib * 2**20),
        batch_size=parse_batch_size(options.batch_size),
    )
    with printed_events() as on_event:
        best = run(configs[0], options.out or Path("runs") / configs[0].stem, on_event, call)
    if int(os.environ.get("RANK", "0")) == 0:  # only one of the processes that torchrun started prints
        console.print_output(str(best))


def _pack(configs: list[Path], options: TrainOptions, target: Path) -> None:
    from audiosr_cli.train.pack import pack

    with printed_events() as on_event:
        pack(configs, options.data, target, round(options.pack_mib * 2**20), options.init or [], on_event)
    console.print_output(str(target))
