"""TensorFlow Datasets' builders where TensorFlow is not installed, or not wanted.

TFDS touches TensorFlow through one lazily imported module. In its builders' generators and its
extractor that is nearly always `tf.io.gfile`, which `open` and `os` replace. Tested with TFDS
4.9.10, in which the lazy module is `core.utils.lazy_imports_utils.tensorflow`.
"""

import builtins
import contextlib
import glob
import os
import shutil
import types
from collections.abc import Iterator
from typing import Any

from tensorflow_datasets.core.utils import lazy_imports_utils

from bvae_jax.errors import UserError


def _open(path: Any, mode: str = "r") -> Any:
    return builtins.open(os.fspath(path), mode)


FILES = types.SimpleNamespace(
    GFile=_open,
    Open=_open,
    copy=shutil.copyfile,
    exists=os.path.exists,
    glob=glob.glob,
    isdir=os.path.isdir,
    listdir=lambda path: sorted(os.listdir(path)),
    makedirs=lambda path: os.makedirs(path, exist_ok=True),
    walk=os.walk,
)


def _as_text(text: Any) -> str:
    return text.decode() if isinstance(text, bytes) else str(text)


STAND_IN = types.SimpleNamespace(
    io=types.SimpleNamespace(gfile=FILES), compat=types.SimpleNamespace(as_text=_as_text)
)


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Inside, what TFDS takes for TensorFlow is a stand-in that only knows files.

    Raises:
        UserError: the installed TFDS is not built as this expects.
    """
    lazy = getattr(lazy_imports_utils, "tensorflow", None)
    if not hasattr(type(lazy), "_module"):
        raise UserError(
            "tensorflow-datasets: got a version that cannot be used without TensorFlow, wanted "
            "4.9.10: pip install tensorflow-datasets==4.9.10."
        )
    # The lazy module's attributes are those of what its `_module`, a cached property, keeps here.
    cached = vars(lazy)
    before = dict(cached)
    cached["_module"] = STAND_IN
    try:
        yield
    finally:
        cached.pop("_module")
        cached.update(before)
