"""The arithmetic of the policy: nothing here knows the host, so that tests need none."""

from collections.abc import Iterable, Sequence


def blend(
    cosines: Sequence[float | None], first_stage: Sequence[float], weight: float
) -> list[float | None]:
    """`weight` times the cosine and the rest of 1 times the first stage, both from 0 to 1.

    A document without a cosine stays without a score, and moves no other's.
    """
    cosines = min_max(cosines)
    first_stage = min_max(
        [value if cosine is not None else None for cosine, value in zip(cosines, first_stage)]
    )
    return [
        None if cosine is None else weight * cosine + (1 - weight) * value
        for cosine, value in zip(cosines, first_stage)
    ]


def min_max(values: Sequence[float | None]) -> list[float | None]:
    """From 0 for the smallest to 1 for the largest; 0.5 if there is no difference."""
    known = [value for value in values if value is not None]
    if not known:
        return [None] * len(values)
    # Halves, as the difference of two finite numbers may overflow.
    smallest, largest = min(known) / 2, max(known) / 2
    if smallest == largest:
        return [None if value is None else 0.5 for value in values]
    width = largest - smallest
    return [None if value is None else (value / 2 - smallest) / width for value in values]


def as_sentences(parts: Iterable[str]) -> str:
    """The parts joined; each but the last ends in `.`, unless it ends in punctuation."""
    parts = [part for part in map(str.strip, parts) if part]
    ended = [part if part[-1] in ".!?:;,。！？" else f"{part}." for part in parts[:-1]]
    return " ".join([*ended, *parts[-1:]])
