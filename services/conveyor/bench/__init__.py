"""HOW FAST IT IS: `conveyor bench`, Conveyor and its peers at the same work, in turn, on the same machine.

    command ─▶ rows ─▶ measures ─▶ watching ─▶ trial, a process of its own ─▶ one contestant
                          ▲                                                      │ its tasks
                          └── figures ◀── marks: counts and records in files ◀───┘
    command ─▶ results ─▶ table, picture, JSON

Every measurement is a process of its own, so a contestant that hangs costs a time-out and not the others. What
was done, and when, is told by the tasks themselves, by the same functions for every contestant: nobody's own
counters are believed.

Imported only by the command that uses it.
"""
