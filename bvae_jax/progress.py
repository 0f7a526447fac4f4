"""What the user sees while a run goes on: throughput, time left, the numbers that matter."""

import contextlib
import sys
import time
from typing import Any

from tqdm.auto import tqdm

QUIET_SECONDS = 30
"""Between lines of progress where the output is a file and not a terminal."""


def bar(**options: Any) -> tqdm:
    """A progress bar, which speaks seldom where nobody watches."""
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    return tqdm(mininterval=0.2 if watched else QUIET_SECONDS, dynamic_ncols=True, **options)


class TrainingProgress(contextlib.AbstractContextManager):
    """A bar over the steps of a run, and its clock.

    Args:
        steps: of the whole run.
        start: steps done before.
        batch_size: images in a step.
        earlier: what `times` gave when the run was last saved; empty for a new run.
        visible: show the bar.
    """

    def __init__(
        self, steps: int, start: int, batch_size: int, earlier: dict[str, Any], visible: bool
    ):
        self._bar = bar(total=steps, initial=start, unit="step", desc="train", disable=not visible)
        self._batch_size = batch_size
        self._earlier = earlier
        self._begin = self._chunk_begin = time.monotonic()
        self._chunks: list[tuple[int, float]] = []

    def __exit__(self, *exception) -> None:
        self._bar.close()

    def times(self) -> dict[str, Any]:
        """`wall_seconds` over all sessions of the run, and `images_per_second` of the last.

        The latter is of training alone, without the first chunk, which compiles, if there are
        others.
        """
        counted = self._chunks[1:] or self._chunks
        seconds = sum(seconds for _, seconds in counted)
        rate = self._batch_size * sum(n for n, _ in counted) / seconds if counted else None
        return {
            "images_per_second": rate or self._earlier.get("images_per_second"),
            "wall_seconds": self._earlier.get("wall_seconds", 0.0) + time.monotonic() - self._begin,
        }

    def begin_chunk(self) -> None:
        """Training starts, or goes on after an evaluation."""
        self._chunk_begin = time.monotonic()

    def end_chunk(self, steps: int, means: dict[str, Any]) -> None:
        """`steps` more are done; `means` are their metrics."""
        self._chunks.append((steps, time.monotonic() - self._chunk_begin))
        numbers = {
            "images/s": f"{self.times()['images_per_second']:.0f}",
            "nll": f"{means['nll']:.1f}",
            "kl": f"{means['kl']:.2f}",
            "active": str(means["active_latents"]),
        }
        self._bar.set_postfix(numbers, refresh=False)
        self._bar.update(steps)
