import pytest

from app.text.languages import LANGUAGES, _identifier, abstention_text, detect_language

QUESTIONS = {
    "ar": "متى تبدأ التغطية الطبية للموظفين؟",
    "de": "Wann beginnt der Versicherungsschutz?",
    "en": "When does dental cover start?",
    "es": "¿Cuándo empieza la cobertura dental?",
    "fr": "Quand commence la couverture dentaire ?",
    "it": "Quando inizia la copertura dentale?",
    "ja": "歯科の補償はいつ始まりますか。",
    "ko": "치과 보장은 언제 시작합니까?",
    "nl": "Wanneer begint de tandartsdekking?",
    "pt": "Quando começa a cobertura dentária?",
    "ru": "Когда начинается страховое покрытие?",
    "zh": "牙科保险什么时候开始？",
}


def test_every_language_that_we_refuse_in_has_a_question_here() -> None:
    """The table below covers all languages that the service refuses in."""
    assert sorted(QUESTIONS) == sorted(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_question_is_recognised_and_refused_in_its_own_language(language: str) -> None:
    """A question is recognised, and the abstention reads as the same language."""
    assert detect_language(QUESTIONS[language]) == language
    assert detect_language(abstention_text("no_results", language)) == language
    assert detect_language(abstention_text("unsupported", language)) == language


@pytest.mark.parametrize(("tag", "primary"), [("de-CH", "de"), ("zh-Hans-CN", "zh"), ("PT_br", "pt"), ("en", "en")])
def test_a_tag_with_region_or_script_counts_as_its_language(tag: str, primary: str) -> None:
    """Only the primary subtag of a BCP 47 tag decides."""
    assert abstention_text("below_min_relevance", tag) == abstention_text("below_min_relevance", primary)


def test_a_language_without_words_of_ours_is_refused_in_english() -> None:
    """A language that we cannot write falls back to English."""
    assert abstention_text("no_results", "sw") == abstention_text("no_results", "en")


@pytest.mark.parametrize("text", ["", "42?", "?!", "🙂"])
def test_a_text_without_letters_counts_as_english(text: str) -> None:
    """Without letters there is nothing to detect."""
    assert detect_language(text) == "en"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        *(
            ("Hallo", "de"),
            ("Moin!", "de"),
            ("danke", "de"),
            ("Guten Morgen", "de"),
            ("Salut", "fr"),
            ("Bonjour", "fr"),
        ),
        *(("¡Hola!", "es"), ("Adiós", "es"), ("Ciao", "it"), ("Olá", "pt"), ("Oi", "pt"), ("Hoi", "nl")),
        *(("Hello!", "en"), ("Thanks", "en")),
    ],
)
def test_a_greeting_is_enough(text: str, language: str) -> None:
    """Whoever says no more than that is understood, too."""
    assert detect_language(text) == language


def test_what_was_said_before_tells_the_language_of_a_few_letters() -> None:
    """The first text that is evidence decides; where none is, it is English."""
    assert detect_language("Hi", "GPU?", QUESTIONS["de"], QUESTIONS["fr"]) == "de"
    assert detect_language(QUESTIONS["fr"], QUESTIONS["de"]) == "fr"
    assert detect_language("Hi", "GPU?", "42") == detect_language() == "en"


@pytest.mark.parametrize("text", ["Hi", "ok", "Hello", "GPU", "IBM?", "PTO", "dental"])
def test_a_few_latin_letters_count_as_english(text: str) -> None:
    """They are evidence of no language, and must not be answered in Arabic."""
    assert detect_language(text) == "en"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        *(("Wer?", "de"), ("Wann", "de"), ("Qui ?", "fr"), ("Où ?", "fr"), ("¿Qué?", "es"), ("¿Quién?", "es")),
        *(("Chi?", "it"), ("Waar?", "nl"), ("Onde?", "pt"), ("Why?", "en"), ("Who?", "en")),
        *(("为什么", "zh"), ("谁", "zh"), ("なぜ？", "ja"), ("왜?", "ko"), ("من؟", "ar"), ("Кто", "ru"), ("я", "ru")),
    ],
)
def test_a_question_word_is_enough(text: str, language: str) -> None:
    """It is known in the Latin script by itself, in others by their letters."""
    assert detect_language(text) == language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Who is Frau Müller?", "en"),
        ("When did José Álvarez join?", "en"),
        ("Wer ist Frau Müller?", "de"),
        ("Qui est Frau Müller ?", "fr"),
    ],
)
def test_a_foreign_name_does_not_outweigh_the_words_of_the_question(text: str, language: str) -> None:
    """Its letters may be most of what there is."""
    assert detect_language(text) == language


def test_what_tells_other_languages_apart_is_not_kept() -> None:
    """The model has 28 MB of weights for languages that are never asked for."""
    identifier = _identifier()
    identifier.set_languages(None)
    assert set(identifier.labels) == set(LANGUAGES)
