"""Which sentences of an answer state anything. Pure."""

import re

from app.answering.languages import DEFAULT
from app.answering.terms import content_terms, fold

BULLET = re.compile(r"\s*(?:(?:[-*+•‣◦–—>|]+|#{1,6}|\(?\d{1,3}[.)])(?=\s|$)\s*)+")
_EMPHASIS = "*_`~ "
_GREETING = re.compile(
    r"(?:hello|hi|hey|sure|certainly|of course|yes|no|ok(?:ay)?|thank(?:s| you)|you're welcome|great question"
    r"|i hope (?:this|that) helps|let me know|based on|according to|in summary|in conclusion|however|therefore"
    r"|hallo|guten tag|gern(?:e)?|sicher|natürlich|ja|nein|danke|ich hoffe|zusammenfassend"
    r"|你好|您好|好的|当然|谢谢|是的|不|希望|こんにちは|はい|いいえ|もちろん|ありがとう"
    r"|مرحبا|اهلا|نعم|لا|شكرا|بالطبع)\b"
)


def states_something(sentence: str, heading: bool = False) -> bool:
    """Whether a sentence would need support: no question, heading, greeting or announcement of a list."""
    text = BULLET.sub("", sentence, count=1).strip(_EMPHASIS)
    if heading or not text or text.endswith(("?", "？", "؟", ":", "：")):
        return False
    about = content_terms(text, DEFAULT)
    return bool(about) and not (len(about) <= 4 and _GREETING.match(fold(text)))
