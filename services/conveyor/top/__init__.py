"""`conveyor top`: a run on a whole terminal, live, from another terminal than its own. Read-only.

    control socket ── status, once an interval ──▶ watcher ──▶ page ──▶ screen ──▶ the terminal
                                                   │   ▲
                                history, usage ◀───┘   └─── keys, signals, the run's farewell

`watcher` is the one loop and knows when it is over; `screen` owns the terminal and gives it back; `page` says what
stands where. `history` remembers what was read, `charts` and `sparkline` draw it, `usage` reads CPU and memory of the
workers, `ranking` puts them in order: these and `page` are pure, but for `usage`. If it dies, the run does not notice.
"""
