"""Networks as source text of plain PyTorch."""

from __future__ import annotations

import copy
import inspect
import re
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn

from pynas._errors import UserError
from pynas.export._trace import traced

_HEAD = '''"""{title}

{facts}
"""

from __future__ import annotations

import operator
from pathlib import Path

import torch
from torch import nn
{imports}

def _place(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds ``name``, made where it is absent, and the last part of the name."""
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]
    return root, last


class Network(nn.Module):
    """{shape}"""

    def __init__(self) -> None:
        super().__init__()
        layers = {{
{layers}
        }}
        for name, layer in layers.items():
            module, last = _place(self, name)
            module.add_module(last, layer)
        tensors = {{
{tensors}
        }}
        for name, (tensor, kind) in tensors.items():
            module, last = _place(self, name)
            if kind == "parameter":
                module.register_parameter(last, nn.Parameter(tensor))
            else:
                module.register_buffer(last, tensor, persistent=kind == "buffer")

{forward}


def load(weights: str | Path | None = None) -> Network:
    """The network; with ``weights``, a state dict in a file of ``torch.save``, these are loaded."""
    network = Network()
    if weights is not None:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network
'''


def plain_source(model: nn.Module, inputs: Tensor, *, title: str = "A network", facts: str = "") -> str:
    """Source of a module ``Network`` with the layers, names and outputs of ``model``, that needs torch alone.

    The source has a line for each layer of ``torch.nn``, under its name in ``model``, so that state dicts
    fit, and a forward pass that calls them. What the forward decides by itself is decided as for ``inputs``
    in evaluation mode; layers such as batch norm and dropout keep both modes. The result is compared with
    ``model`` on ``inputs``.

    Args:
        model: A network of layers of ``torch.nn`` and functions of torch, as all spaces build them.
        inputs: A batch of two or more; sizes other than the batch may be fixed by it.
        title: First line of the file.
        facts: More lines.

    Raises:
        UserError: The forward depends on the size of the batch or on values, calls what is not of torch, or
            the source does not compute what the model does.
    """
    return checked_source(model, inputs, title=title, facts=facts)[0]


def checked_source(model: nn.Module, inputs: Tensor, *, title: str, facts: str) -> tuple[str, float]:
    """What :func:`plain_source` gives, and the largest difference of its outputs to those of the model."""
    model, inputs = copy.deepcopy(model).cpu().eval(), inputs.cpu()
    if len(inputs) < 2:
        raise UserError(f"inputs: expected a batch of at least two, got {len(inputs)}")
    try:
        graph, other = traced(model, inputs), traced(model, torch.cat([inputs, inputs[:1]]))
    except UserError:
        raise
    except Exception as error:
        name, problem = type(model).__name__, f"{type(error).__name__}: {error}"
        if "_Value" in problem:
            problem = "its forward calls an operator of pynas"
        raise UserError(f"model: {name} cannot be written as plain PyTorch: {problem}") from error
    code = graph.graph.python_code("self")
    if code.src != other.graph.python_code("self").src:
        raise UserError(
            f"model: {type(model).__name__} cannot be written as plain PyTorch: its forward depends on the "
            "size of the batch"
        )
    text = _HEAD.format(
        title=_quoted(title),
        facts=_quoted(facts) or "Written by pynas.",
        imports=_imports(code.globals),
        shape=f"``{list(inputs.shape)} -> {list(model(inputs).shape)}``, any batch.",
        layers=_layers(graph),
        tensors=_tensors(graph),
        forward=_forward(code.src),
    )
    return text, _compare(text, model, inputs)


def _quoted(text: str) -> str:
    """Text that may stand in a docstring."""
    return text.replace("\\", "\\\\").replace('"""', "'''").strip()


