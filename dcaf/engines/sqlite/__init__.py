"""The engine over a SQLite file: ``SqliteEngine`` of ``dcaf.engines``."""
