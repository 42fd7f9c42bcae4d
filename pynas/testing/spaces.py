"""The conformance suite of search spaces, for pynas's own and for yours.

Each check takes a space and raises AssertionError with the reason. With pytest::

    @pytest.mark.parametrize("check", pynas.testing.spaces.CHECKS, ids=lambda check: check.__name__)
    def test_my_space(check):
        check(MySpace())
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from pynas._errors import UserError
from pynas._plural import counted
from pynas.architecture import Architecture
from pynas.spaces import SearchSpace

Check = Callable[[SearchSpace], None]

_SAMPLES = 30
_ENUMERABLE = 50_000  # larger spaces are probed, not enumerated
_FEW = 40  # of an architecture with more neighbours, about a quarter as many are checked


def _samples(space: SearchSpace, count: int = _SAMPLES) -> list[Architecture]:
    rng = random.Random(0)
    return [space.sample(rng) for _ in range(count)]


def _refuses(call: Callable[[], object], case: str) -> str:
    """The message of the UserError that ``call`` must raise."""
    try:
        outcome = call()
    except UserError as error:
        return str(error)
    raise AssertionError(f"{case} must raise UserError, gave {outcome!r}")


def _listed(method: Callable[[], object]) -> object:
    """The result of ``method``; for an iterator, its first element."""
    outcome = method()
    return next(outcome) if isinstance(outcome, Iterator) else outcome


def sampling_is_valid_and_seeded(space: SearchSpace) -> None:
    """Samples are in the space, repeat with their seed, and reach more than one choice of every decision."""
    archs = _samples(space, 200)
    for arch in archs:
        assert arch.space == space.name, f"sample of {space.name} says it is of {arch.space}"
        space.check(arch)
    assert archs[:_SAMPLES] == _samples(space), "the same seed must give the same samples"
    assert len(set(archs)) > 1 or space.size == 1, f"200 samples are all {archs[0]}"
    for i, choices in enumerate(space.num_choices):
        taken = {arch.decisions[i] for arch in archs}
        assert choices == 1 or len(taken) > 1, f"200 samples took only choice {taken} of decision {i}"


def mutation_makes_a_move(space: SearchSpace) -> None:
    """A mutant is one move from its parent, by default in one decision, and reproducible by its seed."""
    for seed, arch in enumerate(_samples(space)):
        mutant = space.mutate(arch, random.Random(seed))
        space.check(mutant)
        moves = space.distance(arch, mutant)
        case = f"{space.format(arch)} became {space.format(mutant)}, {counted(moves, 'move')} away"
        assert 1 <= moves <= space.mutation_distance, case
        assert mutant == space.mutate(arch, random.Random(seed)), "the same seed must give the same mutant"


def mutation_reaches_every_neighbour(space: SearchSpace) -> None:
    """Repeated mutation of an architecture reaches only its neighbours, and all of them if they are few."""
    if space.mutation_distance > 1:
        return
    (arch,) = _samples(space, 1)
    neighbours = set(itertools.islice(space.neighbours(arch), 65))
    if len(neighbours) > 64:
        return
    rng = random.Random(1)
    mutants = {space.mutate(arch, rng) for _ in range(60 * len(neighbours))}
    assert mutants == neighbours, f"never or wrongly reached: {mutants ^ neighbours}"


def crossover_mixes_parents(space: SearchSpace) -> None:
    """Every decision of a child comes from a parent; the child of equal parents equals them.

    If decisions have no fixed positions, only the child's membership in the space is checked.
    """
    archs = _samples(space)
    for seed, (a, b) in enumerate(itertools.pairwise(archs)):
        child = space.crossover(a, b, random.Random(seed))
        space.check(child)
        for i, decision in enumerate(child.decisions if space.size is not None else ()):
            assert decision in (a.decisions[i], b.decisions[i]), f"decision {i} is of neither parent"
        assert child == space.crossover(a, b, random.Random(seed)), "the same seed must give the same child"
        assert space.crossover(a, a, random.Random(seed)) == a


def neighbours_are_symmetric(space: SearchSpace) -> None:
    """Neighbours are distinct, at distance one, never the architecture itself, and symmetric."""
    for arch in _samples(space, 3):
        assert space.distance(arch, arch) == 0
        neighbours = list(space.neighbours(arch))
        assert neighbours or space.size == 1, f"{space.format(arch)} has no neighbour"
        assert len(set(neighbours)) == len(neighbours), f"{space.format(arch)} has a neighbour twice"
        for neighbour in neighbours[:: 1 if len(neighbours) <= _FEW else 4 * len(neighbours) // _FEW]:
            space.check(neighbour)
            assert space.distance(arch, neighbour) == 1, f"{neighbour} is not at distance one of {arch}"
            if space.reversible_moves:
                assert arch in set(space.neighbours(neighbour)), f"{arch} is not a neighbour of {neighbour}"


def canonical_form_is_idempotent(space: SearchSpace) -> None:
    """A canonical form is in the space and canonical, and no member of its class has fewer parameters."""
    for arch in _samples(space, 200):
        form = space.canonical(arch)
        space.check(form)
        assert space.canonical(form) == form, f"{form} is the canonical form of {arch} but not of itself"
        assert space.params(form) <= space.params(arch), f"{form} has more parameters than {arch}"


def text_round_trips(space: SearchSpace) -> None:
    """``parse(format(arch)) == arch``, on one line, also with surrounding blanks."""
    texts = set()
    archs = set(_samples(space))
    for arch in archs:
        text = space.format(arch)
        assert "\n" not in text, f"format() of {arch} has more than one line"
        assert space.parse(text) == arch, f"{text} reads back as {space.parse(text)}"
        assert space.parse(f" {text}\n") == arch, "blanks around an architecture string must be ignored"
        texts.add(text)
    assert len(texts) == len(archs), "two architectures have the same text"


def malformed_text_is_pointed_at(space: SearchSpace) -> None:
    """A malformed string raises UserError with the string and a caret under the error."""
    (arch,) = _samples(space, 1)
    text = space.format(arch)
    for bad in ("", "?", f"?{text}", f"{text}?", text + text):
        lines = _refuses(partial(space.parse, bad), f"parse({bad!r})").splitlines()
        assert len(lines) == 3, f"the message about {bad!r} must be a sentence, the text and a caret line"
        assert lines[1].strip() == bad, f"the message about {bad!r} must show it"
        assert set(lines[2]) == {" ", "^"}, f"the message about {bad!r} must point at the place"
        assert lines[2].index("^") <= len(lines[1]), "the caret must be under the text or right after it"


def encoding_is_injective(space: SearchSpace) -> None:
    """Encodings are numbers, differ between architectures, and have equal length if decisions do."""
    archs = list(dict.fromkeys(_samples(space, 100)))
    codes = [tuple(space.encode(arch)) for arch in archs]
    assert len({len(code) for code in codes}) == 1 or space.size is None, "encodings differ in length"
    assert all(isinstance(value, float) for code in codes for value in code), "encodings must hold floats"
    assert len(set(codes)) == len(archs), "two architectures have the same encoding"


def indices_round_trip(space: SearchSpace) -> None:
    """``from_index`` and ``index`` are inverse and refuse indices out of range.

    In a space without a size, both must raise UserError.
    """
    if space.size is None:
        (arch,) = _samples(space, 1)
        for method in (partial(space.index, arch), partial(space.from_index, 0), space.all, space.unique):
            message = _refuses(partial(_listed, method), f"{method} of a space without a size")
            assert "no finite number" in message, message
        return
    rng = random.Random(0)
    for index in {0, space.size - 1, *(rng.randrange(space.size) for _ in range(_SAMPLES))}:
        arch = space.from_index(index)
        space.check(arch)
        assert space.index(arch) == index, f"index {index} comes back as {space.index(arch)}"
    for arch in _samples(space):
        assert space.from_index(space.index(arch)) == arch
    for index in (-1, space.size):
        _refuses(partial(space.from_index, index), f"from_index({index})")


def enumeration_has_the_size(space: SearchSpace) -> None:
    """``all()`` gives ``size`` distinct architectures in index order, ``unique()`` the canonical ones."""
    if space.size is None:
        return
    if space.size > _ENUMERABLE:
        first = list(itertools.islice(space.all(), _SAMPLES))
        assert first == [space.from_index(i) for i in range(_SAMPLES)]
        return
    archs = list(space.all())
    assert len(archs) == len(set(archs)) == space.size
    for i in range(0, space.size, max(1, space.size // 1000)):
        assert space.index(archs[i]) == i, f"all() gives {archs[i]} at {i}"
    assert set(space.unique()) == {space.canonical(arch) for arch in archs}


def json_round_trips(space: SearchSpace) -> None:
    """Architectures can be written to JSON and read back."""
    for arch in _samples(space):
        assert Architecture.from_json(arch.to_json()) == arch


def foreign_architectures_are_refused(space: SearchSpace) -> None:
    """An architecture of another space, length or range raises UserError instead of giving a wrong answer."""
    (arch,) = _samples(space, 1)
    too_high = space.num_choices[0] if space.size is not None else 10**9
    strangers = [
        Architecture(f"not-{space.name}", arch.decisions),
        Architecture(space.name, (too_high, *arch.decisions[1:])),
        Architecture(space.name, (-1, *arch.decisions[1:])),
        Architecture(space.name, (*arch.decisions, -1)),
    ]
    if space.size is not None:
        strangers.append(Architecture(space.name, arch.decisions[:-1]))
        strangers.append(Architecture(space.name, (*arch.decisions, 0)))
    methods: Iterable[Callable[[Architecture], object]] = (
        space.check,
        space.index,
        space.format,
        space.canonical,
        space.encode,
        space.graph,
        space.params,
        space.macs,
        space.build,
        lambda stranger: list(space.neighbours(stranger)),
        lambda stranger: space.mutate(stranger, random.Random(0)),
        lambda stranger: space.crossover(stranger, arch, random.Random(0)),
        lambda stranger: space.distance(arch, stranger),
    )
    for method in methods:
        for stranger in strangers:
            _refuses(partial(method, stranger), f"{method} of {stranger}")


def graph_is_acyclic(space: SearchSpace) -> None:
    """Edges of the cell's graph point forward."""
    for arch in _samples(space):
        for edge in space.graph(arch):
            assert 0 <= edge.source < edge.target, f"{edge} of {space.format(arch)} points backwards"


