"""What the service asks the ledger in PostgreSQL, with 20,000 and with 2,000,000 calls.

    python -m benchmarks.database [--rows 2000000] [--small 20000]

A real PostgreSQL (Debian's programs are needed) with a database for each size, filled by the server itself and
analysed: calls of a year, of 3 backends, 40 models and 50 keys, every fiftieth a failure. Each line is one function of
the service, called once: the server, the way, and what Python makes of the rows. Then the tables are those of an
earlier version, without their last index, and a newer replica brings them up to date while another one books calls.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice

from app.accounting.budgets import BudgetKey, Limit, Reservation
from app.accounting.ledger import Entry, LedgerLimits, new_id
from app.accounting.reports import Span, export, usage
from app.accounting.shared import MIGRATIONS, SharedLedger
from indexing.postgres import Database
from tests.fakes.money import record
from tests.fakes.postgres import Postgres, running_postgres

DAYS = 365
_FILL = """INSERT INTO winnow.calls (uid, at_ms, request_id, stage, backend, kind, model, key, outcome, requests, input,
    cached, output, thinking, estimated, pico, price_source, gpu_s, latency_ms)
  SELECT n, {now} - (({rows} - n)::float8 * {days} * 86400000 / {rows})::bigint, md5(n::text), 'stage' || n % 6,
    'backend' || n % 3, 'openai', 'model' || n % 40, 'key' || n % 50, CASE WHEN n % 50 = 0 THEN 'timeout' ELSE 'ok' END,
    1, 1000 + n % 500, n % 300, 50 + n % 50, 0, 0, 1000000 + n % 1000, 'settings', CASE WHEN n % 3 = 0 THEN 0.2 END,
    100 + (n::bigint * 7919) % 1000
  FROM generate_series(1, {rows}) n"""


def filled(postgres: Postgres, rows: int, now: datetime) -> SharedLedger:
    """A ledger with so many calls."""
    url = postgres.database()
    ledger = SharedLedger(Database(url), LedgerLimits(), time.time)
    ledger.open()
    name = url.rpartition("/")[2].partition("?")[0]
    postgres.sql(name, _FILL.format(now=round(now.timestamp() * 1000), rows=rows, days=DAYS))
    postgres.sql(name, "VACUUM ANALYZE winnow.calls")
    return ledger


def questions(ledger: SharedLedger, now: datetime) -> dict[str, Callable[[], object]]:
    """What is asked, by name."""

    def span(days: int) -> Span:
        return now - timedelta(days=days), now + timedelta(seconds=1)

    def admit() -> object:
        reservation = Reservation(backend="backend1", key="key7", pico=1, id=new_id())
        limit = Limit(key=BudgetKey("key", "key7"), period="day", pico=10**18, setting="daily_usd")
        return ledger.reserve(reservation, [limit], now.timestamp(), 60.0)

    def pages(key: str | None) -> object:
        return list(islice(export(ledger.reading, span(DAYS), key=key), 2))

    return {
        "a call is admitted": admit,
        "what is spent is read": ledger.peek,
        "usage by backend, 30 days": partial(usage, ledger.reading, span(30), "backend"),
        "usage by backend, a year": partial(usage, ledger.reading, span(DAYS), "backend"),
        "usage by day, a year": partial(usage, ledger.reading, span(DAYS), "day"),
        "usage of one key, a year": partial(usage, ledger.reading, span(DAYS), "backend", "key7"),
        "two pages of the export": partial(pages, None),
        "two pages of one key's export": partial(pages, "key7"),
    }


def upgraded(postgres: Postgres, ledger: SharedLedger) -> dict[str, float]:
    """Seconds of the migration, and of the call that took longest to be booked meanwhile."""
    name = ledger._database.address.database
    postgres.sql(name, "DROP INDEX winnow.calls_by_key")
    postgres.sql(name, f"UPDATE winnow.parts SET version = {len(MIGRATIONS) - 1} WHERE part = 'ledger'")  # noqa: S608
    newer = Database(postgres.url(name))
    longest = 0.0
    with ThreadPoolExecutor(1) as replica:
        begun = time.perf_counter()
        migration = replica.submit(newer.prepare, "ledger", MIGRATIONS)
        while not migration.done():
            booked = time.perf_counter()
            ledger.write([Entry(record(time.time()), new_id())])
            longest = max(longest, time.perf_counter() - booked)
            time.sleep(0.02)
        took = time.perf_counter() - begun
        migration.result()
    newer.close()
    return {"the tables are brought up to date": took, "the longest booking of a call meanwhile": longest}


def main(arguments: list[str]) -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--small", type=int, default=20_000)
    options = parser.parse_args(arguments)
    now, took = datetime.now(UTC), dict[str, list[float]]()
    with running_postgres() as postgres:
        for rows in (options.small, options.rows):
            ledger = filled(postgres, rows, now)
            for name, ask in questions(ledger, now).items():
                begun = time.perf_counter()
                ask()
                took.setdefault(name, []).append(time.perf_counter() - begun)
            for name, seconds in upgraded(postgres, ledger).items():
                took.setdefault(name, []).append(seconds)
    sys.stdout.write(f"| seconds | {options.small:,} calls | {options.rows:,} calls |\n|---|---|---|\n")
    for name, (few, many) in took.items():
        sys.stdout.write(f"| {name} | {few:.3f} | {many:.3f} |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
