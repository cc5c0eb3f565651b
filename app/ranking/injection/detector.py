"""Finds passages that try to give the model orders. Pure."""

import base64
import binascii
import html
import re
from collections.abc import Iterator
from itertools import chain, product

import msgspec
from ahocorasick_rs import AhoCorasick, Implementation

from app.text.fencing import looking_like
from app.text.terms import fold

_ME = r"(?:passage|document|text|snippet|chunk|paragraph|result|candidate|entry|page|article|answer|item|file)"
_BEST = (
    r"(?:3|three|highest|top|first|maximum|max|perfect|best|number one|fully relevant|most relevant|full marks|100"
    r"|10)"
)
_READER = (
    r"(?:re-?ranker|ranker|ranking (?:model|system|engine|assistant)|grader|relevance (?:judge|model|assessor)|llm"
    r"|large language models?|language models?|ai (?:assistant|model|system|reader|judge|agent)s?|chatbot|gpt|gemini"
    r"|gemma)"
)
_READERS = (
    "ranker|ranking|grader|relevance|llm|language model|ai assistant|ai model|ai system|ai reader"
    "|ai judge|ai agent|chatbot|gpt|gemini|gemma"
)
_END = r"(?=\W*(?:$|\n|[\"'”’.!;,)]|and nothing|regardless|no matter|for (?:this|every|all)))"

_THIS = "|".join(f"this {noun}" for noun in _ME.strip("(?:)").split("|"))

