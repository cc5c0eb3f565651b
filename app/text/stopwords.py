"""Closed word classes of the languages that we know: function words, greetings, question words, what points back.

Keys are ISO 639-1 codes. Words are lower case and may lack their accents: they are folded before they are compared.
"""

import re
from typing import Literal

AnswerType = Literal["name", "time", "quantity"]

_WORDS = {
    "en": """
        a an the and or but if of to in on at by for from with without about into onto over under between as
        than is are was were be been being am do does did done has have had having will would shall should
        can could may might must not no it its he his him she her they their them we our us you your i my me
        this that these those there here what which who whom whose when where why how s t also any some such
        so up out only many much name type kind one get gets got go goes let
    """,
    "de": """
        der die das den dem des ein eine einen einem einer eines und oder aber wenn von zu zum zur im in an am auf
        bei beim fur mit ohne uber unter zwischen als wie aus nach vor um durch gegen bis ist sind war waren sein
        wird werden wurde wurden hat haben hatte hatten kann konnen konnte soll muss nicht kein keine es er sie wir
        ihr ihre ihren ihrer seine seiner sich dies diese dieser dieses diesem jene was wer wen wem wessen wann wo
        woher wohin warum wieso welche welcher welches welchen welchem viel viele auch nur man noch so ich mich mir
        mein meine meinen meinem meiner du dich dir dein deine uns unser unsere unseren unserem ihnen ihn ihm gibt
        gab da dass dort hier dann doch mehr sehr etwa konnten sollen sollte darf durfen mussen lassen lasst alle
        alles denn weil wahrend seit ab worden sowie sondern wozu wofur woruber womit wodurch worin woran worauf
        woraus wobei wovon wovor wonach weshalb inwiefern heisst hiess heissen hiessen genannt beide beiden
        bezuglich nennen liegt liegen steht stehen
    """,
    "fr": """
        le la les l un une des du de d et ou mais si a au aux en dans sur sous par pour avec sans entre vers
        chez est sont etait etaient etre ete fut sera a ont avait avaient avoir peut peuvent doit ne pas
        plus il elle ils elles on nous vous je tu se s son sa ses leur leurs ce cet cette ces que qu qui
        quoi dont ou quand comment pourquoi combien quel quelle quels quelles y c n j m t lequel laquelle
        est-ce
    """,
    "es": """
        el la los las un una unos unas y e o u pero si de del a al en con sin por para entre sobre desde
        hasta es son era eran ser fue fueron sera ha han habia haber esta estan estaba puede pueden debe no
        se su sus lo le les nos este esta estos estas ese esa eso que quien quienes cual cuales cuando donde
        como cuanto cuanta cuantos cuantas porque yo tu el ella ellos mas
    """,
    "it": """
        il lo la i gli le l un uno una di del dello della dei degli delle d a al allo alla ai agli alle da
        dal dalla in nel nella nei nelle su sul sulla con per tra fra e ed o ma se non e sono era erano
        essere fu furono sara ha hanno aveva avere puo possono deve si suo sua suoi loro questo questa
        questi queste quello che chi cui cosa quando dove come perche quanto quanta quanti quante quale
        quali piu
    """,
    "pt": """
        o a os as um uma uns umas de do da dos das em no na nos nas por pelo pela para com sem entre sobre
        ate e ou mas se nao que quem qual quais quando onde como quanto quanta quantos quantas porque e sao
        era eram ser foi foram sera tem ha havia ter pode podem deve seu sua seus suas este esta isso ele
        ela eles ao aos mais
    """,
    "nl": """
        de het een en of maar als van te ten ter in op aan bij voor met zonder over onder tussen uit naar om
        door tegen tot is zijn was waren ben wordt worden werd werden heeft hebben had hadden kan kunnen kon
        moet mag niet geen het hij zij ze wij we u jij ik hun haar hem zich dit dat deze die wat wie wiens
        wanneer waar waarom hoe welk welke veel ook er nog
    """,
    "ru": """
        и или но а если в во на с со у к ко о об от до из за по под над при для без между через как чем не
        ни ли это этот эта эти тот та те он она оно они его ее их мы вы я ты кто что кого чего кому чему
        какой какая какое какие когда где куда откуда почему зачем сколько был была было были быть есть
        будет также же бы
    """,
    "ar": """
        في من الى على عن مع بين هو هي هم ان او و ثم لا لم لن ما ماذا من متى اين كيف لماذا كم هل اي هذا هذه
        ذلك التي الذي كان كانت يكون قد كل بعد قبل
    """,
}

