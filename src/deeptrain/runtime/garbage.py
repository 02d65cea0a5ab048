"""When Python looks for unreachable objects. A look at all objects of torch takes up to 0.2 s."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

USUALLY = gc.get_threshold()[0]  # new objects from one look to the next, as Python has it
RARELY = 10**6  # while a run is built or drawn: imports make many objects, and those stay


@contextmanager
def collect_every(objects: int) -> Iterator[None]:
    """Let Python look once so many objects have been made, and at these alone."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(objects, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
