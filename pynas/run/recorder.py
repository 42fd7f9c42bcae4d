"""What a search knows of its trials: in memory, in the strategy, and in a store to go on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pynas._errors import UserError
from pynas._io import provenance as facts
from pynas.architecture import Architecture
from pynas.run.identity import Identity
from pynas.store import DAMAGED, SCHEMA_VERSION, Run, Store
from pynas.strategies import Exhausted, SearchStrategy
from pynas.trial import Evaluation, Proposal, Trial

PROPOSALS_PER_WORKER = 2
"""How many are open for each process, so that an evaluation that takes longer does not idle the others."""

TRIALS_PER_STATE = 32
"""The strategy's state is stored every ``1 + n // TRIALS_PER_STATE`` trials; see :class:`Recorder`."""


class Recorder:
    """The trials of one run: in memory, in the strategy, and, if there is one, in the store.

    The state of a strategy grows with its trials. Stored with every trial it would cost a time quadratic in
    their number, so it is stored every ``1 + n // TRIALS_PER_STATE`` trials, in the transaction of the trial
    that it includes; the trials after it are replayed on resuming, which also checks that the strategy
    proposes the same.

    With several workers several proposals are open. They are told in the order in which they were made, and
    as many as are missing are made after each: the strategy sees the same whatever is evaluated when. Its
    state is then stored with the proposals that it knows of and the store does not.
    """

    def __init__(
        self,
        store: Store | None,
        identity: Identity,
        strategy: SearchStrategy,
        resume: bool,
        workers: int = 1,
    ) -> None:
        if resume and store is None:
            raise UserError("resume: needs a store to continue from; give its path")
        self._store = store
        self._strategy = strategy
        self._most_open = 1 if workers == 1 else PROPOSALS_PER_WORKER * workers
        self._open: list[Proposal] = []
        self._in_state = 0
        self.trials: list[Trial] = []
        if store is None:
            self.run = Run(None, identity.config, facts.collect())
            return
        config = identity.in_store(store, resume)
        self.run = store.start(config, facts.collect() | {"schema": SCHEMA_VERSION}, resume=resume)
        self.trials += store.trials(self.run, check=strategy.space.check)
        saved = store.state(self.run)
        if saved is not None:
            self._in_state, state = saved
            try:
                self._load_state(state)
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
                raise UserError(
                    f"{store.location}: run {self.run.id}, state of the strategy: {error!r}; {DAMAGED}"
                ) from error
        for trial in self.trials[self._in_state :]:
            proposals = self.ask()
            if not proposals or proposals[0].architecture != trial.architecture:
                raise UserError(
                    f"{store.location}: run {self.run.id} cannot be continued: trial {trial.number} is not "
                    "what the strategy proposes now; another version wrote it. Start a run with another seed"
                )
            self._tell(trial)

    def ask(self) -> Sequence[Proposal]:
        """What is proposed and not recorded yet, the next trial first; none where nothing new is left.

        Raises:
            Infeasible: No architecture meets the constraints.
        """
        while len(self._open) < self._most_open:
            try:
                architecture = self._strategy.ask()
            except Exhausted:
                break
            self._open.append(Proposal(architecture, self._strategy.fidelity(architecture)))
        return self._open

    def record(self, evaluation: Evaluation) -> Trial:
        """Tell and store the next trial, of what was proposed first."""
        number = len(self.trials)
        trial = Trial(number, self._open[0].architecture, evaluation)
        self._tell(trial)
        if self._store is not None:
            due = number + 1 - self._in_state > number // TRIALS_PER_STATE
            self._store.append(self.run, trial, self._state() if due else None)
            self._in_state = number + 1 if due else self._in_state
        self.trials.append(trial)
        return trial

    def _tell(self, trial: Trial) -> None:
        del self._open[0]
        self._strategy.tell(trial)

    def _state(self) -> dict[str, Any]:
        state = self._strategy.state()
        if self._most_open == 1:
            return state
        return {"strategy": state, "open": [[list(arch.decisions), share] for arch, share in self._open]}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        if self._most_open == 1:
            self._strategy.load_state(state)
            return
        self._strategy.load_state(state["strategy"])
        space = self._strategy.space
        self._open = [
            Proposal(Architecture(space.name, tuple(found)), float(share)) for found, share in state["open"]
        ]
        for proposal in self._open:
            space.check(proposal.architecture)
