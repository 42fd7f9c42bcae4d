"""Faults at random moments: ``python -m pynas.testing.chaos --kills 100 --strategy all``.

Jobs (searches with every strategy, with one process and several, commands, trainings of supernets, latency
tables, reports, embeddings, conversions) run in processes of their own. Faults hit them: signals, power cuts,
a full disk, a folder that may not be written, no memory, no more open files, a clock that is stepped back, a
closed stdout. Each job is started again until it has come to its end, which must be that of an undisturbed
run: the same trials with the same scores, the same bits of weights. While a fault lasts it goes on or ends
with exit code 2 and one clear line; and no trial that was called done may be lost.

A strategy of your own is among the jobs when an entry point registers it, or a file given by ``--load``.
"""
