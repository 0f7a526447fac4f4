"""TFRECORD files without TensorFlow.

A record is its length (8 bytes, little-endian), the masked CRC-32C of these, the content, and the
masked CRC-32C of that: https://www.tensorflow.org/tutorials/load_data/tfrecord. The CRC of the
length is compared, which finds a file that is cut, shifted or something else; that of the content
is not, because Python would take longer for it than for everything else.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

LONGEST = 2**31
"""No record is longer: protocol buffers cannot be."""


def _table() -> list[int]:
    out = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        out.append(byte)
    return out


TABLE = _table()


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) with TFRECORD's mask."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(path: Path) -> Iterator[bytes]:
    """The contents of the records of a file.

    Raises:
        ValueError: it is no TFRECORD file, or ends early.
    """
    with path.open("rb") as file:
        while head := file.read(12):
            length, crc = struct.unpack("<QI", head) if len(head) == 12 else (0, -1)
            if masked_crc32c(head[:8]) != crc or length > LONGEST:
                raise ValueError(f"{path.name} is no TFRECORD file, or is damaged")
            data = file.read(length)
            if len(data) != length or len(file.read(4)) != 4:
                raise ValueError(f"{path.name} ends early")
            yield data
