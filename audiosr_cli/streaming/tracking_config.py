"""The thresholds of speaker tracking, each with its unit, its meaning and where its value comes from."""

from __future__ import annotations

from dataclasses import dataclass


# "Set by hand" below means that the history of the repository names no experiment; the date is that of the commit.
# Titles in quotation marks are sections of docs/experiments/speaker-order.md, which describe the experiments.
# Windows are those of the bundled separators: a new one starts every 2 s.
@dataclass(frozen=True)
class TrackingConfig:
    """Thresholds of speaker tracking.

    Powers are mean squares of samples, full scale being 1. Shares are ratios of such powers. Log-odds are natural
    logarithms. Cosines are those of two speaker embeddings.
    """

    # Most sources that can be tracked. All permutations are weighed against each other, so each window costs
    # (sources!)² operations: 14,400 for 5 sources, 518,400 for 6. Set by hand, 21 November 2026.
    max_sources: int = 5

    # Mean power (1e-10 is -100 dBFS) below which a signal counts as silence. Set by hand, 20 November 2026.
    silence_power: float = 1e-10

    # Share of the recent peak power (-25 dB) below which a source does not speak: it holds residual leakage only.
    # Set by hand, 21 November 2026.
    speaking_share: float = 10**-2.5

    # Share of the recent peak power (-40 dB) below which an overlap of two windows is no evidence.
    # Set by hand, 21 November 2026.
    overlap_share: float = 1e-4

    # Factor by which the recent peak power decays from window to window, so that a loud event is forgotten (20 dB take
    # 21 windows). Set by hand, 21 November 2026.
    peak_decay: float = 0.8

    # The same for the level of the last minutes (20 dB take 458 windows). Profiles do not learn from sources below
    # `speaking_share` of it: noise in a long pause is no speaker. Set by hand, 21 November 2026.
    level_decay: float = 0.99

    # Squared correlation in [0, 1] of two channels' sources below which the channels share none of them.
    # Set by hand, 20 November 2026.
    min_channel_correlation: float = 0.05

    # Log-odds that two fully correlated sources are one speaker: sources of two channels, or of two neighbouring
    # windows if there is no speaker encoder. Set by hand, 21 November 2026 (12 before).
    correlation_log_odds: float = 8.0

    # The same for neighbouring windows if there is a speaker encoder: a separator may swap speakers within a window,
    # so a correlated overlap says little about the rest of it. Of 495 windows, embeddings named the right order of
    # 91 to 98 %, fully correlated overlaps of 82 to 84 %. On eight conversations of five minutes (held-out speakers,
    # seeds 5 and 21), 1 instead of 8 raised the speech on the right track from 86.3 to 88.4 % ("How much the overlap
    # tells").
    overlap_log_odds: float = 1.0

    # Log-odds for a difference of 1 between two cosines. With EM on the same eight conversations:
    # 10 gave 84.9 % of speech on the right track, 14 gave 91.1 %, 20 gave 90.8 % ("How much the overlap tells"), with
    # an encoder whose cosines of two speakers were 0.05 in the middle. The present one has 0.34, so this value, the
    # next one, leakage_margins and new_speaker_cosine were moved by hand in proportion, 27 November 2026, once ("A new
    # encoder, and its cosines").
    cosine_log_odds: float = 20.0

    # Cosine at which an embedding fits a profile as well as it fits an unknown speaker; it lies between the cosines
    # within one speaker and those between two. 0.35 with the encoder before; see cosine_log_odds.
    unknown_cosine: float = 0.55

    # Log-odds that a new speaker stays on the track chosen first: tracks are named in the order of appearance.
    # Set by hand, 21 November 2026.
    first_choice_log_odds: float = 8.0

    # Log-odds that a new speaker takes the first free track rather than the next one. Set by hand, 21 November 2026.
    first_free_log_odds: float = 3.0

    # Log-odds that a model keeps its order from one window to the next; it only breaks ties.
    # Set by hand, 21 November 2026.
    stay_log_odds: float = 0.05

    # Windows (80 s) over which a profile averages while it follows its track. Set by hand, 21 November 2026.
    profile_windows: float = 40.0

    # Difference between a faint source's cosine with the loudest source and that with its own track's profile: up to
    # the first value none of it counts as leakage, from the second on all of it does. Moving leakage back raised the
    # speech on the right track of three conversations of six minutes from 77 to 87 % ("One person speaking"); the two
    # values were 0.1 and 0.3 with the encoder before; see cosine_log_odds.
    leakage_margins: tuple[float, float] = (0.07, 0.2)

    # Cosine with the loudest source that takes the place of the own profile's while a track has had no speaker.
    # Two similar speakers who begin together must stay two. 0.6 with the encoder before; see cosine_log_odds.
    new_speaker_cosine: float = 0.75

    # Share of the loudest source's power (-5 dB) above which a source on a track without a profile is a new speaker,
    # however similar. Set by hand, 21 November 2026.
    new_speaker_share: float = 0.3

    # Windows at the start of a recording whose embeddings are clustered anew, at least and at most. Later on,
    # clustering could lose a speaker who is silent for long. On seven conversations of five minutes it raised the
    # speech on the right track from 86.6 to 88.2 % ("Conversations"); the values were set by hand, 21 November 2026.
    min_clustering_windows: int = 10
    max_clustering_windows: int = 40

    # Sum of the embeddings' lengths that a cluster needs; one loud window contributes 1.
    # Set by hand, 21 November 2026.
    min_cluster_windows: float = 3.0

    # Rise of the mean cosine with the rest of the own cluster that a new clustering needs. Set by hand,
    # 21 November 2026 (0.06 with the speaker encoder before the bundled one).
    min_clarity_gain: float = 0.05

    # Share of a cluster that breaks ties, so that the speaker heard first keeps the first track.
    # Set by hand, 21 November 2026.
    first_speaker_share: float = 1e-3

    # Iterations of spherical k-means. Set by hand, 21 November 2026.
    kmeans_iterations: int = 5

    # Windows (20 minutes) whose embeddings the profiles explain at most, and the number (20 s) that EM starts with.
    # EM raised the speech on the right track of the eight conversations from 88.4 to 91.1 % ("How much the overlap
    # tells"); the two values were set by hand, 22 November 2026.
    history_windows: int = 600
    min_history_windows: int = 10

    # Iterations of EM after each window. Set by hand, 22 November 2026.
    em_iterations: int = 3

    # Log-odds that a source beside a louder one is residual leakage of it rather than its own track's speaker.
    # On the eight conversations -5 gave 88.1 %, 0 gave 91.0 %, 1 and 2 gave 91.1 % ("How much the overlap tells").
    leakage_log_odds: float = 1.0


TRACKING = TrackingConfig()
