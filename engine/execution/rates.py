"""How many of a route's entries are filled, and how many are taken back for each that is: rolling over the last entries placed.

An entry counts once, however many levels its ladder has: filled with its first fill, cancelled when all its orders have ended without one.
"""
import msgspec

from engine.execution.ladder import entry_of


class Placed(msgspec.Struct, array_like=True):
    """One entry: its orders that are still at work, and whether anything was filled."""
    open: list[str]
    filled: bool = False

    @property
    def cancelled(self) -> bool:
        """All ended, nothing filled."""
        return not self.open and not self.filled


class Rates(msgspec.Struct):
    """By route the last `window` entries, oldest first."""
    window: int
    routes: dict[str, dict[str, Placed]] = {}

    def on_placed(self, order_id: str, route: str) -> None:
        """An entry's order was sent."""
        entries, entry = self.routes.setdefault(route, {}), entry_of(order_id)
        if entry in entries:
            entries[entry].open.append(order_id)
            return
        entries[entry] = Placed([order_id])
        if len(entries) > self.window:
            del entries[next(iter(entries))]

    def on_filled(self, order_id: str) -> str:
        """An execution; the route where it is the first of its entry, else nothing."""
        route, placed = self._find(order_id)
        if placed is None or placed.filled:
            return ""
        placed.filled = True
        return route

    def on_ended(self, order_id: str) -> str:
        """The venue ended the order without a fill; the route where it is one of an entry that is still looked at."""
        route, placed = self._find(order_id)
        if placed is not None and order_id in placed.open:
            placed.open.remove(order_id)
        return route

    def route_of(self, order_id: str) -> str:
        """The route of an entry's order that is still looked at, else nothing."""
        return self._find(order_id)[0]

    def fill_rate(self, route: str) -> float:
        """Entries filled / entries placed; NaN where none was placed."""
        entries = self.routes.get(route, {})
        return sum(e.filled for e in entries.values()) / len(entries) if entries else float("nan")

    def cancel_to_fill(self, route: str) -> float:
        """Entries taken back for each that was filled, as if one had been where none was; NaN where none was placed."""
        entries = self.routes.get(route, {})
        return sum(e.cancelled for e in entries.values()) / max(1, sum(e.filled for e in entries.values())) if entries else float("nan")

    def _find(self, order_id: str) -> tuple[str, Placed | None]:
        entry = entry_of(order_id)
        for route, entries in self.routes.items():
            if entry in entries:
                return route, entries[entry]
        return "", None
