"""What the user sees while a run goes on: throughput, time left, the numbers that matter."""

import contextlib
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bvae_jax.errors import printable
from bvae_jax.runtime import bar


class Clock:
    """How long a run took.

    Args:
        batch_size: images in a step.
        earlier: what `times` gave when the run was last saved.
    """

    def __init__(self, batch_size: int, earlier: Mapping[str, Any] = {}):
        self._batch_size = batch_size
        self._earlier = earlier
        self._begin = self._chunk_begin = time.monotonic()
        self._chunks: list[tuple[int, float]] = []

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
        """Training starts, or goes on after an evaluation or a save."""
        self._chunk_begin = time.monotonic()

    def end_chunk(self, steps: int) -> None:
        """`steps` more are done, and the next are being computed."""
        begin, self._chunk_begin = self._chunk_begin, time.monotonic()
        self._chunks.append((steps, self._chunk_begin - begin))


class TrainingProgress(contextlib.AbstractContextManager):
    """A bar over steps.

    Args:
        steps: in all.
        start: steps done before.
        visible: show the bar.
    """

    def __init__(self, steps: int, start: int, visible: bool):
        self._known: dict[str, str] = {}
        self._bar = bar(total=steps, initial=start, unit="step", desc="train", disable=not visible)

    def __exit__(self, *exception) -> None:
        self._bar.close()

    def update(self, steps: int, means: Mapping[str, Any], rate: float) -> None:
        """`steps` more are done.

        Args:
            means: their metrics.
            rate: images per second.
        """
        numbers = {
            "images/s": f"{rate:.0f}",
            "nll": f"{means['nll']:.1f}",
        }
        if "kl" in means:
            numbers["kl"] = f"{means['kl']:.2f}"
        self._known |= numbers
        self._bar.set_postfix(self._known, refresh=False)
        self._bar.update(steps)

    def evaluated(self, evaluation: Mapping[str, Any], faults: Iterable[str] = ()) -> None:
        """Show how many latents are active, which one evaluation after another says, and faults.

        Args:
            evaluation: the newest; empty before the first.
            faults: in a few words each.
        """
        known = dict(self._known)
        if "active_latents" in evaluation:
            latents = len(evaluation["kl_per_latent"])
            known["active"] = f"{evaluation['active_latents']}/{latents} at {evaluation['step']}"
        if faults := ", ".join(faults):
            known["warning"] = faults
        if known != self._known:
            self._known = known
            self._bar.set_postfix(known)


class SweepProgress(TrainingProgress):
    """A bar over the steps of all members, and once a line that says how long it will take.

    Args:
        steps: of all members that are to be trained.
    """

    def __init__(self, steps: int, *, visible: bool):
        super().__init__(steps, 0, visible)
        self._left, self._chunks, self._since = steps, 0, time.monotonic()

    def begin(self, names: Sequence[str], start: int) -> None:
        """These members are trained next, from step `start`."""
        others = f" and {len(names) - 1} others" if len(names) > 1 else ""
        self._bar.set_description_str(f"{names[0]}{others}", refresh=False)
        self._known = {}
        self._bar.total -= start * len(names)
        self._left -= start * len(names)

    def update(self, steps: int, means: Mapping[str, Any], rate: float) -> None:
        super().update(steps, means, rate)
        self._left -= steps
        self._chunks += 1
        if self._chunks == 1:  # it compiled: the next one tells how long steps take
            self._since = time.monotonic()
        elif self._chunks == 2:
            seconds = self._left / steps * (time.monotonic() - self._since)
            left = f"the {self._left:,} steps left, evaluations apart"
            self.say(f"about {_duration(seconds)} for {left}")

    def say(self, message: str) -> None:
        """A line above the bar."""
        if not self._bar.disable:
            self._bar.write(printable(f"bvae: {message}"), file=sys.stderr)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
