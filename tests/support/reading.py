"""All that a reader of results meets."""

from __future__ import annotations

from conveyor import Results


def rest_of(results: Results) -> list[object]:
    """Return all further results, exceptions among them."""
    found: list[object] = []
    while True:
        try:
            found.append(next(results))
        except StopIteration:
            return found
        except Exception as error:
            found.append(error)
