"""Drop-in for `multiprocessing.Queue` and `JoinableQueue`: the same programs, and no death breaks them.

a process ─ put ─▶ its ring ─▶┐                                        ┌─▶ items sent ahead ─ get ─▶ a process
                 (shared      │  the broker: one process a maker        │
a process ─ put ─▶ memory)  ─▶┘  what waits, who has what, who waits ───┴─▶ ...

queue  launch          what the user calls; where it finds the broker
line                   one process's connection
broker  desk           the other side: all queues of a maker, one queue
stock  room  runs      pure: items and holders, back-pressure, bytes
ring  page  talk       what lies in shared memory, what is said
"""