# Needles, pattern.
ENGLISH = (
    (
        "ignore|disregard|forget|override|bypass & instruction|prompt|rubric|directive|grading|guideline|ranking"
        "|scoring",
        r"\b(?:ignore|disregard|forget|override|bypass)\b[^.;\n]{0,30}?\b(?:previous|prior|above|earlier|preceding"
        r"|all|any"
        r"|your|other|the|system|original|existing|everything)\b[^.;\n]{0,25}?\b(?:instructions?|prompts?|rubric"
        r"|directives?"
        r"|grading|guidelines|(?:ranking|scoring) (?:rules|criteria|scale))\b",
    ),
    (
        "ignore|disregard & passages|documents|candidates|results",
        r"\b(?:ignore|disregard) (?:the|all|every|any)?(?: the)? ?(?:other|remaining|rest of the) "
        r"(?:passages|documents|candidates|results)",
    ),
    (
        f"{_THIS} & rate|grade|score|rank|label|mark|assign|give|place|put",
        rf"\b(?:rate|grade|score|rank|label|mark|assign|give|place|put)\b[^.\n]{{0,20}}\bthis {_ME}\b[^.\n]{{0,30}}?"
        rf"\b{_BEST}\b",
    ),
    (
        f"{_THIS} & assign|give|award|set|output",
        rf"\b(?:assign|give|award|set|output)\b[^.\n]{{0,30}}\b(?:grade|score|rating|label|rank|3"
        rf"|marks?)\b[^.\n]{{0,15}}"
        rf"\b(?:to|for) this {_ME}\b",
    ),
    (
        "relevance|relevancy & 3|maximum|highest|100|10/10",
        r"\brelevan(?:ce|cy)(?: (?:grade|score|label|rating|level))?(?: (?:is|of|should be|must be"
        r"|equals))?\s*[:=]?\s*"
        r"[\"'(]?(?:3\b(?![.,]?\d)|(?:the )?(?:maximum|highest)\b|100 ?%|10/10)",
    ),
    (
        "relevant",
        rf"\b(?:is|are) (?:the )?(?:single )?(?:most|maximally|perfectly|extremely|100 ?%|highly) relevant (?:{_ME}"
        r"|to (?:the|your|this|any) (?:search |user )?(?:query|queries|search|question))"
        r"|\brelevant(?:\W+relevant){3,}",
    ),
    (
        f"{_THIS} & must|should|deserve|need",
        rf"\bthis {_ME}\b[^.\n]{{0,25}}?\b(?:must|should|deserves?|needs? to)\b[^.\n]{{0,30}}?"
        r"\b(?:graded?|rated|ranked|scored?|labell?ed|first place|top|highest|3|full marks)\b",
    ),
    (
        f"{_THIS} & answer|match|is the|is a|is by|is clearly|is def",
        rf"\bthis {_ME} (?:[^.\n]{{0,25}}?\b(?:fully|completely|perfectly|directly|best)\b[^.\n]{{0,15}}\banswers?\b"
        r"[^.\n]{0,15}\b(?:query|queries|user'?s? question)|is (?:clearly |by far |definitely )?the (?:single )?"
        r"(?:best|most relevant|only correct|only relevant|correct) (?:answer|passage|document|match|result|one)\b"
        r"|is a (?:3|full answer|perfect match)\b)",
    ),
    (
        "reply|respond|answer|output|return|print|say|write & "
        "h 3|y 3|t 3|s 3|e 3|a 3|r 3|l 3|n 3|g 3|three|\"3|'3|“3|‘3|`3|(3 & with|only|just|exactly|simply|always"
        "|nothing|digit"
        "|number|grade|label|score|token|value|character",
        r"\b(?:reply|respond|answer|output|return|print|say|write)\b\s+(?:(?:with|only|just|exactly|simply|always"
        r"|nothing"
        r"|but|the|a|single|digit|number|grade|label|score|token|value|character)\s+){1,6}[\"'“‘`(]?(?:3|three)\b"
        + _END,
    ),
    (
        'output 3|output: 3|reply 3|reply: 3|respond with 3|output is 3|grade is 3|label is 3|output "3|reply "3',
        r"\b(?:output|reply|respond with|the (?:correct |right )?(?:output|grade|label) is):? [\"'“`]?3[\"'”`]?"
        r"(?:[.!](?:\s|$)|$|\n| now\b| and nothing)",
    ),
    (
        "choose|select|pick|reply|output|respond|name & letter|passage & best|always|regardless|only|no matter"
        "|whatever",
        r"\b(?:choose|select|pick|answer|reply|output|respond|name)\b[^.\n]{0,20}\b(?:letter"
        r"|passage) [\"'(\[]?[a-o0-9]{1,2}"
        r"[\"')\]]?\b[^.\n]{0,20}\b(?:best|always|regardless|only|no matter|whatever)\b",
    ),
    (
        f"{_READERS} & note|notice|message|memo|attention|dear|hello|hey|hi |important|instruction|reminder",
        rf"\b(?:note|notice|message|memo|attention|dear|hello|hey|hi|important|instructions?|reminder)\b[:,!]? ?(?:to"
        rf"|for|from)?"
        rf"(?: (?:the|all|any|every))?(?: \w+)? {_READER}\b\s*[:,!.—-]",
    ),
    (
        f"{_READERS}|developer mode|unrestricted & if you are|you are now|you are a",
        rf"\bif you are (?:an? )?(?:\w+ )?{_READER}\b[^\n]{{0,60}}\b(?:rate|rank|grade|score|relevan\w*|output|reply"
        rf"|answer"
        rf"|say|ignore|must|3|first)\b|\byou are now (?:in |an? )?(?:\w+ )?(?:{_READER}|developer mode|unrestricted"
        rf"|jailbroken)"
        rf"|\byou are an? (?:\w+ )?{_READER} (?:that|who) (?:always|only|must)",
    ),
    (
        "system|developer|admin|operator & override|notice|message & grade|rank|rate|score|relevan|passage|model",
        r"\b(?:system|admin(?:istrator)?|developer|operator) (?:override|notice to|message)\b[^\n]{0,80}"
        r"\b(?:grade|rank|ranking|rate|score|relevan\w+|passage|model)\b",
    ),
    (
        "new|updated|revised|corrected|actual|real & rubric|scale|system prompt|instruction",
        r"\b(?:new|updated|real|actual|revised|corrected) (?:system prompt\b|instructions? for (?:the|this) (?:model"
        r"|ranker|grader"
        r"|ai|assistant)|(?:grading |scoring )?(?:rubric|scale)\b[^\n]{0,80}\b(?:3|grade|this passage)\b)",
    ),
    (
        "grade 3|grade: 3|grade=3|label 3|label: 3|label=3|score 3|score: 3|score=3|relevance 3|relevance: 3",
        r"(?:\b(?:grade|label|score|relevance)\W{0,3}3\b\W+){3,}",
    ),
    (
        "assistant|model|gpt:|gemma|gemini|ai: & 3|passage",
        r"(?:^|\n)\W{0,4}(?:assistant|model|gpt|gemma|gemini|ai)\s*[:：>]\s*[\"'{]?(?:3(?!\w|[.,)]\w| \w)"
        r"|passage \d+)",
    ),
    (
        "query|question|passage|document & grade|label|relevance & 3",
        r"\b(?:query|question|passage|document|text)\s*[:：][^\n]{0,300}\n+\W{0,4}(?:grade|label|relevance"
        r"|correct grade)"
        r"\s*[:：=]\s*3\b",
    ),
    (
        "end of|end passage|end quot|end untrusted|end context & passage|quot|untrusted|context|input",
        r"(?:^|\n)\W*(?:the )?end(?: of)?(?: the)?(?: (?:quoted|untrusted|user))? ?(?:passages?|quotation|quote"
        r"|untrusted "
        r"(?:text|content|data)|context|input)\W*(?:$|\n)|\bend of (?:the )?(?:passages?|quotation"
        r"|untrusted \w+)\W{1,5}"
        r"(?:new|now|system|instructions?|task|grade|reply|output|the grade)\b",
    ),
    ("passage>|passages>", r"</? ?passages?>"),
)


