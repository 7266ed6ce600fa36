"""Takes entries back at the venue on a line of its own, whatever becomes of broker, desk and the line that orders go by."""
import asyncio

from config.settings import Settings
from engine.facts import HALT, Cancel
from streams.venues.local import venue_of

ENTRIES = ("E-", "T-")     # what entries' ids begin with (facts.account_of)


async def sweep(settings: Settings) -> list[str]:
    """Asks every entry back that rests at the venue and is not asked back yet: their ids. `OSError` where the venue does not answer.

    What is on its way to the book meanwhile is found by the next one; the desk hears of all by the venue's reports.
    """
    venue, found = venue_of(settings), []
    hello = await venue.connect(patience_s=0)
    reading = asyncio.ensure_future(venue.read())
    try:
        for symbol in hello.symbols:
            standing = await venue.standing(symbol)
            entries = [order_id for order_id in standing.open_orders if order_id.startswith(ENTRIES)]
            if entries:
                standing = await venue.standing(symbol, entries)
            for order_id in (i for i in entries if standing.asked[i] == "open"):
                await venue.cancel(Cancel(order_id, symbol, standing.ts_ms, HALT))
                found.append(order_id)
        await venue.standing(hello.symbols[0])      # answered: so the cancels have arrived
        return found
    finally:
        reading.cancel()
        await venue.close()
