"""``pynas recurrent``: search a recurrent cell on a text file."""

from __future__ import annotations

import json as json_format
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pynas._errors import UserError
from pynas._io import weights
from pynas._plural import counted
from pynas.cli import console, flags

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ALPHA_SHARE = 0.25  # share of the training text that the architecture is trained on
_HELD_OUT_SHARE = 0.1  # share of the text to test on if there is no --test


def recurrent(
    text: Annotated[Path, typer.Argument(help="Text to train on, words between spaces: .txt or .gz.")],
    test: Annotated[
        Path | None, typer.Option(help="Text to test on; the last tenth of TEXT by default.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the text.", min=1)] = 3,
    batch: Annotated[int, typer.Option(help="Streams of the text read in parallel.", min=2)] = 64,
    steps: Annotated[
        int, typer.Option(help="Words of backpropagation through time; 35 in the paper.", min=1)
    ] = 10,
    features: Annotated[
        int, typer.Option(help="Size of embeddings and states; 300 in the paper.", min=1)
    ] = 128,
    nodes: Annotated[int, typer.Option(help="Nodes of the cell; 8 in the paper.", min=1)] = 8,
    vocabulary: Annotated[
        int, typer.Option(help="Most frequent words kept; the others become <unk>.", min=2)
    ] = 10_000,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of the weights (Adam).")] = 5e-3,
    alpha_learning_rate: Annotated[
        float, typer.Option(help="Learning rate of the architecture parameters (Adam).")
    ] = 3e-3,
    warm_up: Annotated[
        float, typer.Option(help="Fraction of the steps, from the first on, that train only the weights.")
    ] = 0.0,
    dropout: Annotated[
        float,
        typer.Option(help="Dropout of the cell's inputs and outputs; 0.75 in the paper's 50 epochs."),
    ] = 0.2,
    save: Annotated[
        Path | None, typer.Option(help="Write weights and architecture parameters here (.safetensors).")
    ] = None,
    seed: flags.Seed = 0,
    threads: flags.Threads = None,
    json: flags.Json = False,
) -> None:
    """Search a recurrent cell (DARTS): alternate weights on 3/4 of a text with alpha on the rest.

    Ends with the perplexity on the test text, beside that of a unigram model, which knows only frequencies.

    Examples:
      pynas recurrent wiki.train.txt --test wiki.test.txt
      pynas recurrent book.txt.gz --epochs 50 --features 300 --batch 256 --dropout 0.75 --save cell.st
    """
    _check(learning_rate, alpha_learning_rate, warm_up, dropout, save)
    from pynas.data.text import Vocabulary, read_words

    words = read_words(text)
    held = read_words(test) if test is not None else []
    if test is None:
        cut = len(words) - max(2, round(_HELD_OUT_SHARE * len(words)))
        words, held = words[:cut], words[cut:]
    needed = math.ceil(2 * batch / _ALPHA_SHARE)
    if len(words) < needed:
        raise UserError(
            f"{text}: has {counted(len(words), 'word')} to train on, expected at least {needed:,} for "
            f"--batch {batch}; use a longer text or a smaller batch"
        )
    if len(held) < 2:
        raise UserError(f"{test}: has {counted(len(held), 'word')}, expected at least 2 to test on")
    known = Vocabulary(words, vocabulary)
    tokens, held_tokens = known.encode(words), known.encode(held)

    import torch

    from pynas.supernet.language_training import (
        TextSchedule,
        initial_language_model,
        perplexity,
        train_language_model,
    )

    if threads is not None:
        torch.set_num_threads(threads)
    schedule = TextSchedule(
        epochs,
        batch,
        steps,
        learning_rate,
        clip=1.0,
        alpha_learning_rate=alpha_learning_rate,
        alpha_warm_up=warm_up,
    )
    cut = round((1 - _ALPHA_SHARE) * len(tokens))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of dropout
        model = initial_language_model(
            torch.from_numpy(tokens[:cut]), len(known), features, nodes=nodes, dropout=dropout, seed=seed
        )
        start = time.perf_counter()
        with console.progress(quiet=json) as bar:
            task = bar.add_task(f"cell of {counted(nodes, 'node')} on {text.name}", total=None, note="")
            smooth = 0.0

            def on_step(step: Any) -> None:
                nonlocal smooth
                smooth = step.loss if step.number == 0 else 0.95 * smooth + 0.05 * step.loss
                note = f"training perplexity {math.exp(min(smooth, 700.0)):.0f}"
                bar.update(task, total=step.total, completed=step.number + 1, note=note)

            try:
                train_language_model(
                    model, torch.from_numpy(tokens[:cut]), torch.from_numpy(tokens[cut:]), schedule, on_step
                )
            except ValueError as error:
                raise UserError(str(error)) from error
        seconds = time.perf_counter() - start
    reached = perplexity(model, torch.from_numpy(held_tokens), batch_size=batch, steps=steps)
    record = _record(model, tokens[:cut], held_tokens, len(known))
    record |= {"perplexity": reached, "seconds": seconds, "words": len(known), "test_words": len(held_tokens)}
    if save is not None:
        _save(model, record["genotype"], save)
    if json:
        return console.print_json(record)
    console.say(
        f"{counted(len(tokens), 'word')}, vocabulary of {len(known):,}; "
        f"{counted(epochs, 'epoch')} in {seconds:.0f} s"
    )
    where = f"the end of {text.name}" if test is None else test.name
    unigram = record["unigram_perplexity"]
    console.say(
        f"perplexity on {counted(len(held_tokens), 'word')} of {where}: {reached:.1f} "
        f"(unigram: {unigram:.1f})"
    )
    console.say(
        "cell: " + ", ".join(f"{i + 1} = {name}({j})" for i, (name, j) in enumerate(record["recurrent"]))
    )
    if save is not None:
        console.say(f"weights: {save}")
    return None


def _record(model: Any, training: NDArray[Any], held: NDArray[Any], words: int) -> dict[str, Any]:
    from pynas.data.text import unigram_perplexity

    genotype = model.genotype()
    return {
        "unigram_perplexity": unigram_perplexity(training, held, words),
        "genotype": genotype.to_json(),
        "recurrent": [list(node) for node in genotype.recurrent],
        "mixture": model.weights.detach().softmax(-1).tolist(),
    }


def _save(model: Any, genotype: str, path: Path) -> None:
    state = model.state_dict()
    del state["decoder.weight"]  # tied to the encoder's
    weights.save(path, state, {"genotype": json_format.dumps(json_format.loads(genotype))})


def _check(
    learning_rate: float, alpha_learning_rate: float, warm_up: float, dropout: float, save: Path | None
) -> None:
    flags.check_rates(learning_rate=learning_rate, alpha_learning_rate=alpha_learning_rate)
    if not 0 <= warm_up < 1:
        raise UserError(f"--warm-up: expected a fraction of the steps in [0, 1), got {warm_up}")
    if not 0 <= dropout < 1:
        raise UserError(f"--dropout: expected a probability in [0, 1), got {dropout}")
    if save is not None:
        weights.check_target(save, "--save")