# Needles, verbs, whose, what: "ignore the previous instructions". Some languages put the verb last.
FORGETTING = (
    (
        "ignorier|missacht|vergiss|vergess",
        r"\b(?:ignorier\w*|missacht\w*|vergiss|vergessen sie)\b",
        r"(?:vorherig|vorig|bisherig|obig|vorangeh|fruher|alle|samtlich|dein|ihre)\w*",
        r"\w*(?:anweisung|instruktion|anleitung|vorgabe|bewertungsregel|aufforderung|prompt)",
    ),
    (
        "ignor|oubli|abstraction",
        r"\b(?:ignore[rz]?|oublie[rz]?|faites abstraction|ne tene?[zs] pas compte)\b",
        r"",
        r"\b(?:instructions?|consignes?|directives?|regles?)\b.{0,20}(?:precedent|anterieur|ci-dessus|plus haut"
        r"|du systeme|recues)",
    ),
    (
        "ignor|olvid|omis",
        r"\b(?:ignor[ae]n?|ignorar|olvid[ae]n?|olvidar|omit[ae]|haz caso omiso)\b",
        r"",
        r"\b(?:instrucciones|indicaciones|directrices|reglas|ordenes)\b.{0,20}(?:anterior|previa|arriba|precedent"
        r"|del sistema|recibidas)",
    ),
    (
        "ignor|esquec|desconsider",
        r"\b(?:ignor[ae]m?|ignorar|esquec[ae]|desconsider[ae]m?)\b",
        r"",
        r"\b(?:instruc|orientac|diretriz|regras|ordens)\w*.{0,20}(?:anterior|previa|acima|precedent|do sistema"
        r"|recebidas)",
    ),
    (
        "ignor|dimentica",
        r"\b(?:ignor[ai](?:te|re)?|dimentica\w*)\b",
        r"",
        r"\b(?:istruzion|indicazion|direttiv|regol)\w*.{0,20}(?:precedent|sopra|anterior|del sistema|ricevut)",
    ),
    (
        "negeer|vergeet",
        r"\b(?:negeer|vergeet)\b",
        r"(?:vorige|eerdere|voorgaande|bovenstaande|alle|je|uw)",
        r"(?:instructie|aanwijzing|opdracht|prompt)",
    ),
    (
        "ignoruj|pomin|zapomnij",
        r"\b(?:z?ignoruj\w*|pomin\w*|zapomnij\w*)\b",
        r"(?:poprzedni|wczesniejsz|powyzsz|wszystki)\w*",
        r"(?:instrukcj|polece|wskazow)",
    ),
    (
        "игнорир|забуд|пренебре",
        r"(?:игнорир\w+|забуд\w+|пренебре\w+)",
        r"(?:предыдущ|прежн|вышеуказанн|ранее|все|твои|ваши)\w*",
        r"(?:инструкци|указани|предписани|команд)",
    ),
    ("ігнор|забуд", r"(?:ігнор\w+|забуд\w+)", r"(?:попередн|усі|всі)\w*", r"(?:інструкці|вказівк)"),
    (
        "تجاهل|انس|اهمل|أهمل",
        r"(?:تجاهل|انس|اهمل|أهمل)",
        r"",
        r"(?:التعليمات|الارشادات|الإرشادات|الاوامر|الأوامر|تعليمات|تعليماتك).{0,15}(?:السابق|اعلاه|أعلاه|النظام)"
        r"|(?:جميع|كل|كافة) (?:التعليمات|الإرشادات|الأوامر)",
    ),
    (
        "忽略|无视|無視|忘记|忘掉|不要理会",
        r"(?:忽略|无视|無視|忘记|忘掉|不要理会)",
        r"(?:之前|以上|上述|前面|先前|所有|一切|任何|系统|上面)",
        r"(?:指令|指示|提示|提示词|评分标准|评分规则|命令)",
    ),
    (
        "निर्देश|आदेश",
        r"(?:पिछले|पूर्व|उपरोक्त|सभी|ऊपर|पहले)",
        r"",
        r"(?:निर्देश|आदेश).{0,25}(?:अनदेखा|नज.?र.?अंदाज|उपेक्षा|भूल)",
    ),
    (
        "指示|命令|プロンプト",
        r"(?:以前|これまで|上記|前|すべて|全て|先ほど|システム)",
        r"",
        r"(?:指示|命令|プロンプト|採点基準).{0,6}(?:無視|忘れ|従わ)",
    ),
    (
        "지시|명령|지침|프롬프트",
        r"(?:이전|위의|앞의|모든|기존)",
        r"",
        r"(?:지시|명령|지침|프롬프트).{0,8}(?:무시|잊)",
    ),
    (
        "talimat|yonerge",
        r"(?:onceki|yukaridaki|tum|butun)",
        r"",
        r"(?:talimat|yonerge)\w*.{0,12}(?:yok say|gormezden|unut|dikkate alma)",
    ),
    (
        "abaikan|lupakan",
        r"\b(?:abaikan|lupakan)\b",
        r"",
        r"(?:instruksi|perintah|petunjuk).{0,15}(?:sebelum|di atas)",
    ),
    ("bo qua", r"\bbo qua\b", r"", r"(?:huong dan|chi dan|chi thi|lenh).{0,15}(?:truoc|tren)"),
)

