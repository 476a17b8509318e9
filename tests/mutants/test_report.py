"""The report of the mutants: it complains of a survivor without a reason, and of a reason without a survivor."""

from __future__ import annotations

from tests.mutants.report import Mutant, _changed, _function, complaints, explained

ONE = Mutant("dcaf.core.keys.Key.parse", "return None")


def test_a_survivor_needs_a_reason_and_a_reason_a_survivor() -> None:
    assert complaints({ONE}, {ONE: "why"}) == []
    assert complaints({ONE}, {}) == ["not killed: dcaf.core.keys.Key.parse: return None"]
    assert complaints(set(), {ONE: "why"}) == ["listed, and killed or gone: dcaf.core.keys.Key.parse: return None"]


def test_a_mutant_is_named_by_its_function_and_its_line_so_that_numbers_may_change() -> None:
    assert _function("dcaf.core.keys.xǁKeyǁ__post_init____mutmut_13") == "dcaf.core.keys.Key.__post_init__"
    assert _function("dcaf.core.keys.x__workers__mutmut_8") == "dcaf.core.keys._workers"
    assert _changed("--- a\n+++ b\n@@ -1,2 +1,2 @@\n def f():\n-    return 1\n+    return 2\n") == "return 2"


def test_every_reason_is_a_sentence() -> None:
    assert explained()
    assert all(reason.endswith(".") for reason in explained().values())
