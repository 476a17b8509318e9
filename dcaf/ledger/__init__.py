"""Sessions with one newest token, one turn at a time, log-out and single use: a ledger over an engine (levels L1 and L2)."""

from dcaf.ledger.events import LedgerEvent, LedgerEventName
from dcaf.ledger.ledger import Ledger
from dcaf.ledger.listing import LiveSession, Purged

__all__ = ["Ledger", "LedgerEvent", "LedgerEventName", "LiveSession", "Purged"]