# Needles, pattern: "give this passage a 3", "answer 3 only", "this passage is the most relevant".
LIFTING = (
    (
        "passage|dieser text|diesen text|diesem text|dokument|abschnitt|textstelle|absatz|antwort",
        r"(?:bewerte?n?|vergib|benote|gib|gebe?n? sie)\b.{0,40}\b(?:dies\w*|dem) (?:passage|text|dokument"
        r"|abschnitt|textstelle|absatz)\w*.{0,30}(?:\b3\b|drei|hochst|beste|volle|eins)|(?:antworte?"
        r"|gib)\b.{0,15}\b(?:nur|ausschliesslich|einfach|genau|immer)\b.{0,15}[\"'„»]?\b3\b(?!\s*\w{3})|(?:note"
        r"|bewertung|relevanz)[ :]{1,2}3\b.{0,20}(?:passage|abschnitt|textstelle)|dies\w* (?:passage|text|dokument"
        r"|abschnitt|textstelle)\w* (?:ist|beantwortet)\b.{0,25}\b(?:relevanteste|beste antwort"
        r"|die (?:such)?anfrage|suchanfrage)",
    ),
    (
        "ce passage|ce texte|ce document|cet extrait|cette passage|ce paragraphe|repond",
        r"(?:note[rz]?|attribue[rz]?|donne[rz]?|classe[rz]?|evalue[rz]?)\b.{0,40}\b(?:ce|cet|cette|a ce|a cet"
        r"|a cette) (?:passage|texte|document|extrait|paragraphe)\b.{0,30}(?:\b3\b|trois|maximal|premier|meilleur"
        r"|plus haute)|repond(?:s|ez)\b.{0,15}\b(?:seulement|uniquement|simplement|juste|par"
        r"|toujours)\b.{0,20}\b3\b(?!\s*\w{3})|\b(?:ce|cet) (?:passage|texte|document|extrait) (?:est"
        r"|repond)\b.{0,25}\b(?:le plus pertinent|la meilleure reponse|(?:parfaitement|entierement"
        r"|completement) a la (?:requete|question))",
    ),
    (
        "este pasaje|este texto|este documento|este fragmento|al pasaje|al texto|este parrafo|responde",
        r"(?:calific|puntu|valor|asign|otorg|clasific|dale)\w*.{0,40}\b(?:este|al|a este) (?:pasaje|texto"
        r"|documento|fragmento|parrafo)\b.{0,35}(?:\b3\b|tres|maxim|primer|mejor|mas alta)"
        r"|\bresponde[dr]?\b.{0,15}\b(?:solo|solamente|unicamente|siempre|con"
        r"|simplemente)\b.{0,20}\b3\b(?!\s*\w{3})|\beste (?:pasaje|texto|documento|fragmento) (?:es"
        r"|responde)\b.{0,25}\b(?:el mas relevante|la mejor respuesta|(?:perfecta|completa"
        r"|total)mente a la (?:consulta|pregunta))",
    ),
    (
        "esta passagem|este texto|este documento|este trecho|este paragrafo|responda",
        r"(?:classifi|pontu|avali|atribu|de )\w*.{0,40}\b(?:est[ea]|a est[ea]) (?:passagem|texto|documento|trecho"
        r"|paragrafo)\b.{0,35}(?:\b3\b|tres|maxim|primeir|melhor|mais alta)|\brespond[ae]\b.{0,15}\b(?:apenas"
        r"|somente|so|sempre|com|simplesmente)\b.{0,20}\b3\b(?!\s*\w{3})|\best[ea] (?:passagem|texto|documento"
        r"|trecho) (?:e|responde)\b.{0,25}\b(?:[oa] mais relevante|a melhor resposta|(?:perfeita|completa"
        r"|total)mente a (?:consulta|pergunta))",
    ),
    (
        "passaggio|brano|testo|rispondi|rilevante",
        r"(?:valut|assegn|classific|dai)\w*.{0,40}\b(?:questo|a questo) (?:passaggio|testo|documento"
        r"|brano)\b.{0,35}(?:\b3\b|tre|massim|primo|miglior)|\brispond[ie]\b.{0,15}\b(?:solo|soltanto|sempre"
        r"|con)\b.{0,20}\b3\b(?!\s*\w{3})|\bquesto (?:passaggio|testo|documento"
        r"|brano) e\b.{0,15}\b(?:il piu (?:rilevante|pertinente)|la migliore risposta)",
    ),
    (
        "passage|tekst|antwoord",
        r"(?:beoordeel|geef)\b.{0,30}\bdeze (?:passage|tekst)\b.{0,30}(?:\b3\b|drie|hoogste|beste)"
        r"|\bantwoord\b.{0,15}\b(?:alleen|enkel|altijd|met)\b.{0,20}\b3\b(?!\s*\w{3})|\bdeze (?:passage"
        r"|tekst) is de meest relevante",
    ),
    (
        "отрывок|отрывк|фрагмент|текст|ответь|релевант",
        r"(?:оцени|постав|присво|дай)\w*.{0,40}\b(?:этот|этому|данному|данныи) (?:отрыв|текст|документ"
        r"|фрагмент)\w*.{0,30}(?:\b3\b|три|тройк|высш|максимальн|наивысш|перв)|(?:ответь|ответьте|отвечаи"
        r"|выведи)\w*.{0,15}(?:только|лишь|всегда|просто|цифр)\w*.{0,15}\b3\b(?!\s*\w{3})|\bэтот (?:отрывок|текст"
        r"|документ|фрагмент).{0,20}(?:самыи релевантныи|наиболее релевант|лучшии ответ"
        r"|полностью отвечает на (?:запрос|вопрос))",
    ),
    (
        "المقطع|النص|المستند|الوثيقة|اجب|أجب",
        r"(?:قيم|قيّم|اعط|أعط|امنح|صنف|ضع).{0,25}هذا (?:المقطع|النص|المستند).{0,30}(?:3|٣|ثلاث|اعلى|أعلى|الاول"
        r"|الأول|القصوى)|(?:اجب|أجب|رد|اكتب).{0,15}(?:فقط|بالرقم|بـ).{0,15}(?:3|٣)|هذا (?:المقطع|النص"
        r"|المستند) هو.{0,15}(?:الاكثر صلة|الأكثر صلة|افضل|أفضل)",
    ),
    (
        "段落|文档|文章|文本|回答|回复|输出|文件|打分|评分|內容|内容",
        r"(?:给|将|把|對|对|請|请)?(?:这|该|本|此|這|該)(?:个|段|篇|份|個)?(?:段落|文档|文章|文本|段文字|文件|内容"
        r"|內容|文字)[^。；\n]{0,12}(?:评|打|给|排|标|評|給)[^。；\n]{0,10}(?:[3三]分|为[3三]|最高|满分|第一[位名]"
        r"|最前|首位)|(?:只|仅|必须|直接|始终|一律|總是|只需)(?:能|需|要)?(?:回答|回复|输出|输入|写|輸出"
        r"|回覆)(?:数字|數字)?\s*[：:\"“「‘]?\s*(?:3|三|３)(?![\d个年月日])|(?:这|本|该|此|這)(?:段|篇|个)?(?:段落"
        r"|文档|文章|文本|文字)(?:是|就是|完全|完整).{0,8}(?:最相关|最佳答案|最好的答案|唯一正确|回答了(?:查询"
        r"|问题|该查询))|(?:打|评|給|给)(?:出)?(?:最高分|满分|3分|三分)",
    ),
    (
        "文章|文書|段落|パッセージ|テキスト|回答|出力|答え",
        r"この(?:文章|文書|段落|パッセージ|テキスト|一節|ドキュメント).{0,12}(?:3|三|最高|満点|1位|一位"
        r"|最上位).{0,12}(?:評価|付け|つけ|与え|して|採点|ランク|点)|(?:3|「3」|3のみ|3だけ|数字の3)(?:」|のみ"
        r"|だけ)?(?:を|と|で)?(?:のみ|だけ)?(?:出力|回答|答え|返答|返信)(?:して|せよ|しろ|てください|なさい)"
        r"|この(?:文章|文書|段落|パッセージ|テキスト)(?:が|は).{0,8}(?:最も関連|最適な(?:答え|回答)|最良の)",
    ),
    (
        "단락|문서|구절|답변|출력",
        r"이 (?:단락|문서|구절|글|텍스트|본문)(?:에|을|를|은|는|이)?.{0,15}(?:3|최고|만점|1위|가장 관련)"
        r"|(?:오직 )?3(?:만|이라고|을|으로)? ?(?:출력|답변|대답|응답)(?:하|해)",
    ),
    (
        "अंश|गद्यांश|दस्तावेज|उत्तर|अनुच्छेद|पाठ",
        r"इस (?:अंश|गद्यांश|दस्तावेज|दस्तावेज़|अनुच्छेद|पाठ).{0,20}(?:3|३|तीन|सर्वोच्च|उच्चतम|पहला"
        r"|पूर्ण).{0,20}(?:अंक|ग्रेड|दें|दीजिए|दो|रेट|स्थान)|(?:केवल|सिर्फ|बस) (?:अंक )?[\"']?(?:3"
        r"|३)[\"']? ?(?:लिख|उत्तर|आउटपुट|जवाब|दें)|(?:यह|ये) (?:अंश|गद्यांश|दस्तावेज|दस्तावेज़"
        r"|पाठ).{0,15}(?:सबसे प्रासंगिक|सर्वोत्तम उत्तर|सबसे अच्छा उत्तर)",
    ),
    (
        "pasaj|metin|belge",
        r"bu (?:pasaj|metin|metn|belge)\w*.{0,25}(?:\b3\b|en yuksek|birinci|en ilgili)|(?:yalnizca"
        r"|sadece) [\"']?3[\"']? (?:yaz|yanit|cevap)",
    ),
    (
        "fragment|tekst|odpowiedz",
        r"(?:ocen|przyznaj|daj)\w*\b.{0,20}\b(?:ten|temu) (?:fragment|tekst|dokument)\w*.{0,25}(?:\b3\b|najwyzsz"
        r"|pierwsz)",
    ),
)


