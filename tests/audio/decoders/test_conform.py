"""audio/decoders/conform.py: how damage is counted and described."""

from __future__ import annotations

from audiosr_cli.audio.decoders.conform import DamageLog


def test_neighbouring_places_of_damage_are_one() -> None:
    log = DamageLog("a", 1000)
    log.add(0, 300)
    log.add(700, 200)
    log.add(5000)
    assert log.warnings == [
        "a: damaged at 0.0 s; 0.50 s are replaced by silence",
        "a: damaged at 5.0 s; some of it is lost",
    ]


def test_places_beyond_the_listed_ones_are_counted_not_their_pieces() -> None:
    log = DamageLog("a", 1000)
    for place in range(7):
        for piece in range(4):  # silence comes in pieces
            log.add(10_000 * place + 100 * piece, 100)
    assert log.warnings[5:] == ["a: damaged at 2 more places"]
    places = "0.0 s, 10.0 s, 20.0 s, 30.0 s, 40.0 s and 2 more places"
    assert log.gaps == [f"a: has no sound at {places}; 2.8 s of silence keep the time"]
