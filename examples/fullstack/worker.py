"""The worker process: executes jobs until it is told to stop.

python -m examples.fullstack.worker
"""

import asyncio
import signal

from examples.fullstack.app import durably


async def main() -> None:
    """Work; a signal ends it, and what has not ended five seconds later goes on in the next worker."""
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    async with durably:
        await stopping.wait()
        await durably.stop(timeout=5)


if __name__ == "__main__":
    asyncio.run(main())
