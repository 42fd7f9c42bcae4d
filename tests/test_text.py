from __future__ import annotations

import numpy as np
import pytest

from pynas._errors import UserError
from pynas.data.text import word_batch


def test_batches_of_words() -> None:
    tokens = np.arange(100, dtype=np.int64) * 3
    inputs, targets = word_batch(tokens, 90, 10, seed=1)
    assert inputs.shape == targets.shape == (90, 10)
    assert (inputs[:, 1:] == targets[:, :-1]).all()
    assert (targets == inputs + 3).all()
    assert sorted(inputs[:, 0] // 3) == list(range(90)), "every start once"
    again, _ = word_batch(tokens, 90, 10, seed=1)
    other, _ = word_batch(tokens, 90, 10, seed=2)
    assert (again == inputs).all()
    assert not (other == inputs).all()
    with pytest.raises(UserError, match="a text of 100 words is too short for 91 sequences of 10 words"):
        word_batch(tokens, 91, 10, seed=1)
