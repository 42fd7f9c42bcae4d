"""Leaves a model bit for bit as it was."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from pynas._errors import UserError, is_out_of_memory
from pynas._generators import generators_kept as generators_kept
from pynas._generators import put_back_generators
from pynas._generators import seed_generators as seed_generators
from pynas.stats._snapshot import ModuleState, TensorState, Values


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Restore the model and random states on the way out, error or not.

    What comes back: parameters, buffers, submodules and hooks, registered ones as the objects that they
    were; values and sizes of buffers and of tensors that are plain attributes; ``.grad``, which is away
    meanwhile; flags and modes; all other attributes of modules as the objects that they were, and the
    elements of lists, sets and dictionaries among them, so nothing that the forward collected stays; the
    states of the global random generators of torch, numpy and Python and of generators that are attributes.

    Parameters are not copied (that would cost their size): a forward that writes into one of them, or into
    its gradient, is an error. Writes through ``.data`` are looked for in samples. What is further inside
    the model's objects than their elements stays as the forward left it.

    Raises:
        UserError: The forward changed parameters in place, or some are not initialised yet.
        RuntimeError: Something could not be restored; everything else is.
    """
    snapshot = _Snapshot(model)
    try:
        snapshot.put_gradients_aside()
        yield
    except BaseException as error:
        _report(snapshot.restored(), error)
        raise
    _report(snapshot.restored(), None)


def check_initialised(model: nn.Module) -> None:
    """UserError where lazy layers have not seen a batch yet."""
    for module in model.modules():
        for tensor in chain(module._parameters.values(), module._buffers.values()):
            if tensor is not None and is_lazy(tensor):
                every = chain(model.named_parameters(), model.named_buffers())
                name = next(name for name, t in every if t is tensor)
                raise UserError(
                    f"model: {name!r} is not initialised yet, since its layer takes its size from the first "
                    "batch; run the model once on a batch first"
                )


def copied(model: nn.Module) -> nn.Module:
    """A deep copy; UserError where the model holds what nothing copies: locks, files, computed tensors."""
    try:
        return copy.deepcopy(model)
    except MemoryError:
        raise
    except Exception as error:  # whatever the objects in it raise
        raise UserError(
            f"model: it cannot be copied, which is needed here: {type(error).__name__}: {error}"
        ) from error


class _Snapshot:
    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._generators = put_back_generators()
        with _plainly():
            self._modules = [ModuleState(module) for module in _modules(model)]
            found = {id(t): (t, values) for m in self._modules for t, values in m.tensors()}
            if any(is_lazy(t) for t, _ in found.values()):
                check_initialised(model)
            self._tensors = [TensorState(*one) for one in found.values()]
            self._kept = Values([t for t in self._tensors if t.keeps])
            self._samples = Values([t for t in self._tensors if not t.keeps])

    def put_gradients_aside(self) -> None:
        with _plainly():
            for state in self._tensors:
                state.put_gradient_aside()

    def restored(self) -> list[BaseException]:
        """Restore; what went wrong."""
        with _plainly():
            steps = [m.restore for m in self._modules] + [t.restore for t in self._tensors]
            return _carried_out([*steps, self._kept.restore, *self._generators, self._check])

    def _check(self) -> None:
        changed = {id(s.tensor): s.changed() for s in self._tensors if s.changed()}
        changed |= {id(state.tensor): "the value" for state, _, _ in self._samples.changed()}
        if changed:
            names = {id(p): name for name, p in self._model.named_parameters()}
            which, what = next(iter(changed.items()))
            raise UserError(
                f"model: its forward changes its parameters in place ({what} of {names.get(which, '?')!r}); "
                "statistics need weights that stay"
            )


@contextmanager
def _plainly() -> Iterator[None]:
    """Tensors without modes and graphs around them, whichever the caller is in.

    And no garbage collection: thousands of small objects would set off several, each as long as all else
    here.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with torch._C.DisableTorchFunction(), torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        if collects:
            gc.enable()


def _modules(model: nn.Module) -> list[nn.Module]:
    """``model.modules()``, which passes each one up through all that hold it."""
    found: dict[int, nn.Module] = {}
    waiting = [model]
    while waiting:
        module = waiting.pop()
        if id(module) not in found:
            found[id(module)] = module
            waiting += [child for child in module._modules.values() if child is not None]
    return list(found.values())


def _carried_out(steps: Sequence[Callable[[], object]]) -> list[BaseException]:
    """Take every step, whatever happens in others; the errors.

    A step that fails is taken once more: an interrupt comes once, and memory may be there again.
    """
    errors: list[BaseException] = []
    todo, again = list(reversed(steps)), False
    while todo:
        try:
            while todo:
                todo[-1]()
                todo.pop()
                again = False
        except BaseException as error:
            if again or not isinstance(error, Exception):
                errors.append(error)
            if again:
                todo.pop()
            again = not again
    return errors


def _report(errors: Sequence[BaseException], original: BaseException | None) -> None:
    """Raise the most urgent of ``errors``; those that end a program or a search go before ours."""
    if not errors:
        return
    texts = [f"{type(e).__name__}: {e}" for e in errors]
    if original is not None and (not isinstance(original, Exception) or is_out_of_memory(original)):
        original.add_note(f"and the model is not as it was: {'; '.join(texts)}")
        return
    for error in errors:
        if not isinstance(error, Exception):
            raise error from original
    if all(isinstance(error, UserError) for error in errors):
        raise errors[0] from original
    raise RuntimeError(f"model: not all of it could be restored: {'; '.join(texts)}") from (
        original or errors[0]
    )
