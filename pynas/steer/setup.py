"""What a steered search is made of, as a JSON object: a store alone can begin it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from pynas._errors import UserError
from pynas.steer.search import START, SteeredSearch, check_blocks
from pynas.store import Run, Store

if TYPE_CHECKING:
    import os

    from pynas.spaces import SearchSpace
    from pynas.steer._training import SupernetTraining
    from pynas.tables import Table
    from pynas.trial import Evaluator

SETUP = "setup"
"""The key of a run's configuration under which a steered search keeps its setup."""

SUPERNET, TABLE = "supernet", "table"


@dataclass(frozen=True)
class Setup:
    """How candidates are scored, and what the search begins with.

    Attributes:
        evaluator: ``supernet``: shared weights, trained and judged on images. ``table``: known accuracies.
            Anything else: names of proxies, with commas.
        images: Images to train and to score with, as for :func:`pynas.data.load_images`.
        image_size: Pixels along a side; 16 for the digits, else as they are.
        limit: At most so many images, drawn at random.
        held_out: Share of the images that judges and never trains.
        batch: Images in a step of training, or in a batch that proxies score with.
        learning_rate: Initial learning rate of a phase of training.
        epochs: Epochs that are trained at the start; 0 waits for an analyst.
        table: Source of known accuracies for ``table``, and for the metric ``accuracy`` of proxies.
        metric: Metric of the table.
        dataset: Data set of the table.
        strategy: First strategy.
        strategy_options: Its options.
        objectives: What is searched for; by default ``accuracy``, or the proxies.
        constraints: First upper bounds on costs.
        seed: Seed of everything.
        device: Where it is computed.
        precision: Precision of the forward pass.
    """

    evaluator: str = SUPERNET
    images: str = "digits"
    image_size: int | None = None
    limit: int | None = None
    held_out: float = 0.3
    batch: int = 64
    learning_rate: float = 0.1
    epochs: int = 3
    table: str | None = None
    metric: str | None = None
    dataset: str | None = None
    strategy: str = "evolution"
    strategy_options: Mapping[str, Any] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()
    constraints: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {**asdict(self), "objectives": list(self.objectives)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Setup:
        """Inverse of :meth:`to_dict`; UserError for names of a later version."""
        known = {each.name for each in fields(cls)}
        unknown = [name for name in record if name not in known]
        if unknown:
            raise UserError(f"setup: {', '.join(unknown)} are unknown here: a later pynas wrote it; upgrade")
        return cls(**{**record, "objectives": tuple(record.get("objectives", ()))})

    @property
    def proxies(self) -> tuple[str, ...]:
        """Names of the proxies; none where a supernet or a table scores."""
        if self.evaluator in (SUPERNET, TABLE):
            return ()
        return tuple(name.strip() for name in self.evaluator.split(",") if name.strip())


def begin(
    space: SearchSpace,
    setup: Setup,
    *,
    budget: int = 100,
    store: str | os.PathLike[str] | Store | None = None,
    resume: bool = False,
    **more: Any,
) -> SteeredSearch:
    """The steered search of a setup; ``more`` are arguments of :class:`SteeredSearch`.

    Raises:
        UserError: Unknown names, a space without blocks or without a supernet, images that do not fit.
    """
    check_blocks(space)  # first: another evaluator would not help
    evaluator, training, table = _parts(space, setup)
    objectives = setup.objectives or setup.proxies or ("accuracy",)
    return SteeredSearch(
        space,
        evaluator,
        training=training,
        strategy=setup.strategy,
        objectives=objectives,
        constraints=setup.constraints,
        budget=budget,
        store=store,
        seed=setup.seed,
        resume=resume,
        table=table,
        strategy_options=setup.strategy_options,
        config={SETUP: setup.to_dict()},
        **more,
    )


def start(search: SteeredSearch, setup: Setup) -> None:
    """Let a new search run: train the supernet first, where there is one; nothing if it was begun before.

    A search that was killed in between is begun to the end.
    """
    search.do_due()
    if search.is_catching_up or search.trials or search.steps:
        return
    done = {action.kind for action in search.actions if action.who == START}
    if any(action.who != START for action in search.actions):
        return
    if search.training is not None and setup.epochs and "train" not in done:
        search.act("train", epochs=setup.epochs, who=START)
    if (search.training is None or setup.epochs) and "resume" not in done:
        search.act("resume", who=START)


def stored_setup(store: Store, run: int | None = None) -> tuple[Run, Setup]:
    """A steered run of a store, by default the newest, and its setup.

    Raises:
        UserError: There is none, or it was steered from Python, where only its program knows what it is of.
    """
    chosen = store.run(run) if run is not None else None
    if chosen is None:
        steered = [each for each in store.runs() if each.config.config.get("steered")]
        if not steered:
            raise UserError(f"{store.location}: no run in it was steered; start one without --resume")
        chosen = steered[-1]
    record = chosen.config.config.get(SETUP)
    if not isinstance(record, Mapping):
        raise UserError(
            f"{store.location}: run {chosen.id} was not begun by pynas steer, so nothing says how it scores; "
            "use the program that began it"
        )
    return chosen, Setup.from_dict(record)


def space_of_run(run: Run) -> SearchSpace:
    """The space of a stored run; UserError if it is a user's own."""
    from pynas.report.search import registered_space

    space = registered_space(run)
    if space is None:
        raise UserError(f"run {run.id}: its space {run.config.space!r} is not one of pynas; use its program")
    return space


def _parts(
    space: SearchSpace, setup: Setup
) -> tuple[Evaluator | None, SupernetTraining | None, Table | None]:
    table = None
    if setup.table is not None or setup.evaluator == TABLE:
        from pynas import tables

        table = tables.load(setup.table or "analog", space, setup.metric, dataset=setup.dataset)
    if setup.evaluator == TABLE:
        from pynas.steer._table import TableEvaluator

        assert table is not None
        return TableEvaluator(table), None, None
    if setup.evaluator == SUPERNET:
        return None, _supernet(space, setup), table
    from pynas import data
    from pynas.evaluate import ProxyEvaluator

    source = data.load_images(setup.images, size=setup.image_size, limit=setup.limit, seed=setup.seed)
    inputs, targets = data.batch(source, min(setup.batch, len(source)), setup.seed)
    evaluator = ProxyEvaluator(
        space,
        inputs.to(setup.device),
        targets.to(setup.device),
        setup.proxies,
        precision=setup.precision,  # type: ignore[arg-type]
        seed=setup.seed,
        num_classes=source.num_classes,
    )
    return evaluator, None, table


def _supernet(space: SearchSpace, setup: Setup) -> SupernetTraining:
    import torch

    from pynas import data
    from pynas._generators import seeded
    from pynas.steer._training import SupernetTraining
    from pynas.supernet import TrainingOptions, build

    if not 0 < setup.held_out < 1:
        raise UserError(f"held_out: expected a share of the images in (0, 1), got {setup.held_out}")
    size = setup.image_size or (16 if setup.images == "digits" else None)  # they are scans of 8x8
    source = data.load_images(setup.images, size=size, limit=setup.limit, seed=setup.seed)
    held = round(setup.held_out * len(source))
    if held < 1 or len(source) - held < setup.batch:
        raise UserError(
            f"images: {source.name} has {len(source):,}; expected at least one held out and a batch of "
            f"{setup.batch} to train on"
        )
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(setup.seed)).tolist()
    judging, training = source.take(order[:held]), source.take(order[held:])
    with seeded(setup.seed):
        model = build(space, source.num_classes, int(source.inputs.shape[1])).to(setup.device)
    options = TrainingOptions(
        batch_size=setup.batch,
        learning_rate=setup.learning_rate,
        precision=setup.precision,  # type: ignore[arg-type]
    )
    return SupernetTraining(
        model,
        training.inputs,
        training.targets,
        judging.inputs,
        judging.targets,
        options=options,
        seed=setup.seed,
        num_classes=source.num_classes,
    )
