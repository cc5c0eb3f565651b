"""Numbers as people read and write them."""

import re

_SIZES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([kmbt]?)", re.IGNORECASE)


def read_tokens(text: str) -> int:
    """10M, 1.5B, 250k, 1_000 or 1,000. Raises ValueError."""
    match = _NUMBER.fullmatch(text.strip().replace("_", "").replace(",", ""))
    if match is None:
        raise ValueError(f"{text!r} is no number of tokens; write 250k, 10M or 1.5B")
    return round(float(match[1]) * _SIZES[match[2].lower()])


def short(count: float) -> str:
    """1234567 as 1.23M: three digits, and an ending that `read_tokens` takes."""
    for ending, size in reversed(_SIZES.items()):
        if count >= size * 0.9995 and size > 1:
            return f"{_three(count / size)}{ending.upper() if ending != 'k' else ending}"
    return _three(count)


def dollars(usd: float) -> str:
    """Cents from a dollar on, none from a million on; below a dollar as many digits as say something."""
    if usd >= 1e6:
        return f"${short(usd)}"
    return f"${usd:,.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}" if usd >= 0.0001 else f"${usd:.1e}"


def _three(number: float) -> str:
    return f"{number:.0f}" if number >= 99.95 else f"{number:.3g}"
