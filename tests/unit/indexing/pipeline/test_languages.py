import pytest

from indexing.pipeline.languages import LanguageHint
from indexing.pipeline.progress import Event, Notice
from indexing.settings import QUICKSTART_MODEL

NAMES = "The ferries Göteborg, Malmö and Ærø leave from Århus at six in the morning; it is a way to Tromsø and Bodø."
ENGLISH = "The harbour is closed in winter, and the ferry leaves from the northern pier."


def hints(*texts: str, model: str = QUICKSTART_MODEL, at_once: int = 1) -> list[str]:
    events: list[Event] = []
    hint = LanguageHint(events.append)
    documents = [(f"{number}.txt", text) for number, text in enumerate(texts)]
    for start in range(0, len(documents), at_once):
        hint.look(model, documents[start : start + at_once])
    assert all(isinstance(event, Notice) and event.stage == "advice" for event in events)
    return [event.detail for event in events if isinstance(event, Notice)]


@pytest.mark.parametrize(
    "text",
    [
        "港口在冬季关闭，渡轮从北码头出发。",
        "Der Hafen ist im Winter geschlossen, und die Fähre fährt von dem nördlichen Kai.",
        "Порт зимой закрыт, паром отходит от северного причала.",
        "הנמל סגור בחורף והמעבורת יוצאת מהרציף הצפוני.",
        "ท่าเรือปิดในฤดูหนาว",
        "Port jest zamknięty zimą, a prom odpływa z północnego nabrzeża o godzinie szóstej rano, także w święta.",
        "Přístav je v zimě uzavřen a trajekt odplouvá ze severního mola v šest hodin ráno, také o svátcích.",
        "Liman kışın kapalıdır ve feribot kuzey iskelesinden sabah saat altıda, tatil günlerinde de kalkar.",
        "Bến cảng đóng cửa vào mùa đông và phà khởi hành từ bến phía bắc lúc sáu giờ sáng.",
    ],
)
def test_a_document_in_another_language_is_named_with_the_way_out(text: str) -> None:
    """Other scripts, and other languages in Latin letters."""
    (hint,) = hints(text)
    assert hint.startswith("0.txt is not in English")
    assert "WINNOW_EMBEDDING_MODEL=multilingual-e5-small" in hint


def test_it_is_said_once_in_a_run() -> None:
    """However many documents there are."""
    assert len(hints(*["港口在冬季关闭。"] * 5)) == 1


@pytest.mark.parametrize(
    "text", [ENGLISH, "", "42; 17; 3.5", "for (i = 0; i < n; i++) total += π * r[i];", "café naïve", NAMES]
)
def test_english_and_what_is_no_language_are_not_named(text: str) -> None:
    """Nor is text with a few words of another language."""
    assert hints(text) == []


def test_a_few_among_many_are_no_reason() -> None:
    """Less than a tenth of those seen so far; one in ten is."""
    few = [*[ENGLISH] * 19, "港口在冬季关闭。"]
    assert hints(*few, at_once=20) == []
    assert hints(*few[-10:], at_once=10)[0].startswith("9.txt ")


def test_other_models_are_left_alone() -> None:
    """What they read is not known here."""
    assert hints("港口在冬季关闭。", model="multilingual-e5-small") == []
