"""Load the recordings of a run: training and validation data, noise and measured impulse responses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from audiosr_cli.errors import TrainingError
from audiosr_cli.train.coded import CodedCopies, load_coded
from audiosr_cli.train.config import RunConfig
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.data import MetadataTable, folder_paths, load_corpus, read_table
from audiosr_cli.train.log import Log
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.reverb import MeasuredRirs, load_rirs
from audiosr_cli.train.tasks import Recordings


def cache_folder() -> Path:
    """Return the folder for decoded recordings: ``$AUDIOSR_CACHE``, or audiosr in the user's cache folder.

    Raises TrainingError if the user has no home folder.
    """
    if chosen := os.environ.get("AUDIOSR_CACHE"):
        return Path(chosen)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "audiosr"
    try:
        return Path.home() / ".cache" / "audiosr"
    except RuntimeError as error:  # neither $HOME nor an entry in the list of users, as in some containers
        raise TrainingError(
            "no home folder for decoded recordings ($HOME is not set); set $AUDIOSR_CACHE to a writable folder"
        ) from error


def load_recordings(config: RunConfig, data: Path, ranks: Ranks, log: Log) -> Recordings:
    """Load all recordings of a run, on the device if they fit.

    Args:
        config: The run's config.
        data: Folder that contains the config's folders.
        ranks: The processes of the run.
        log: Gets the size of each corpus, and the files that could not be read.

    Returns:
        The recordings at the output rate of the model.

    Raises:
        TrainingError: If a folder is missing or has no usable file.
    """
    table = read_table(data / config.data.table) if config.data.table else None
    rate = config.training_model.spec.out_rate

    settings = config.data

    def load(folders: tuple[str, ...], **options: Any) -> Corpus:
        return _load(folder_paths(data, folders), rate, table, options, ranks, log)

    train = load(
        settings.train,
        min_bandwidth=settings.min_bandwidth_hz,
        shares=settings.shares,
        balance=settings.balance,
        full_band_share=settings.full_band_share,
        min_seconds=settings.min_seconds,
    )
    return Recordings(
        train,
        load(settings.valid),
        load(settings.noise) if settings.noise else None,
        _load_rirs(folder_paths(data, settings.rir), rate, log) if settings.rir else None,
        load(settings.valid_noise) if settings.valid_noise else None,
        _load_coded(train, settings.coded, ranks, log) if settings.coded.share else None,
    )


def _load_coded(train: Corpus, config: CodedCopies, ranks: Ranks, log: Log) -> Corpus:
    if not ranks.is_leader:
        ranks.wait()  # the leading process codes, the others read its cache
    copies = load_coded(train, config, cache_folder())
    if ranks.is_leader:
        ranks.wait()
    log.write({"event": "coded", "recordings": int((copies.bandwidth > 0).sum()), "codecs": list(config.codecs)})
    return copies.to(ranks.device)


def _load_rirs(folders: list[Path], rate: int, log: Log) -> MeasuredRirs:
    rirs = load_rirs(folders, rate)
    log.write({"event": "data", "folders": list(map(str, folders)), "rooms": len(rirs.responses)})
    return rirs


def _load(
    folders: list[Path], rate: int, table: MetadataTable | None, options: dict[str, Any], ranks: Ranks, log: Log
) -> Corpus:
    """Load a corpus and log its size; ``options`` are further arguments of ``load_corpus``."""
    if not ranks.is_leader:
        ranks.wait()  # the leading process decodes, the others read its cache
    corpus = load_corpus(folders, rate, cache_folder(), table, **options)
    if ranks.is_leader:
        ranks.wait()
    for line in corpus.skipped:
        log.write({"event": "skipped", "file": line})
    for line in corpus.damaged:
        log.write({"event": "damaged", "file": line})
    hours = round(corpus.seconds / 3600, 3)
    counts = {"recordings": len(corpus.names), "speakers": len(corpus.speaker_probs), "skipped": len(corpus.skipped)}
    log.write({"event": "data", "folders": list(map(str, folders)), "hours": hours, **counts})
    return corpus.to(ranks.device)
