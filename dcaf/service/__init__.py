"""Sessions that are kept on the server: state, history, and what the sessions of a user share."""

from dcaf.service.kept import Kept
from dcaf.service.service import ServiceTurn, SessionService, SyncSessionService
from dcaf.service.session import KeptSession

__all__ = ["Kept", "KeptSession", "ServiceTurn", "SessionService", "SyncSessionService"]
