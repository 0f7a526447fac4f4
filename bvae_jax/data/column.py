"""An array that is written to a file row by row, in bounded memory."""

import hashlib
import os
from pathlib import Path

import numpy as np

BLOCK = 2**24
"""Bytes that are moved at once."""


class Column:
    """An .npy file that grows by rows.

    Args:
        path: the file.
        dtype: of its numbers.
        row: shape of a row.

    Attributes:
        rows: so far.
        largest: the largest number at each place of a row, where they are not of uint8.
        smallest: the smallest number of all, or 0 if that is smaller.
        digest: of the content so far.
    """

    def __init__(self, path: Path, dtype: np.dtype, row: tuple[int, ...]):
        self.dtype, self._row = dtype, row
        self.largest, self.smallest = np.full(row, -1), 0
        self._start(path)

    def _start(self, path: Path) -> None:
        self.rows = 0
        self.digest = hashlib.sha256()
        self.file = path.open("wb")
        self._begin = self._write_header()

    def append(self, values: np.ndarray) -> None:
        """Append rows.

        Raises:
            ValueError: they have another shape.
            OSError: they cannot be written.
        """
        if values.shape[1:] != self._row:
            raise ValueError(f"got rows of {values.shape[1:]}, wanted {self._row}")
        if not len(values):
            return
        if self.dtype != np.uint8:
            self.largest = np.maximum(self.largest, values.max(axis=0))
            self.smallest = min(self.smallest, int(values.min()))
        data = np.ascontiguousarray(values, self.dtype).data.cast("B")
        self.digest.update(data)
        self.file.write(data)
        self.rows += len(values)

    def reorder(self, order: np.ndarray) -> None:
        """Write the rows anew in another order.

        Args:
            order: [row] which of the rows so far stands there.
        """
        self.file.flush()
        path, begin = Path(self.file.name), self._begin
        old = np.memmap(path, self.dtype, "r", begin, (self.rows, *self._row))
        step = max(1, BLOCK // old[0].nbytes)
        self.file.close()
        path.unlink()  # what is mapped stays until nobody holds it
        self._start(path)
        for start in range(0, len(order), step):
            self.append(old[order[start : start + step]])

    def close(self) -> None:
        """Write the number of rows, and see to it that all is on the disk."""
        self.file.seek(0)
        # NumPy pads a header so that the number of rows may grow.
        assert self._write_header() == self._begin
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()

    def _write_header(self) -> int:
        shape = (self.rows, *self._row)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)
        return self.file.tell()
