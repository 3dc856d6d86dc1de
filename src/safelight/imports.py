"""Keep the garbage collector away from what a program imports, which is never garbage."""

import gc


def begin() -> None:
    """Stop the collector while a program imports its modules."""
    gc.disable()


def complete() -> None:
    """Start the collector. It ignores everything that exists now, also when the program ends."""
    gc.freeze()
    gc.enable()
