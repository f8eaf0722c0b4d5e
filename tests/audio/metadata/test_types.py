"""Metadata at another rate and start, and what each container can hold of them."""

from __future__ import annotations

import struct
from dataclasses import replace
from fractions import Fraction

import pytest
from metadata_cases import LEFT, LFE, RIGHT, bext, everything

from audiosr_cli.audio.formats import FORMATS
from audiosr_cli.audio.metadata import broadcast
from audiosr_cli.audio.metadata.fitting import CAPACITIES, fit
from audiosr_cli.audio.metadata.types import Marker, Metadata


def test_the_time_reference_counts_samples_of_the_output() -> None:
    chunk = bext(10**12, b"take", b"A=PCM\r\n")
    scaled = Metadata(bext=chunk, sample_rate=44100).for_output(48000).bext
    assert scaled is not None
    assert broadcast.time_reference(scaled) == 1088435374150  # 10^12 * 48000 / 44100, rounded
    assert scaled[:338] + scaled[346:] == chunk[:338] + chunk[346:]


def test_the_time_reference_moves_with_the_start() -> None:
    described = Metadata({"time_reference": "16000"}, bext=bext(16000), sample_rate=16000).for_output(48000, 2.5)
    assert broadcast.time_reference(described.bext or b"") == 3 * (16000 + 40000)
    assert described.tags["time_reference"] == "168000"


@pytest.mark.parametrize("text", ["", "-1", "1e5", "9" * 5000, "²"])
def test_a_time_reference_that_is_no_number_stays(text: str) -> None:
    assert Metadata({"time_reference": text}, sample_rate=16000).for_output(48000).tags["time_reference"] == text


def test_time_references_stay_within_64_bits() -> None:
    assert broadcast.time_reference(broadcast.scale_bext(bext(2**64 - 1), Fraction(3))) == 2**64 - 1
    assert broadcast.time_reference(broadcast.scale_bext(bext(5), Fraction(1), -10)) == 0


@pytest.mark.parametrize("body", [b"", b"short", bytes(345)])
def test_a_broadcast_chunk_that_is_cut_stays(body: bytes) -> None:
    assert broadcast.scale_bext(body, Fraction(3)) == body
    assert broadcast.add_coding_history(body, 48000, 16, 1, "tool") == body


def test_the_coding_history_grows_by_a_line() -> None:
    for end in (b"\r\n\0\0\0", b"\r\n", b"\0", b""):
        chunk = bext(0, history=b"A=PCM,F=16000" + end)
        history = broadcast.add_coding_history(chunk, 48000, 24, 2, "tool 1")[602:]
        assert history == b"A=PCM,F=16000\r\nA=PCM,F=48000,W=24,M=stereo,T=tool 1\r\n"


