"""The cell of NAS-Bench-201 as a module, and as one functional call.

Parameters have the names of the authors' code, so published state dicts load.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from pynas.nn.candidates import candidate

EDGES: Final = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Source and target of each edge."""


class Cell(nn.Module):
    """``x_t = sum_{s<t} op_{s,t}(x_s)`` over nodes 0 to 3; ``layers.i`` is the operation on edge ``i``.

    In a pruned cell the keys of ``layers`` have gaps. A node without live edges is never read, and a cell
    without live edges gives zeros.

    Args:
        operations: ``(edge, operation)`` of each present edge; edge ``i`` is ``EDGES[i]``.
        channels: Channels of every node.
    """

    def __init__(self, operations: Sequence[tuple[int, str]], channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                str(edge): candidate(operation, "nasbench201", channels, affine=True)
                for edge, operation in operations
            }
        )
        self.edges = tuple((str(edge), *EDGES[edge]) for edge, _ in operations)

    def forward(self, x: Tensor) -> Tensor:
        """The output node, ``[N, channels, H, W]`` like ``x``."""
        return run_cell(x, self)

    def by_module(self, x: Tensor) -> Tensor:
        """The output node, computed one operation after the other."""
        nodes = {0: x}
        for key, source, target in self.edges:
            y = self.layers[key](nodes[source])
            nodes[target] = nodes[target] + y if target in nodes else y
        return nodes[3] if 3 in nodes else x.mul(0.0)


def run_cell(x: Tensor, cell: Cell) -> Tensor:
    """``cell(x)`` as a function call, for which ``stats.collect`` has a rule of its own."""
    if has_torch_function_unary(x):
        return handle_torch_function(run_cell, (x,), x, cell)
    return cell.by_module(x)
