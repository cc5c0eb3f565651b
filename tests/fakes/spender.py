"""`python -m tests.fakes.spender HOME`: spends without end, and says the name of every call whose row is safe."""

import asyncio
import os
import sys
from pathlib import Path

from app.accounting.ledger import COMMIT_WAIT_S
from app.backends.base import Account, Call, Deadline
from app.domain import TokenCount
from tests.fakes.money import GEMINI, Desk

AT_ONCE = 8


async def spend(desk: Desk, first: int) -> None:
    """Calls number `first`, `first` + AT_ONCE, ..."""
    number = first
    while True:
        name = f"{os.getpid()}-{number}"
        call = Call(stage="rank", deadline=Deadline(60), account=Account(), request_id=name)
        charge = await desk.meter.begin(GEMINI, call, TokenCount(input=1))
        began = asyncio.get_running_loop().time()
        await charge.end(TokenCount(input=1), outcome="ok")
        if asyncio.get_running_loop().time() - began < COMMIT_WAIT_S:  # it did not give up waiting
            sys.stdout.write(f"{name}\n")
            sys.stdout.flush()
        number += AT_ONCE


async def main(home: Path) -> None:
    """Until killed."""
    desk = Desk(home)
    await asyncio.gather(*(spend(desk, first) for first in range(AT_ONCE)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
