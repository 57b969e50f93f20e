"""Seeds: every random stream of a study is a function of the study's seed and the trial's number.

So a study that is killed and resumed draws what it would have drawn, and a trial can be repeated from
its record alone.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

SEEDS_OF = "seeds_of"
"""The attribute of a trial that trains with the seeds of another number than its own."""
_STREAMS = {"sampler": 0, "init": 1, "train": 2}


def stream_seed(
    study_seed: int, trial: int, stream: Literal["sampler", "init", "train"], candidate: int = 0
) -> int:
    """Return the 32-bit seed of one stream of one trial, or of one of several candidates for it.

    >>> stream_seed(0, 7, "train") == stream_seed(0, 7, "train") != stream_seed(0, 8, "train")
    True
    """
    entropy = [study_seed, trial, _STREAMS[stream], *([candidate] if candidate else [])]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
