"""Drop-in for `multiprocessing.Queue` and `JoinableQueue`: the same programs, and no death breaks them.

a process ─ put ─▶ its ring ─▶┐                                        ┌─▶ items sent ahead ─ get ─▶ a process
                 (shared      │  the broker: one process a maker        │
a process ─ put ─▶ memory)  ─▶┘  what waits, who has what, who waits ───┴─▶ ...

queue  packing  launch     what the user calls; items as bytes; where it finds the broker
line  exchange             one process's connection: what is said, and who waits
holds  interruption        which items a thread has got; whether a signal's handler has raised
broker  desk  turns        the other side: all queues of a maker, one queue, the loop
waiters  recalls  member   who waits; taking back what is not used; one process as the broker has it
stock  room  runs          pure: items and holders, back-pressure, bytes
ring  page  talk           what lies in shared memory, what is said
"""
