"""An array that is written to a file row by row, in bounded memory."""

import hashlib
import os
from pathlib import Path

import numpy as np


class Column:
    """An .npy file that grows by rows.

    Args:
        path: the file.
        dtype: of its numbers.
        row: shape of a row.

    Attributes:
        rows: so far.
        largest: the largest number at each place of a row, of numbers other than uint8.
        digest: of the content so far.
    """

    def __init__(self, path: Path, dtype: np.dtype, row: tuple[int, ...]):
        self.dtype, self.rows = dtype, 0
        self.digest = hashlib.sha256()
        self.largest = np.full(row, -1)
        self._row = row
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
        data = np.ascontiguousarray(values, self.dtype).data.cast("B")
        self.digest.update(data)
        self.file.write(data)
        self.rows += len(values)

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
