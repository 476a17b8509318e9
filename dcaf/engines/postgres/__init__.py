"""The engine over PostgreSQL: ``PostgresEngine`` of ``dcaf.engines``. Needs the extra: ``pip install 'dcaf[postgres]'``."""
