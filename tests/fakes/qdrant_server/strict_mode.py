"""The limits of strict mode, as Qdrant checks them (lib/collection/src/operations/verification)."""

from collections.abc import Iterator, Mapping
from uuid import UUID

from qdrant_client import models

from tests.fakes.qdrant_server.refusals import strict_mode

Schema = models.PayloadSchemaType
_ANY = tuple(Schema)


def check_filter(
    limits: models.StrictModeConfig, condition: models.Filter | None, indexed: Mapping[str, Schema], *, writes: bool
) -> None:
    """Refuse a filter that reads a field without a fitting index, or that is too large."""
    if condition is None or not limits.enabled:
        return
    allowed = limits.unindexed_filtering_update if writes else limits.unindexed_filtering_retrieve
    leaves = list(_leaves(condition))
    for key, kinds, _ in leaves:
        if allowed is False and kinds and indexed.get(key) not in kinds:
            listed = ", ".join(sorted({kind.value for kind in kinds}))
            raise strict_mode(
                f'Index required but not found for "{key}" of one of the following types: [{listed}]',
                "Create an index for this key or use a different filter.",
            )
    most = limits.filter_max_conditions
    if most is not None and len(leaves) > most:
        raise strict_mode(
            f"Filter condition limit reached ({len(leaves)} > {most})",
            "Reduce the amount of conditions of your filter.",
        )
    largest = max((size for *_, size in leaves), default=0)
    if limits.condition_max_size is not None and largest > limits.condition_max_size:
        raise strict_mode(
            f"Condition size limit reached ({largest} > {limits.condition_max_size})",
            "Reduce the size of your condition.",
        )


def check_limit(limits: models.StrictModeConfig, value: float | None, most: float | None, name: str) -> None:
    """Refuse a number above the operator's."""
    if limits.enabled and value is not None and most is not None and value > most:
        raise strict_mode(
            f'Limit exceeded {value} > {most} for "{name}"', f'Reduce the "{name}" parameter to or below {most}.'
        )


def check_exact(limits: models.StrictModeConfig, exact: bool | None) -> None:
    """Refuse exact searches and counts where they are not wanted."""
    if limits.enabled and limits.search_allow_exact is False and exact:
        raise strict_mode("Exact search disabled!", "Set exact=false.")


def _leaves(condition: models.Filter) -> Iterator[tuple[str, tuple[Schema, ...], int]]:
    """Field, the kinds of index that serve the condition (none needed: empty), and how many values it names."""
    for part in (condition.must, condition.should, condition.must_not):
        for one in part if isinstance(part, list) else [part] if part else []:
            yield from _leaf(one)


def _leaf(one: models.Condition) -> Iterator[tuple[str, tuple[Schema, ...], int]]:
    match one:
        case models.Filter():
            yield from _leaves(one)
        case models.IsEmptyCondition():
            yield one.is_empty.key, _ANY, 1
        case models.IsNullCondition():
            yield one.is_null.key, _ANY, 1
        case models.FieldCondition(key=key, match=models.MatchAny(any=values)):
            yield key, _serving(list(values)), len(values)
        case models.FieldCondition(key=key, match=models.MatchValue(value=value)):
            yield key, _serving([value]), 1
        case models.FieldCondition(key=key, match=models.MatchText()):
            yield key, (Schema.TEXT,), 1
        case models.FieldCondition(key=key, range=models.DatetimeRange()):
            yield key, (Schema.DATETIME,), 1
        case models.FieldCondition(key=key, range=models.Range()):
            yield key, (Schema.FLOAT, Schema.INTEGER), 1


def _serving(values: list[str] | list[int] | list[str | int | bool]) -> tuple[Schema, ...]:
    if not values:
        return ()
    if isinstance(values[0], bool):
        return (Schema.BOOL,)
    if isinstance(values[0], int):
        return (Schema.INTEGER,)
    return (Schema.KEYWORD, Schema.UUID) if all(_is_uuid(str(value)) for value in values) else (Schema.KEYWORD,)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
