"""Faults at random moments: ``python -m pynas.testing.chaos --kills 100 --strategy all``.

Jobs (searches with every strategy, with one process and several, commands, trainings of supernets, latency
tables, reports, embeddings, conversions) run in processes of their own and are hit by faults: signals, power
cuts, a full disk, a read-only folder, lack of memory or of file descriptors, a clock that steps back, a
closed stdout. Each job is restarted until it completes. Its result must equal that of an undisturbed run bit
for bit: the same trials with the same scores, the same weights. While a fault lasts, the job continues, or
ends with exit code 2 and one clear line. No trial that was reported as done may be lost.

Jobs include your own strategy if an entry point or a file given by ``--load`` registers it.
"""
