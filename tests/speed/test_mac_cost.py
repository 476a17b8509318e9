"""The mac of a small token, beside the standard library's own."""

from __future__ import annotations

import hmac
import timeit

from dcaf.core.signing import Keyed

TEXT, SECRET = bytes(400), bytes(range(32))


def test_a_key_that_is_mixed_in_once_is_faster_than_one_that_is_mixed_in_each_time() -> None:
    keyed = Keyed(SECRET)
    assert keyed.mac(TEXT[:100], TEXT[100:]) == hmac.digest(SECRET, TEXT, "sha256")
    ways = {"keyed": lambda: keyed.mac(TEXT), "one shot": lambda: hmac.digest(SECRET, TEXT, "sha256")}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(20):
        for name, way in ways.items():
            best[name] = min(best[name], timeit.timeit(way, number=500))
    print(f"mac of 400 bytes: {best['keyed'] / best['one shot']:.2f} of the time of hmac.digest")
    assert best["keyed"] < best["one shot"]