# Chinese, Japanese and Korean: found anywhere in the text, for no spaces set them apart. Longer ones first.
_STRINGS = {
    "zh": """
        为什么 什么时候 什么样 是什么 有什么 什么 哪一年 哪年 哪些 哪里 哪儿 哪个 哪一 哪位 哪 怎么样
        怎么 怎样 如何 多少 几个 何时 何地 何处 何人 何 为何 是谁 谁 是否 吗 呢 吧 的 了 是 在 和
        与 及 或 被 把 而 也 都 就 这 那 它 他 她 们
    """,
    "ja": """
        なぜ どこ どの どれ どんな どう いつ だれ 誰 何 いくつ いくら ですか ますか でしたか ましたか か
        は が を に の で と も へ から まで
    """,
    "ko": """
        무엇 누구 언제 어디 어떤 어떻게 왜 얼마 몇
    """,
}

FUNCTION_WORDS = {language: frozenset(words.split()) for language, words in _WORDS.items()}
FUNCTION_STRINGS = {language: tuple(strings.split()) for language, strings in _STRINGS.items()}

GREETINGS = {
    "en": "hello bye",
    "de": "hallo moin danke bitte",
    "fr": "salut merci",
    "es": "hola adios",
    "it": "ciao salve",
    "pt": "ola oi tchau",
    "nl": "hoi dag",
}
"""Of fewer letters than tell a language by themselves, and of one language rather than of many, as "hi" is."""

_MEASURES = (
    "age|amount|capacity|depth|distance|frequency|height|length|number|percentage|population|power|price|proportion|rate"
    "|ratio|size|speed|temperature|voltage|volume|weight|width"
)

ANSWER_TYPES: tuple[tuple[AnswerType, re.Pattern[str]], ...] = (
    (
        "quantity",
        re.compile(
            r"\bhow (many|much|long|far|old|tall|big|large|often|high|fast|quickly|heavy|wide|deep|hot|cold|warm|late"
            r"|soon|expensive|loud|strong|thick|small|short)\b"
            rf"|\b(what|which) ({_MEASURES})\b|\bwhat (is|was|are|were) the (\w+ )?(?=({_MEASURES})\b)"
            r"|\bwie ?(viele?[mnrs]?|lange?|weit|alt|groß|hoch|oft|schnell|schwer|breit|tief|heiß|kalt|warm|spät|teuer"
            r"|laut|stark|dick|klein|kurz)\b"
            r"|\bcombien\b|\bcu[aá]nt[oa]s?\b|\bquant[aeio]s?\b|\bhoeveel\b|\bсколько\b|\bكم\b"
            r"|多少|几|多[久长高大重快远深宽厚]|いくつ|いくら|何(人|個|回|歳)|얼마|몇"
        ),
    ),
    (
        "time",
        re.compile(
            r"\b(when|wann|quand|wanneer|когда|متى|(what|which) (year|date|day|month|century|decade))\b"
            r"|\b(cu[aá]ndo|quando)\b|\bwelche[mns]? (jahr|tag|datum|monat|jahrhundert)\b|\bquelle (année|date)\b"
            r"|什么时[候间]|何时|哪一?[年天日月]|いつ|何[年月日]|언제"
        ),
    ),
    (
        "name",
        re.compile(
            r"\b(who|whom|whose|where|wer|wen|wem|wessen|wo|woher|wohin|qui|où|qui[eé]n(es)?|d[oó]nde|dove|onde|quem"
            r"|кто|где|куда|откуда|(what|which) (city|country|state|company|person|team|university|school))\b"
        ),
    ),
)

# What refers back to an earlier turn. Matched against folded text.
POINTS_BACK = re.compile(
    r"^(and|und|et|y|e|en|и|what about|how about|wie steht es)\b"
    r"|\b(it|its|he|him|his|she|her|they|them|their|those|these|there|that one|er|sie|ihn|ihm|ihr|ihre|dort|il|elle|ils"
    r"|elles|leur|ello|ellos|ellas|esto|eso|lui|lei|loro|ele|ela|eles|elas|isso|hij|zij|hun|он|она|оно|они|его|ее|их"
    r"|هو|هي|هم)\b|[它他她]|这个|那个|呢[？?]?$|それ|これ|彼|彼女|그것|그는|그녀"
)
