"""WHAT OUTLIVES: the queue on disk, so that an accepted task survives the death of everything.

    store.py      the tasks, in SQLite: written before their producer gets credit for more
    ledger-N      the ledger of the Nth start: what each worker has done, to the task, though all of them are dead
    leases-N      leasebook.py: which tasks each consumer was given, written before it is told
    recovery.py   what follows from the three at the next start: pure
    folder.py     opens all of it, for one run at a time

The two files in shared memory say what happened since the last commit. They need no commit themselves: a SIGKILL leaves
what was stored, so nothing but the tasks in hand is done twice. A power cut may not: then what they would have said
is done again.
"""