def _imports(names: dict[str, Any]) -> str:
    lines = []
    for name, value in sorted(names.items()):
        module = str(getattr(value, "__module__", ""))
        if value is torch or name in ("NoneType", "Optional", "List", "Tuple", "Dict", "Set"):
            continue
        if isinstance(value, ModuleType):
            lines.append(f"import {value.__name__} as {name}")
        elif name in ("inf", "nan"):
            lines.append(f"from math import {name}")
        elif name == "device":
            lines.append("from torch import device")
        elif module in ("operator", "_operator"):
            lines.append(f"{name} = operator.{value.__name__}")
        elif module.split(".")[0] == "torch":
            lines.append(f"from {module} import {value.__name__} as {name}")
        else:
            raise UserError(f"model: its forward calls {value!r}, which is not of torch")
    return "".join(f"{line}\n" for line in lines)


def _layers(graph: fx.GraphModule) -> str:
    used = {str(node.target) for node in graph.graph.nodes if node.op == "call_module"}
    made = {name: _constructor(graph.get_submodule(name)) for name in sorted(used, key=_natural)}
    return "\n".join(f"            {name!r}: {text}," for name, text in made.items())


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _constructor(layer: nn.Module) -> str:
    """The call that makes a layer like this one."""
    kind = type(layer)
    if getattr(nn, kind.__name__, None) is not kind:
        raise UserError(f"model: {kind.__module__}.{kind.__name__} is not a layer of torch.nn")
    arguments = []
    for parameter in list(inspect.signature(kind.__init__).parameters.values())[1:]:
        name = parameter.name
        if name in ("device", "dtype", "args", "kwargs"):
            continue
        value = getattr(layer, name, parameter.default)
        if name == "bias":
            value = getattr(layer, "bias", None) is not None
        if isinstance(value, (Tensor, nn.Module)) or value is inspect.Parameter.empty:
            raise UserError(f"model: a layer {kind.__name__} cannot be written down: its {name} is not known")
        if parameter.default is inspect.Parameter.empty:
            arguments.append(repr(value))
        elif value != parameter.default:
            arguments.append(f"{name}={value!r}")
    return f"nn.{kind.__name__}({', '.join(arguments)})"


def _tensors(graph: fx.GraphModule) -> str:
    """Tensors that the forward reads by itself; those of layers come with the layers."""
    lines = []
    parameters = dict(graph.named_parameters(remove_duplicate=False))
    state = graph.state_dict()
    for name in dict.fromkeys(str(node.target) for node in graph.graph.nodes if node.op == "get_attr"):
        if name in state:
            tensor, kind = state[name], "parameter" if name in parameters else "buffer"
            made = f"torch.zeros({list(tensor.shape)}, dtype={tensor.dtype}), {kind!r}"
        else:
            found: Any = graph
            for part in name.split("."):
                found = getattr(found, part)
            made = f"torch.tensor({found.tolist()!r}, dtype={found.dtype}), 'constant'"
        lines.append(f"            {name!r}: ({made}),")
    return "\n".join(lines)


def _forward(code: str) -> str:
    lines = code.strip("\n").split("\n")
    while not lines[0].startswith("def "):
        del lines[0]
    # Values are forgotten behind their last use; the lines are easier to read without it.
    lines = [re.sub(r";  (?:\w+ = )+None$", "", line) for line in lines]
    signature = r"def forward(self, \1: torch.Tensor) -> torch.Tensor:"
    lines[0] = re.sub(r"def forward\(self, (\w+).*", signature, lines[0])
    return "\n".join(f"    {line}" if line.strip() else "" for line in lines)


def _compare(text: str, model: nn.Module, inputs: Tensor) -> float:
    """Largest difference of outputs with the weights of the model; UserError if it is not rounding."""
    scope: dict[str, Any] = {"__name__": "exported"}
    exec(compile(text, "<exported>", "exec"), scope)  # what was just written from the layers of the model
    network: nn.Module = scope["Network"]().to(inputs.dtype).eval()
    state = model.state_dict()
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    with torch.no_grad():
        found, expected = network(inputs), model(inputs)
    rounding = 1e-12 if inputs.dtype == torch.float64 else 1e-4
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=rounding, atol=rounding):
        raise UserError(f"model: the source of {type(model).__name__} does not compute what the model does")
    return float((found - expected).abs().max())
