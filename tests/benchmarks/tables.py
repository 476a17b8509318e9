"""Tables of the documents, out of what was measured: microseconds in three digits, ratios in two, sizes as columns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

from tests.benchmarks.states import SIZES

Samples: TypeAlias = Mapping[str, Mapping[str, float] | None]
"""Row -> what was measured; None is a library that refuses."""

REFUSES: Final = "refuses"
DIGITS: Final = 3


def figure(value: float, digits: int = DIGITS) -> str:
    """A number with so many digits that mean something.

    >>> figure(4.0712), figure(13.14), figure(419.6), figure(20_746.2), figure(0.0), figure(9.96, 2)
    ('4.07', '13.1', '420', '20,700', '0', '10')
    """
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    return f"{rounded:,.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}"


def times(ratio: float) -> str:
    """A ratio.

    >>> times(12.34), times(0.456), times(1.0)
    ('12', '0.46', '1.0')
    """
    return figure(ratio, 2)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; all columns but the first are figures."""
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(head) - 1), *lines[1:]])


def words(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown whose columns are words."""
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def microseconds(sample: Mapping[str, float] | None) -> str:
    """The cell of one sample."""
    return REFUSES if sample is None else figure(sample["us"])


def by_size(measured: Mapping[str, Samples], unit: str = "µs (median)") -> str:
    """Size -> samples as a table, a row for each subject."""
    names = list(next(iter(measured.values())))
    rows = [[name, *(microseconds(measured[size][name]) for size in SIZES)] for name in names]
    return table([unit, *SIZES], rows) + "\n\n" + spread_of(measured)


def spread_of(measured: Mapping[str, Samples]) -> str:
    """One line that says how much the rounds differed."""
    spreads = [sample["spread"] for samples in measured.values() for sample in samples.values() if sample is not None]
    return f"IQR/median: {statistics.median(spreads):.0%} in the middle, {max(spreads):.0%} at worst."


def over(measured: Mapping[str, Samples], bare: str) -> dict[str, dict[str, float]]:
    """Subject -> size -> microseconds over the bare one of the same table."""
    names = [name for name in next(iter(measured.values())) if name != bare]
    return {name: {size: _us(measured[size], name) - _us(measured[size], bare) for size in measured} for name in names}


def ratio(measured: Mapping[str, Samples], name: str, beside: str) -> dict[str, float | None]:
    """Size -> how many times longer one takes than another; None where one of them refuses."""
    return {
        size: None if found[name] is None or found[beside] is None else _us(found, name) / _us(found, beside)
        for size, found in measured.items()
    }


def ratio_cells(ratios: Mapping[str, float | None]) -> list[str]:
    """The cells of a row of ratios."""
    return [REFUSES if value is None else times(value) for value in ratios.values()]


def _us(samples: Samples, name: str) -> float:
    sample = samples[name]
    assert sample is not None
    return sample["us"]


def overheads(measured: Mapping[str, Samples], bare: str) -> str:
    """The table of what each adds to the bare one."""
    rows = [[name, *(figure(us) for us in found.values())] for name, found in over(measured, bare).items()]
    return table([f"µs over {bare}", *SIZES], rows)


def overhead_ratios(measured: Mapping[str, Samples], bare: str, other: str, names: Iterable[str]) -> str:
    """How many times less than another each adds."""
    found = over(measured, bare)
    rows = [[name, *(times(found[other][size] / found[name][size]) for size in SIZES)] for name in names]
    return table([f"times less than {other}", *SIZES], rows)


def faster(measured: Mapping[str, Samples], name: str, others: Iterable[str]) -> str:
    """How many times faster one is than each of the others."""
    rows = [[other, *ratio_cells(ratio(measured, other, name))] for other in others]
    return table([f"{name}: times faster than", *SIZES], rows)


def difference(samples: Samples, name: str, beside: str) -> float:
    """Microseconds that one takes more than another."""
    return _us(samples, name) - _us(samples, beside)


def event_costs(measured: Mapping[str, Samples], name: str, bare: str) -> list[float]:
    """Microseconds that each event costs more: the slopes between one number of events and the next."""
    numbers = [key for key in measured if key.isdecimal()]
    added = {int(key): difference(measured[key], name, bare) for key in numbers}
    return [(added[more] - added[few]) / (more - few) for few, more in pairwise(added)]