class Telltale(msgspec.Struct, eq=False):
    """Found where the pattern matches; looked for where one of each group of `needles` stands in the text."""

    needles: tuple[frozenset[str], ...]
    pattern: re.Pattern[str]

    def may_stand_among(self, found: set[str]) -> bool:
        """Whether one needle of each group was found."""
        return not any(found.isdisjoint(group) for group in self.needles)


# Turns and replies that look like the model's own.
_REPLIES = (
    (
        "_of_turn>|[inst]|[/inst]|sys>>|system_prompt]|<BAR|BAR>",
        r"<(?:start|end)_of_turn>|\[/?inst\]|<</?sys>>|\[/?system_prompt\]|<\|[^\s<>|]+\|?>|<[^\s<>|]+\|>",
    ),
    (
        '"3"|"order"|"2"|&quot;3',
        r"[{,]\s*(?:\"|&quot;)[1-3](?:\"|&quot;)\s*:\s*\[\s*(?:\d|\])|\{\s*\"order\"\s*:\s*\[\s*\d",
    ),
    (
        '"grade"|"relevance|"score"|"label"',
        r"\{\s*\"(?:grade|relevance|relevance_score|label|score)\"\s*:\s*\"?(?:3|1\.0)\"?\s*\}",
    ),
    ("] > [", r"\[\d+\] > \[\d+\]"),
)


