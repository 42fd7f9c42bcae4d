"""Counted nouns, and a scan for messages that write a number and a plural without :func:`counted`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pynas._plural import counted

PACKAGE = Path(__file__).resolve().parent.parent / "pynas"
