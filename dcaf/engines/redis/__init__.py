"""The engine over Redis or Valkey: ``RedisEngine`` of ``dcaf.engines``. Needs the extra: ``pip install 'dcaf[redis]'``."""