def _groups(needles: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(word.replace("BAR", "|") for word in group.split("|")) for group in needles.split(" & "))


def _compiled() -> tuple[Telltale, ...]:
    plain = [(_groups(needles), pattern) for needles, pattern in (*ENGLISH, *_REPLIES, *LIFTING)]
    forgetting = [
        (_groups(needles), rf"{verb}.{{0,30}}?{whose}.{{0,25}}?(?:{what})") for needles, verb, whose, what in FORGETTING
    ]
    return tuple(Telltale(needles=needles, pattern=re.compile(pattern)) for needles, pattern in (*plain, *forgetting))


TELLTALES = _compiled()
NEEDLES = frozenset(needle for telltale in TELLTALES for group in telltale.needles for needle in group)
BY_FIRST_NEEDLE = {
    needle: tuple(telltale for telltale in TELLTALES if needle in telltale.needles[0]) for needle in sorted(NEEDLES)
}
"""The telltales whose first group has the needle."""


SUSPECTED_INJECTION = "suspected_injection"

_TAGS = re.compile("(?<![\U0001f3f4\U000e0020-\U000e007e])[\U000e0020-\U000e007e]{4,}")
_SELECTED = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")

_MIXED_SCRIPTS = re.compile(r"[\u0370-\u052f](?:(?=[a-z])|(?<=[a-z].))")
_LEET_WORD = re.compile(r"(?<!\w)(?=[\w@$]*[a-z])[\w@$]{3,}")
_LEET = str.maketrans("0134578@$", "oieastbas")
_LETTERS_AS = {"o": "o0", "i": "i1", "e": "e3", "a": "a4@", "s": "s5$", "t": "t7"}
_SPELT_GAP = re.compile(r"(?<=\b[a-z]) (?=[a-z]\b)")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}")

