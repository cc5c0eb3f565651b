"""Language detection for questions, and abstentions in each language."""

import re
from collections.abc import Mapping
from functools import cache, lru_cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from app.domain import AbstainReason
from app.text.stopwords import function_words, greetings
from app.text.terms import fold

DEFAULT = "en"

FEW_LETTERS = 6
"""A text of fewer Latin letters is no evidence of a language, unless it has words of a closed class: "Wer?", "Hallo",
but not "Hi" or "GPU"."""

_SEVERAL = 2

_REMEMBERED = 64
"""Texts whose language is kept: an answer asks for that of its question several times, which takes .2 ms each."""

_NO_EVIDENCE = -1e30
"""py3langid's log-likelihood for a text of which its model knows no feature."""

_WORD = re.compile(r"\w+")
_LETTER = re.compile(r"[^\W\d_]")
_LATIN = re.compile(r"[A-Za-z\u00aa-\u024f\u1e00-\u1eff]")

_NOT_FOUND = {
    "ar": "لم أجد في المستندات إجابة عن هذا السؤال.",
    "de": "In den Dokumenten habe ich keine Antwort auf diese Frage gefunden.",
    "en": "I found no answer to this question in the documents.",
    "es": "No he encontrado en los documentos una respuesta a esta pregunta.",
    "fr": "Je n'ai pas trouvé de réponse à cette question dans les documents.",
    "it": "Non ho trovato nei documenti una risposta a questa domanda.",
    "ja": "文書の中に、この質問への答えは見つかりませんでした。",
    "ko": "문서에서 이 질문에 대한 답을 찾지 못했습니다.",
    "nl": "Ik heb in de documenten geen antwoord op deze vraag gevonden.",
    "pt": "Não encontrei nos documentos uma resposta a esta pergunta.",
    "ru": "В документах не нашлось ответа на этот вопрос.",
    "zh": "在文档中没有找到这个问题的答案。",
}
_UNSUPPORTED = {
    "ar": "تتناول المستندات هذا الموضوع، لكن لا توجد فيها جملة تجيب عن السؤال.",
    "de": "Die Dokumente behandeln das Thema, aber kein Satz darin beantwortet die Frage.",
    "en": "The documents touch on this, but no sentence in them answers the question.",
    "es": "Los documentos tratan el tema, pero ninguna de sus frases responde a la pregunta.",
    "fr": "Les documents abordent ce sujet, mais aucune de leurs phrases ne répond à la question.",
    "it": "I documenti trattano l'argomento, ma nessuna loro frase risponde alla domanda.",
    "ja": "文書はこの話題に触れていますが、質問に答える文はありませんでした。",
    "ko": "문서에서 이 주제를 다루지만 질문에 답하는 문장은 없습니다.",
    "nl": "De documenten gaan over dit onderwerp, maar geen zin erin beantwoordt de vraag.",
    "pt": "Os documentos tratam do tema, mas nenhuma frase deles responde à pergunta.",
    "ru": "Документы затрагивают эту тему, но ни одно предложение в них не отвечает на вопрос.",
    "zh": "文档涉及这个主题，但没有句子回答这个问题。",
}
LANGUAGES = tuple(_NOT_FOUND)


def detect_language(*texts: str) -> str:
    """The language of the first text that is evidence of one of `LANGUAGES`; English if none is.

    The first call takes about a second: see `prepare`.
    """
    return next(filter(None, map(_detect, texts)), DEFAULT)


def prepare() -> None:
    """Load the model of `detect_language` before the first question. Blocks for about a second."""
    detect_language("Is it loaded?")


def abstention_text(reason: AbstainReason, language: str) -> str:
    """The text of an abstaining answer. `language` is a BCP 47 tag; English if there is no text in that language."""
    texts = _UNSUPPORTED if reason == "unsupported" else _NOT_FOUND
    return texts.get(primary_language(language), texts[DEFAULT])


def primary_language(tag: str) -> str:
    """The language of a BCP 47 tag, without its script and region: "pt" of "pt-BR"."""
    return tag.replace("_", "-").split("-", 1)[0].lower()


@lru_cache(_REMEMBERED)
def _detect(text: str) -> str | None:
    """None without letters, or with too few Latin ones."""
    letters = _LETTER.findall(text)
    if not letters:
        return None
    language, evidence = _identifier().classify(text)
    if not text.isascii() and not all(map(_LATIN.match, letters)):
        return str(language)
    counts = _closed_word_counts(text)
    if len(letters) < FEW_LETTERS or _is_outvoted(language, counts):
        return _by_closed_words(counts, language)
    return None if evidence <= _NO_EVIDENCE else str(language)


def _is_outvoted(guess: str, counts: Mapping[str, int]) -> bool:
    """Whether the text has no closed word of the guess and several of another: "Who is Frau Müller?" is English.

    A foreign name can outweigh the few other letters of a question.
    """
    return not counts[guess] and max(counts.values()) >= _SEVERAL


def _by_closed_words(counts: Mapping[str, int], guess: str) -> str | None:
    """The language with most of the words in its closed classes; the guess decides between several."""
    most = max(counts.values())
    candidates = [language for language, count in counts.items() if count == most > 0]
    return guess if guess in candidates else next(iter(candidates), None)


def _closed_word_counts(text: str) -> dict[str, int]:
    words = set(_WORD.findall(fold(text)))
    closed = _closed_words()
    return {language: len(words & closed.get(language, frozenset())) for language in LANGUAGES}


@cache
def _closed_words() -> dict[str, frozenset[str]]:
    short = greetings()
    return {language: words | short.get(language, frozenset()) for language, words in function_words().items()}


@cache
def _identifier() -> LanguageIdentifier:
    """Restricted to what we can reply in: a short question has too few letters to tell 97 languages apart."""
    whole = LanguageIdentifier.from_model_file(MODEL_FILE)
    whole.set_languages(list(LANGUAGES))
    # A new one, because `whole` keeps the weights of all the others, 28 MB, in case that it is asked for them again.
    return LanguageIdentifier(
        whole.nb_ptc, whole.nb_pc, whole.nb_classes, whole.tk_nextmove, whole.tk_output, tk_row=whole.tk_row
    )
