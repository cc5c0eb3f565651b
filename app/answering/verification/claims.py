"""Which sentences of an answer state anything. Pure."""

import re

from app.text.languages import DEFAULT
from app.text.terms import content_terms, fold

BULLET = re.compile(r"\s*(?:(?:[-*+•‣◦–—>|]+|#{1,6})(?=\s|$)\s*)*(?:\(?\d{1,3}[.)](?=\s|$)\s*)?")
"""The mark of a list item, a quotation or a heading; it may be empty."""

_HEADING = re.compile(r"\s*#{1,6}\s|\s*(\*\*|__)[^*_]*[^*_.!?。！？؟]\1\s*$")
_EMPHASIS = "*_`~ "
_MARKS = re.compile(r"[\s,.!;:…，。！；：、،]+")
# Folded, without the marks.
_COURTESIES = frozenset(
    """
    hello|hi|hi there|hey|sure|certainly|of course|absolutely|yes|no|ok|okay|thanks|thank you|you're welcome
    |great question|however|therefore|in summary|in conclusion|also
    |hallo|guten tag|gern|gerne|sicher|naturlich|klar|ja|nein|danke|bitte|zusammenfassend|bonjour|oui|non|merci
    |hola|si|gracias|ciao|grazie|obrigado|sim|nao|да|нет|спасибо
    |你好|您好|好的|当然|谢谢|是的|不是|こんにちは|はい|いいえ|もちろん|ありがとうございます|안녕하세요|네|아니요
    |مرحبا|اهلا|نعم|لا|شكرا|بالطبع
    """.replace("\n", "")
    .replace("    ", "")
    .split("|")
)
_OFFER = re.compile(
    r"(?:i )?hope (?:this|that|it) helps|(?:please )?(?:let me know|feel free)\b|ich hoffe,? das hilft|希望.{0,6}帮"
)


def states_something(sentence: str) -> bool:
    """Whether a sentence would need support: it is no question, heading, courtesy or announcement of a list."""
    text = BULLET.sub("", sentence, count=1).strip(_EMPHASIS)
    if _HEADING.match(sentence) or text.endswith(("?", "？", "؟", ":", "：")) or not content_terms(text, DEFAULT):
        return False
    folded = fold(text)
    return _MARKS.sub(" ", folded).strip() not in _COURTESIES and not _OFFER.match(folded)