_WORDS = ("ignore", "instruct", "passage", "document", "relevan")
"""One of them stands in most attacks; each disguise is looked for as what it makes of these."""


def _in_base64(word: str) -> Iterator[str]:
    """What base64 makes of the word without its first letter (which may be a capital), in lower case."""
    for shift, start in enumerate((0, 2, 3)):
        encoded = base64.b64encode(b"?" * shift + word[1:].encode()).decode().rstrip("=")
        yield encoded[start:-1].lower()


def _in_leet(word: str) -> Iterator[str]:
    start = word[:5]
    variants = map("".join, product(*(_LETTERS_AS.get(letter, letter) for letter in start)))
    yield from (variant for variant in variants if variant != start)


_ENTITIES = frozenset({"&lt;", "&quot;", "&#"})
_ENCODED = frozenset(chain.from_iterable(map(_in_base64, _WORDS)))
_LEETED = frozenset(chain.from_iterable(map(_in_leet, _WORDS)))
_SPELT = frozenset(map(" ".join, (word[:5] for word in _WORDS)))
_LOOKED_FOR = sorted(NEEDLES | _ENTITIES | _ENCODED | _LEETED | _SPELT)
_FINDER = AhoCorasick(_LOOKED_FOR, implementation=Implementation.DFA)


def has_hidden_text(text: str) -> bool:
    """Whether letters stand in it as characters that nobody sees."""
    return bool(_TAGS.search(text) or _SELECTED.search(text))


