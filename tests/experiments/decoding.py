"""Sources for worker processes, which import this module: images made when they are asked for, with faults on request."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from experiments.data import Images
from experiments.errors import UserError


def numbered(n, size=2):
    """Images whose left top pixels spell their number, with the number as label too."""
    images = np.zeros((n, size, size, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.arange(n) // 256, np.arange(n) % 256
    return Images(images, np.arange(n, dtype=np.int32))


class Faulty(Images):
    """Images of which one, number 7, is met with a fault.

    Args:
        fault: "broken", "bug", "slow", "deadly"; or "deadly once", whose process dies of it the first time.
        folder: gets a file named as the number of each process that gathers.
    """

    def __init__(self, n, fault, folder):
        whole = numbered(n)
        super().__init__(whole.images, whole.labels)
        self.fault, self.folder = fault, Path(folder)

    def gather(self, indices):
        mark = self.folder / str(os.getpid())
        first = not any(self.folder.glob("met*"))
        mark.touch()
        if self.fault and 7 in indices:
            (self.folder / f"met{os.getpid()}").touch()
            if self.fault == "broken":
                raise UserError("image 7 cannot be read")
            if self.fault == "bug":
                raise KeyError("a bug")
            if self.fault == "slow":
                time.sleep(3600)
            if self.fault == "deadly" or first:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().gather(indices)
