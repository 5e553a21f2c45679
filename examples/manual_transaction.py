"""A transaction over an acquired connection: BEGIN, then COMMIT or ROLLBACK, then release.

    PGPASSWORD=... python examples/manual_transaction.py 127.0.0.1 5432 me mydatabase

Nearly always `async with pool.connection(...)` is the right thing, because it sees how its block
ended. After `acquire` the caller must say how the lease ended:

- `release` says that the transaction is over: committed, or rolled back.
- `discard` says that nobody knows. The pool has the server stop what it is doing and closes the
  connection, and the server rolls back what is unfinished.

Both are synchronous. They cannot be cancelled, and they never wait.
"""

from __future__ import annotations

import os
import sys

import trio
from postgres_client import Database, Session, SQLError

WITHDRAW = "UPDATE conpool_account SET balance = balance - $1::int WHERE name = $2"
DEPOSIT = "UPDATE conpool_account SET balance = balance + $1::int WHERE name = $2"


async def transfer(db: Database, amount: int, giver: str, taker: str) -> None:
    """Move all of the money or none.

    Raises:
        SQLError: The database refused (the giver has too little), and no money was moved.
    """
    conn = await db.pool.acquire(db.endpoint)
    try:
        refusal = await try_transfer(conn.session, amount, giver, taker)
    except BaseException:
        # Cancelled, or the connection broke: nobody knows how far the transaction came.
        db.pool.discard(conn)
        raise
    db.pool.release(conn)
    if refusal:
        raise refusal


async def try_transfer(session: Session, amount: int, giver: str, taker: str) -> SQLError | None:
    """Commit the transaction or roll it back; return the error that made it roll back."""
    await session.query("BEGIN")
    try:
        await session.query(DEPOSIT, amount, taker)
        await session.query(WITHDRAW, amount, giver)
    except SQLError as refusal:
        await session.query("ROLLBACK")
        return refusal
    await session.query("COMMIT")
    return None


async def main(host: str, port: int, user: str, password: str, database: str) -> dict[str, int]:
    """Move money twice, the second time more than there is; return the balances."""
    db = Database(host, port, user, password, database)
    async with db.pool:
        await db.query("DROP TABLE IF EXISTS conpool_account")
        await db.query("CREATE TABLE conpool_account (name text, balance int CHECK (balance >= 0))")
        await db.query("INSERT INTO conpool_account VALUES ('Ada', 100), ('Bob', 0)")

        await transfer(db, 30, "Ada", "Bob")
        try:
            await transfer(db, 1000, "Ada", "Bob")
        except SQLError as refusal:
            print(f"rolled back: {refusal}")

        rows = await db.query("SELECT name, balance FROM conpool_account")
        await db.query("DROP TABLE conpool_account")
        print(db.pool.all_stats())
    return {str(name): int(balance or 0) for name, balance in rows}


if __name__ == "__main__":
    host, port, user, database = sys.argv[1:]
    print(trio.run(main, host, int(port), user, os.environ["PGPASSWORD"], database))