def shows_injection(text: str) -> bool:
    """Whether it shows a telltale, plainly or in a common disguise. Invisible characters should be gone (`visible`)."""
    plain = fold(text)
    found = _found(plain)
    if _matches(plain, found):
        return True
    return any(_matches(reading, _found(reading)) for reading in _undisguised(text, plain, found))


def _found(text: str) -> set[str]:
    return {_LOOKED_FOR[which] for which, _, _ in _FINDER.find_matches_as_indexes(text, overlapping=True)}


def _matches(text: str, found: set[str]) -> bool:
    candidates = {telltale for needle in found for telltale in BY_FIRST_NEEDLE.get(needle, ())}
    return any(telltale.may_stand_among(found) and telltale.pattern.search(text) for telltale in candidates)


def _undisguised(text: str, plain: str, found: set[str]) -> Iterator[str]:
    """Other readings of the text, where it shows signs of them."""
    if not plain.isascii() and _MIXED_SCRIPTS.search(plain):
        yield looking_like(plain).lower()
    if not found:
        return
    if not found.isdisjoint(_ENTITIES):
        yield html.unescape(plain)
    if not found.isdisjoint(_SPELT):
        yield _SPELT_GAP.sub("", plain).replace("  ", " ")
    if not found.isdisjoint(_LEETED):
        yield _LEET_WORD.sub(lambda word: word[0].translate(_LEET), plain)
    if not found.isdisjoint(_ENCODED):
        yield from _decoded(text)


def _decoded(text: str) -> Iterator[str]:
    """The texts that stand in it as base64."""
    for run in _BASE64.findall(text):
        try:
            yield fold(base64.b64decode(run + "=" * (-len(run) % 4)).decode("utf-8"))
        except (binascii.Error, UnicodeDecodeError):
            continue
