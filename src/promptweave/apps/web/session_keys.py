"""Sessions by the key that their browser tab holds: a page that is loaded anew finds its images again."""

from __future__ import annotations

import secrets
from threading import Lock
from weakref import WeakValueDictionary

from promptweave.apps.web.session import Session


class SessionKeys:
    """Keys of 256 random bits. A session is found while it is kept: no longer than without its key (`Keeper`)."""

    def __init__(self) -> None:
        self._sessions: WeakValueDictionary[str, Session] = WeakValueDictionary()
        self._lock = Lock()

    def key(self, session: Session, user: str | None = None) -> str:
        """The key of a session, made at its first call. `user`: the account that it belongs to, if there are any."""
        with self._lock:
            if not session.key:
                session.key, session.user = secrets.token_urlsafe(32), user
                self._sessions[session.key] = session
            return session.key

    def find(self, key: object, user: str | None = None) -> Session | None:
        """The session of a key, for the account to which it belongs."""
        with self._lock:
            found = self._sessions.get(key) if isinstance(key, str) and key else None
        return found if found is not None and found.user == user else None

    def __len__(self) -> int:
        return len(self._sessions)
