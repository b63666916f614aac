"""A reader of pprof's format that shares nothing with the writer: field numbers are literals."""

from __future__ import annotations

import gzip
from collections import defaultdict
from dataclasses import dataclass


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data: bytes) -> dict[int, list[int | bytes]]:
    found: dict[int, list[int | bytes]] = defaultdict(list)
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            number, at = varint(data, at)
            found[key >> 3].append(number)
        elif key & 7 == 2:
            size, at = varint(data, at)
            found[key >> 3].append(data[at : at + size])
            at += size
        else:
            raise AssertionError(f"pprof has no field of wire type {key & 7}")
    return found


def numbers(values: list[int | bytes]) -> list[int]:
    """A repeated varint field, packed."""
    found = []
    for value in values:
        assert isinstance(value, bytes)
        at = 0
        while at < len(value):
            number, at = varint(value, at)
            found.append(number)
    return found


def one(values: list[int | bytes]) -> int:
    assert len(values) <= 1
    number = values[0] if values else 0
    assert isinstance(number, int)
    return number


def messages(values: list[int | bytes]) -> list[dict[int, list[int | bytes]]]:
    return [fields(value) for value in values if isinstance(value, bytes)]


@dataclass
class Stack:
    """A sample: frames as (function, file, line, first line), innermost first."""

    frames: list[tuple[str, str, int, int]]
    values: list[int]
    labels: dict[str, str]


@dataclass
class Pprof:
    types: list[tuple[str, str]]
    period: tuple[str, str, int]
    time_ns: int
    duration_ns: int
    comments: list[str]
    default_type: str
    samples: list[Stack]


def read_pprof(content: bytes) -> Pprof:
    """github.com/google/pprof, proto/profile.proto, message Profile."""
    top = fields(gzip.decompress(content))
    strings = [value.decode() for value in top[6] if isinstance(value, bytes)]
    assert strings[0] == ""
    functions = {one(m[1]): (strings[one(m[2])], strings[one(m[4])], one(m[5])) for m in messages(top[5])}
    locations = {}
    for m in messages(top[4]):
        [line] = messages(m[4])
        name, file, first = functions[one(line[1])]
        locations[one(m[1])] = (name, file, one(line[2]), first)
    assert 0 not in functions
    assert 0 not in locations

    def kind(m: dict[int, list[int | bytes]]) -> tuple[str, str]:
        return strings[one(m[1])], strings[one(m[2])]

    return Pprof(
        types=[kind(m) for m in messages(top[1])],
        period=(*kind(messages(top[11])[0]), one(top[12])),
        time_ns=one(top[9]),
        duration_ns=one(top[10]),
        comments=[strings[number] for number in numbers(top[13])],
        default_type=strings[one(top[14])],
        samples=[
            Stack(
                [locations[number] for number in numbers(m[1])],
                numbers(m[2]),
                {strings[one(label[1])]: strings[one(label[2])] for label in messages(m[3])},
            )
            for m in messages(top[2])
        ],
    )
