#!/usr/bin/env python3
"""Draws the bot's avatar: a prompt that sends. `python3 docs/avatar.py > src/matrix/avatar.png`"""

import math
import struct
import sys
import zlib

SIDE = 192
# How many points are looked at in each pixel, along each side: edges become smooth.
SAMPLES = 4
BACKGROUND, PROMPT, SIGNAL = (0x26, 0x2B, 0x44), (0xF4, 0xF1, 0xEA), (0xE0, 0x7A, 0x3F)


def distance(x, y, line):
    """From a point to a line between two others."""
    (ax, ay), (bx, by) = line
    dx, dy = bx - ax, by - ay
    along = max(0, min(1, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)))
    return math.hypot(x - ax - along * dx, y - ay - along * dy)


def colour(x, y):
    """Of a point; the picture is one wide and one high. Clients show it as a circle, so nothing is in the corners."""
    prompt = [((0.24, 0.42), (0.42, 0.56)), ((0.42, 0.56), (0.24, 0.70)), ((0.50, 0.72), (0.70, 0.72))]
    if any(distance(x, y, line) < 0.042 for line in prompt):
        return PROMPT
    # Waves that go up and to the right from the end of the prompt.
    right, up = x - 0.50, 0.50 - y
    radius = math.hypot(right, up)
    if radius < 0.045:
        return SIGNAL
    if right > 0 and up > 0 and any(abs(radius - wave) < 0.028 for wave in (0.14, 0.25)):
        return SIGNAL
    return BACKGROUND


def pixel(column, row):
    """The mean colour of its points."""
    points = [(index + 0.5) / SAMPLES for index in range(SAMPLES)]
    colours = [colour((column + x) / SIDE, (row + y) / SIDE) for x in points for y in points]
    return bytes(round(sum(channel) / len(colours)) for channel in zip(*colours))


def chunk(kind, data):
    """One part of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


rows = b"".join(b"\0" + b"".join(pixel(column, row) for column in range(SIDE)) for row in range(SIDE))
header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
sys.stdout.buffer.write(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
