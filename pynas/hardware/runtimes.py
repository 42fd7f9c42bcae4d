"""What runs operators and networks when they are timed: torch, or the runtime that is deployed.

A runtime of your own is a subclass of :class:`Runtime` and a line ``REGISTRY.register(name, its class)``.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from pynas._errors import UserError
from pynas._registry import Registry
from pynas.hardware._trace import Call, Setting

EXTRA = "pip install 'pynas-torch[onnx]' or pip install onnx onnxruntime onnxscript"


class Runtime(ABC):
    """Runs a module, an operator or a whole network.

    Attributes:
        compiles: Whether :meth:`prepare` takes so long that its result is kept for all rounds.
    """

    compiles: ClassVar[bool] = False

    @abstractmethod
    def check(self, setting: Setting) -> None:
        """Raise UserError if the runtime is not installed, or does not run in this setting."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions to record, by name of the package."""

    @abstractmethod
    def prepare(self, call: Call, threads: int) -> Callable[[], object]:
        """What runs ``call`` once.

        Args:
            call: A module or an operator with its arguments, in the setting that :meth:`check` has seen.
            threads: CPU threads to use.

        Raises:
            UserError: The runtime cannot run it.
        """


class Torch(Runtime):
    """Eager PyTorch."""

    def check(self, setting: Setting) -> None:
        """Everything that torch can make runs in torch."""

    def versions(self) -> dict[str, str]:
        """None: every record has torch's."""
        return {}

    def prepare(self, call: Call, threads: int) -> Callable[[], object]:
        """The call itself; threads are those of the process."""
        return call


class OnnxRuntime(Runtime):
    """onnxruntime on the CPU, with all of its graph optimisations.

    Each operator and network is exported once (:func:`torch.onnx.export`) and gets a session of its own.
    """

    compiles = True

    def check(self, setting: Setting) -> None:
        """Only float32 on the CPU, in the memory format of ONNX."""
        try:
            import onnx  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
            import onnxruntime  # type: ignore[import-untyped,import-not-found,unused-ignore]  # noqa: F401
            import onnxscript  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"runtime: onnxruntime needs {error.name}, which is not installed: {EXTRA}"
            ) from None
        for what, given, only in (
            ("device", setting.device, "cpu"),
            ("dtype", str(setting.dtype).removeprefix("torch."), "float32"),
            ("channels_last", setting.channels_last, False),
        ):
            if given != only:
                raise UserError(f"{what}: the runtime onnxruntime is timed with {only} only, got {given}")

    def versions(self) -> dict[str, str]:
        """Of onnxruntime, and of what wrote its graphs."""
        import onnxruntime
        import onnxscript

        return {"onnxruntime": onnxruntime.__version__, "onnxscript": onnxscript.__version__}

    def prepare(self, call: Call, threads: int) -> Callable[[], object]:
        """A session's run on arrays that are there already."""
        import onnxruntime

        tensors, module = _as_module(call)
        names = [f"input_{i}" for i in range(len(tensors))]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3  # errors; warnings are about its own choices
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the exporter, on what it calls itself
                program = torch.onnx.export(module, tensors, dynamo=True, input_names=names, verbose=False)
            assert program is not None
            content = program.model_proto.SerializeToString()
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"onnxruntime cannot run {call.function}: {reason}") from error
        known = dict(zip(names, tensors, strict=True))
        inputs = {each.name: known[each.name].numpy() for each in session.get_inputs()}
        return lambda: session.run(None, inputs)


class _Function(nn.Module):
    """A call as a module of its tensors, which is what exporters take."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._function = call.function  # a module becomes a part of this one
        self._leaves, self._tree = tree_flatten((call.args, call.kwargs))
        self._places = [i for i, leaf in enumerate(self._leaves) if isinstance(leaf, Tensor)]
        self.tensors = tuple(self._leaves[i] for i in self._places)
        for place in self._places:
            self._leaves[place] = None

    def forward(self, *tensors: Tensor) -> Any:
        leaves = list(self._leaves)
        for place, tensor in zip(self._places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = tree_unflatten(leaves, self._tree)
        return self._function(*args, **kwargs)


def _as_module(call: Call) -> tuple[tuple[Tensor, ...], nn.Module]:
    module = _Function(call)
    tensors = tuple(tensor.detach().contiguous() for tensor in module.tensors)
    del module.tensors
    return tensors, module.eval()


REGISTRY: Registry[type[Runtime]] = Registry("runtime")
REGISTRY.register("torch", Torch)
REGISTRY.register("onnxruntime", OnnxRuntime)


def get(name: str) -> Runtime:
    """The runtime of a name; UserError lists those that there are."""
    return REGISTRY.get(name)()
