"""The door to the Rust core: imported when first used, and refused after a fork.

The core starts its threads on first use. A child made by ``fork`` has the memory of those threads but not the threads,
so a call would wait for ever; the door notices the other process id and says what to do instead.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from regraft.errors import InternalError, InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable

    from regraft._core import CancelToken

__all__ = ["enter", "in_thread"]

Result = TypeVar("Result")
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


async def in_thread(call: Callable[[CancelToken], Result]) -> Result:
    """Runs a long verb beside the event loop; a cancelled caller waits until the core has let go of the store.

    Args:
        call: The verb, which is given the token that stops it.

    Returns:
        What it returns.
    """
    # The caller has an event loop, so nothing is loaded here; a shell command has none and would wait for it.
    import asyncio

    enter()
    from regraft import _core

    token = _core.CancelToken()
    running = asyncio.ensure_future(asyncio.to_thread(call, token))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        token.cancel()
        # Whatever the verb raises now is the cancellation's own echo.
        await asyncio.gather(running, return_exceptions=True)
        raise
