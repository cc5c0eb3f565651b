"""How far apart an embedder puts what answers a question and what does not: the unit of dense evidence in fusion.

Embedders differ in scale (unrelated texts have a cosine of 0.05 for one model and 0.7 for the next). A few built-in
questions with their answers, in several languages, measure the scale of a model, in its best language.
"""

from operator import itemgetter
from typing import Final

import numpy as np

from indexing.embedding.model import Embedder

MIN_UNIT = 0.05
"""A smaller unit would turn noise into evidence."""

PAIRS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "en": (
        ("How long may I return shoes?", "Customers can send shoes back within thirty days of delivery, unworn."),
        ("Who invented the telephone?", "Alexander Graham Bell received the patent for the telephone in 1876."),
        (
            "What causes tides?",
            "The gravity of the moon and the sun pulls on the oceans, and the water rises and falls.",
        ),
        ("Where do penguins live?", "Penguins are birds of the southern hemisphere; most species breed in Antarctica."),
        (
            "How do I reset my password?",
            "Open the login page, choose 'forgot password' and follow the link in the email.",
        ),
        ("What is the capital of Kenya?", "Nairobi is the capital and the largest city of Kenya."),
    ),
    "de": (
        (
            "Wie lange kann ich Schuhe zurückgeben?",
            "Ungetragene Schuhe nehmen wir dreißig Tage nach der Lieferung zurück.",
        ),
        ("Wer hat das Telefon erfunden?", "Alexander Graham Bell erhielt 1876 das Patent auf das Telefon."),
        (
            "Was verursacht die Gezeiten?",
            "Die Anziehungskraft von Mond und Sonne lässt das Wasser der Meere steigen und fallen.",
        ),
        ("Wo leben Pinguine?", "Pinguine sind Vögel der Südhalbkugel; die meisten Arten brüten in der Antarktis."),
        (
            "Wie setze ich mein Passwort zurück?",
            "Wählen Sie auf der Anmeldeseite 'Passwort vergessen' und folgen Sie dem Link.",
        ),
        ("Was ist die Hauptstadt von Kenia?", "Nairobi ist die Hauptstadt und die größte Stadt Kenias."),
    ),
    "zh": (
        ("鞋子多久之内可以退货？", "未穿过的鞋子可以在收货后三十天内退回。"),
        ("电话是谁发明的？", "亚历山大·格拉汉姆·贝尔于1876年获得电话专利。"),
        ("潮汐是怎么形成的？", "月球和太阳的引力牵引海水，使海面上升和下降。"),
        ("企鹅生活在哪里？", "企鹅是南半球的鸟类，大多数种类在南极洲繁殖。"),
        ("如何重置密码？", "打开登录页面，选择“忘记密码”，然后点击邮件中的链接。"),
        ("肯尼亚的首都是哪里？", "内罗毕是肯尼亚的首都和最大城市。"),
    ),
    "es": (
        (
            "¿Cuánto tiempo tengo para devolver unos zapatos?",
            "Los zapatos sin usar se pueden devolver en treinta días.",
        ),
        ("¿Quién inventó el teléfono?", "Alexander Graham Bell obtuvo la patente del teléfono en 1876."),
        ("¿Qué causa las mareas?", "La gravedad de la luna y del sol atrae los océanos, y el agua sube y baja."),
        (
            "¿Dónde viven los pingüinos?",
            "Los pingüinos son aves del hemisferio sur; la mayoría se reproduce en la Antártida.",
        ),
        (
            "¿Cómo restablezco mi contraseña?",
            "En la página de acceso elija «olvidé mi contraseña» y siga el enlace del correo.",
        ),
        ("¿Cuál es la capital de Kenia?", "Nairobi es la capital y la mayor ciudad de Kenia."),
    ),
}


def dense_unit(embedder: Embedder) -> float:
    """Mean cosine of question and answer less that of question and other answers, in the best language; in (0, 2]."""
    _, unit = contrast(embedder)
    return unit


def contrast(embedder: Embedder) -> tuple[float, float]:
    """(unrelated, unit): the cosine of a question and the answer to another one, and how much closer its own is.

    In the language in which the unit is largest; it is at least MIN_UNIT.
    """
    unrelated, unit = max((_contrast(embedder, pairs) for pairs in PAIRS.values()), key=itemgetter(1))
    return unrelated, max(MIN_UNIT, unit)


def _contrast(embedder: Embedder, pairs: tuple[tuple[str, str], ...]) -> tuple[float, float]:
    questions = embedder.embed_queries([q for q, _ in pairs])
    answers = embedder.embed_documents([a for _, a in pairs])
    similarity = questions @ answers.T
    matched = float(np.trace(similarity)) / len(pairs)
    others = (float(similarity.sum()) - matched * len(pairs)) / (len(pairs) * (len(pairs) - 1))
    return others, matched - others