IXML = """<?xml version="1.0"?><BWFXML><SPEED><FILE_SAMPLE_RATE>16000</FILE_SAMPLE_RATE>
<TIMESTAMP_SAMPLE_RATE> 16016 </TIMESTAMP_SAMPLE_RATE><AUDIO_BIT_DEPTH>16</AUDIO_BIT_DEPTH>
<TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_HI>1</TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_HI>
<TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO>10</TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO></SPEED>
<TRACK_LIST><TRACK_COUNT>2</TRACK_COUNT></TRACK_LIST><NOTE>é 16000</NOTE></BWFXML>"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_ixml_counts_samples_of_the_output(encoding: str) -> None:
    scaled = broadcast.scale_ixml(IXML.encode(encoding), 48000, Fraction(3), 5)
    expected = IXML.replace("RATE>16000<", "RATE>48000<").replace(" 16016 ", " 48048 ").replace("LO>10<", "LO>45<")
    assert scaled.decode(encoding) == expected.replace("HI>1<", "HI>3<")
    assert b"TRACK_LIST" not in broadcast.scale_ixml(IXML.encode(), 48000, Fraction(3), same_channels=False)
    assert b"<AUDIO_BIT_DEPTH>24<" in broadcast.set_bit_depth(IXML.encode(), 24)


def test_ixml_gets_the_upper_half_of_a_count_that_needs_it() -> None:
    low = b"<BWF_TIME_REFERENCE_LOW>%d</BWF_TIME_REFERENCE_LOW>"
    scaled = broadcast.scale_ixml(low % 2**31, 48000, Fraction(3))
    assert scaled == low % 2**31 + b"<BWF_TIME_REFERENCE_HIGH>1</BWF_TIME_REFERENCE_HIGH>"


BOMB = b'<!DOCTYPE a [<!ENTITY b "' + b"&c;" * 1000 + b'">]><a>&b;</a>'


@pytest.mark.parametrize("document", [b"", b"<BWFXML><a", b"\xff\xfe\xff", b"<TRACK_LIST>" * 100_000, BOMB])
def test_malformed_ixml_stays(document: bytes) -> None:
    assert broadcast.scale_ixml(document, 48000, Fraction(3), same_channels=False) == document
    assert broadcast.set_bit_depth(document, 24) == document


def test_markers_move_with_the_start_and_end_with_the_output() -> None:
    markers = (Marker(1.0), Marker(2.0, 4.0, "a"), Marker(3.0, label="b"), Marker(5.0, 9.0), Marker(8.0, label="c"))
    cut = Metadata(markers=markers, sample_rate=8000).for_output(48000, 3.0, 5.0)
    assert cut.markers == (Marker(0.0, 3.0, "a"), Marker(0.0, label="b"), Marker(2.0, 3.0))
    assert Metadata(markers=markers).for_output(48000).markers == markers


def test_the_channel_layout_stays_with_the_channels() -> None:
    described = Metadata(channel_mask=7, sample_rate=8000)
    assert described.for_output(48000).channel_mask == 7
    assert described.for_output(48000, same_channels=False).channel_mask == 0


def test_capacities_cover_every_format() -> None:
    assert CAPACITIES.keys() == FORMATS.keys()


LOST = {
    "wav": [],
    "w64": ["cover art", "iXML", "markers", "the tags album_artist, mood"],
    "aiff": ["iXML", "notes on markers", "the lengths of regions", "the channel layout"],
    "caf": ["cover art", "iXML", "markers"],
    "flac": ["iXML", "notes on markers", "the lengths of regions"],
    "ogg": ["iXML", "notes on markers", "the lengths of regions"],
    "mp3": ["iXML", "notes on markers"],
    "m4a": ["the broadcast chunk (bext)", "iXML", "notes on markers", "the lengths of regions"],
}


@pytest.mark.parametrize("container", LOST)
def test_what_a_container_cannot_hold_is_named(container: str) -> None:
    fitted, lost = fit(everything(), container, 3)
    assert lost == LOST[container]
    assert fit(fitted, container, 3)[1] == []


def test_what_no_container_holds_is_named() -> None:
    assert fit(replace(everything(), dropped=("the cart chunk",)), "wav", 3)[1] == ["the cart chunk"]


def test_an_unusual_layout_is_lost_where_the_number_of_channels_implies_one() -> None:
    described = Metadata(channel_mask=LEFT | RIGHT | LFE)
    assert fit(described, "ogg", 3)[1] == ["the channel layout"]
    assert fit(described, "flac", 3)[1] == fit(described, "wav", 3)[1] == []


def test_fields_of_a_broadcast_chunk_become_tags_where_there_is_no_chunk() -> None:
    tags = fit(everything(), "flac", 3)[0].tags
    assert (tags["time_reference"], tags["originator"], tags["origination_time"]) == (str(2**33), "Desk", "10:11:12")
    own = replace(everything(), tags={"originator": "mine"})
    assert fit(own, "flac", 3)[0].tags["originator"] == "mine"
    assert "time_reference" not in fit(own, "wav", 3)[0].tags


def test_chapters_end_where_the_next_one_starts() -> None:
    markers = (Marker(0.0, label="a"), Marker(2.0, 0.5), Marker(3.0))
    lengths = [marker.length_s for marker in fit(Metadata(markers=markers), "mp3", 1)[0].markers]
    assert lengths == pytest.approx([2.0, 0.5, 0.001])
    whole = fit(Metadata(markers=markers), "m4a", 1, 10.0)[0].markers
    assert [(marker.start_s, marker.length_s, marker.label) for marker in whole] == [
        (0.0, 2.0, "a"),
        (2.0, 1.0, "2"),
        (3.0, 7.0, "3"),
    ]
    tags = fit(Metadata(markers=(Marker(3723.0456, label="x"),)), "ogg", 1)[0].tags
    assert tags == {"chapter001": "01:02:03.046", "chapter001name": "x"}


def test_chapters_have_no_lengths_to_lose() -> None:
    markers = (Marker(0.0, 2.0), Marker(2.0, 3.0), Marker(5.0, 5.0))
    assert fit(Metadata(markers=markers), "ogg", 1, 10.0)[1] == []
    assert fit(Metadata(markers=markers), "ogg", 1, 11.0)[1] == ["the lengths of regions"]


def test_a_bext_is_read_back_as_struct_reads_it() -> None:
    assert struct.unpack_from("<Q", bext(77), 338)[0] == broadcast.time_reference(bext(77)) == 77
