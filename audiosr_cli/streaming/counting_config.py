"""The thresholds of counting speakers, each with its unit, its meaning and where its value comes from."""

from __future__ import annotations

from dataclasses import dataclass


# "Chosen" below means: among two or three values on 30 recordings of 1 to 3 speakers of speech16k/valid, 27 November
# 2026; docs/experiments/counting.md has the figures. None of them is sharp.
@dataclass(frozen=True)
class CountingConfig:
    """Thresholds of counting speakers.

    Powers are mean squares of samples, shares are ratios of such powers, cosines are those of two speaker embeddings.
    """

    # Largest number of speakers that is returned: there are separators for so many.
    max_speakers: int = 3

    # Seconds of a long file from which its speakers are counted, in parts of so many seconds, spread evenly over it.
    # Set by hand: somebody who says a thirtieth of an hour is in it with 6 s. More parts would cut more sentences.
    max_seconds: float = 180.0
    part_seconds: float = 20.0

    # Seconds at the start of a pipe from which its speakers are counted. They are kept in memory until they are
    # processed, 23 MB in stereo at 48 kHz.
    pipe_seconds: float = 60.0

    # Length and distance in seconds of the windows that get an embedding. Embeddings of 1 s vary too much (with an
    # earlier encoder, 5 % of the cosines within one speaker were below 0.38; 0.54 with 2 s), and longer ones hold
    # several turns: 18 and 20 of 30 recordings were counted right with windows side by side. Chosen.
    window_s: float = 2.048
    hop_s: float = 1.024

    # Mean power (1e-10 is -100 dBFS) below which a window is silent, as in TrackingConfig.
    silence_power: float = 1e-10

    # Share of a window's power (-10 dB) that the removal of noise has to leave: a window of which it leaves less is
    # noise, and what is left of it sounds like another voice. Speech with noise at 5 or 10 dB loses at most 5 dB, noise
    # alone 15 to 21 dB. Chosen.
    min_speech_share: float = 0.1

    # Share of the loudest window's power (-30 dB) below which nobody speaks: what is fainter is residual leakage,
    # reverberation or noise. Set by hand.
    speaking_share: float = 1e-3

    # Share of the louder source's power in the same window (-6 dB) below which a source counts as leakage of the
    # louder one. With -3, -6 and -10 dB, 19, 19 and 18 of 30 recordings were counted right. Chosen.
    dominant_share: float = 10**-0.6

    # What a window of speech has at least: share of voiced frames, share of voiced frames among its active ones, and
    # standard deviation of its level in dB. Of windows of 2 s, 95 % of speech16k/valid have all of that, 26 % of
    # noise48k/valid, and 5 % of music48k/valid.
    min_voiced: float = 0.1
    min_voiced_active: float = 0.4
    min_level_spread_db: float = 5.0

    # Cosine of two clusters' mean embeddings below which they are two voices; depends on the speaker encoder. Of clean
    # speech, means over halves of one speaker's recording have 0.81 and more, 90 % of those of two speakers 0.58 and
    # less. From 0.65 to 0.70, 13 of 16 recordings with noise and 3 of 3 without are counted right; with 0.55 and 0.75,
    # 10 and 9 with noise. Chosen; tools/count_speakers.py prints a table for another encoder.
    min_cosine: float = 0.65

    # Seconds of speech that make a voice: this share of all speech, but not less and not more than the two values.
    # Windows with two people in them, or with noise, form clusters of a few seconds. Chosen.
    voice_share: float = 0.1
    min_voice_s: float = 2.0
    max_voice_s: float = 4.0

    # Share of the windows with speech in which two sources are speech and equally loud (see ``dominant_share``), from
    # which there are two voices at least, even if they are so similar that their embeddings form one cluster: a
    # separator seldom splits one voice in halves. Of 10 recordings of one speaker it did in 26 % of the windows at
    # most; of the recordings in which two or three speak all the time, in 42 to 100 %.
    min_overlap: float = 0.5

    # Share of the loudest source's power in the same window (-10 dB) from which the third source of a separator counts
    # as a speaker, and the share of the windows with speech in which it has to do so for there to be three. Where all
    # speak at once it does in 0 to 0.45 of the windows if they are two (9 recordings), and in 0.58 and more of 6 of 9
    # recordings of three. Chosen.
    third_share: float = 0.1
    min_overlap3: float = 0.5

    # Log-odds for a doubling of a cluster's seconds that it is a voice, rather than stray windows, and for a
    # difference of 1 between two clusters' cosine and ``min_cosine``, or between the share and ``min_overlap``, that
    # there are two voices. The second one is that of TrackingConfig.cosine_log_odds; the others were set by hand.
    doubling_log_odds: float = 1.5
    cosine_log_odds: float = 14.0
    overlap_log_odds: float = 10.0

    # Confidence below which the number of speakers is reported as uncertain. Set by hand.
    uncertain: float = 0.5


COUNTING = CountingConfig()
