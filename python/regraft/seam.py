"""The door to the Rust core: imported when first used, and refused after a fork.

The core starts its threads on first use. A child made by ``fork`` has the memory of those threads but not the threads,
so a call would wait for ever; the door notices the other process id and says what to do instead.
"""

from __future__ import annotations

import os

from regraft.errors import InternalError, InvalidError

__all__ = ["enter"]

_process: int | None = None


def enter() -> None:
    """To be called before `regraft._core` is imported or used.

    Raises:
        InvalidError: This process was forked from one that had already used the core.
        InternalError: The extension module is not installed.

    Example:
        >>> enter()
        >>> from regraft import _core
    """
    global _process
    if _process is None:
        _process = os.getpid()
    elif _process != os.getpid():
        raise InvalidError(
            f"regraft was used in process `{_process}`, which was then forked into `{os.getpid()}`",
            "use the spawn start method: `multiprocessing.get_context('spawn')`, or "
            "`ProcessPoolExecutor(mp_context=...)`; threads need nothing of the kind",
        )
    try:
        from regraft import _core  # noqa: F401 - imported for its error
    except ImportError as cause:
        raise InternalError(
            f"the extension module `regraft._core` cannot be imported: {cause}",
            "install regraft from a wheel, or build it with `maturin develop --release`",
        ) from cause