def network_matches_its_description(space: SearchSpace) -> None:
    """The network maps inputs to outputs, trains, and has the announced parameters and multiply-adds.

    Multiply-adds are half of the FLOPs that torch's counter reports.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    for arch in _samples(space, 3):
        for num_classes, in_channels, prune in ((10, 3, False), (7, 1, True)):
            case = f"{space.format(arch)} with prune={prune}"
            network = space.build(arch, num_classes=num_classes, in_channels=in_channels, prune=prune)
            inputs = space.example_inputs(2, in_channels, torch.Generator().manual_seed(0))
            assert inputs.shape[0] == 2, f"example_inputs(2) has shape {list(inputs.shape)}"
            with FlopCounterMode(display=False) as counter:
                outputs = network(inputs)
            macs = counter.get_total_flops() // 2 // 2
            shape = space.output_shape(2, num_classes)
            assert outputs.shape == shape, f"{case}: outputs have shape {list(outputs.shape)}, not {shape}"
            outputs.square().sum().backward()
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            assert gradients, f"{case}: no parameter has a gradient"
            assert all(bool(gradient.isfinite().all()) for gradient in gradients), f"{case}: bad gradient"
            params = sum(p.numel() for p in network.parameters())
            announced = space.params(arch, num_classes, in_channels)
            announced_macs = space.macs(arch, num_classes, space.image_size, in_channels)
            if prune:
                assert params <= announced, (
                    f"{case} has {counted(params, 'parameter')}, more than {announced:,}"
                )
                assert macs <= announced_macs, f"{case} has {macs} multiply-adds of {announced_macs}"
            else:
                found = counted(params, "parameter")
                assert params == announced, f"{case} has {found}, params() says {announced:,}"
                assert macs == announced_macs, f"{case} has {macs} MACs, macs() says {announced_macs}"


def initialisation_is_the_callers(space: SearchSpace) -> None:
    """The same torch seed gives the same weights, and a pruned network is a part of the whole one."""
    import torch

    for arch in _samples(space, 2):
        states = []
        for prune in (False, False, True):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(3)
                states.append(space.build(arch, prune=prune).state_dict())
        whole, again, pruned = states
        assert whole.keys() == again.keys()
        assert all(torch.equal(whole[key], again[key]) for key in whole), "the same seed gave other weights"
        assert pruned.keys() <= whole.keys(), f"pruning renamed {sorted(pruned.keys() - whole.keys())}"
        assert all(pruned[key].shape == whole[key].shape for key in pruned), "pruning changed shapes"


CHECKS: tuple[Check, ...] = (
    sampling_is_valid_and_seeded,
    mutation_makes_a_move,
    mutation_reaches_every_neighbour,
    crossover_mixes_parents,
    neighbours_are_symmetric,
    canonical_form_is_idempotent,
    text_round_trips,
    malformed_text_is_pointed_at,
    encoding_is_injective,
    indices_round_trip,
    enumeration_has_the_size,
    json_round_trips,
    foreign_architectures_are_refused,
    graph_is_acyclic,
    network_matches_its_description,
    initialisation_is_the_callers,
)
