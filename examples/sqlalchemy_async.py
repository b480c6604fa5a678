"""SQLAlchemy's asyncio engine, used from greenlets, from coroutines and from a portal.

Look for: one engine and its pool serve all three. SQLAlchemy runs its own greenlets in between; they and ours
don't notice each other.

    python examples/sqlalchemy_async.py
"""

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import bridge


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"

    name: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int]


engine = create_async_engine("sqlite+aiosqlite://")
sessions = async_sessionmaker(engine)


async def open_account(name, balance):
    async with sessions.begin() as session:
        session.add(Account(name=name, balance=balance))


def legacy_report():
    """Blocking code: a greenlet runs it."""
    with bridge.async_context(sessions) as session:
        accounts = bridge.await_(session.scalars(select(Account).order_by(Account.name)))
        return [f"{account.name}: {account.balance}" for account in accounts]


async def main():
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await open_account("ann", 3)
    # a coroutine that awaits a greenlet, and a greenlet that awaits a coroutine
    await bridge.spawn(lambda: bridge.await_(open_account("bob", 5)))
    # under bridge.run() a coroutine may also call blocking code directly
    print("\n".join(legacy_report()))
    async with engine.connect() as connection:
        print("total:", (await connection.execute(text("select sum(balance) from account"))).scalar())
    await engine.dispose()


if __name__ == "__main__":
    bridge.run(main)
