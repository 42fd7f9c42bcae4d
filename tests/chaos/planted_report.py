"""Loaded into a job's process: a report that is written in place, in two parts."""

import os
import time
from pathlib import Path

from pynas.report import document
from pynas.testing.chaos._control import VARIABLE

write_page = document.write_page


def in_place(path, title, subtitle, body, *, inline=False):
    other = Path(path).with_name("other")
    write_page(other, title, subtitle, body, inline=inline)
    text = other.read_text()
    with Path(path).open("w") as file:
        for start in range(0, len(text), 20_000):
            file.write(text[start : start + 20_000])
            file.flush()
            time.sleep(0.3)  # most of the time that the job takes, so that a kill falls into it
    return Path(path)


if VARIABLE in os.environ:  # not where what is expected is written
    document.write_page = in_place
