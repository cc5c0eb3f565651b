"""What passages say in languages other than English: rows of `telltales`."""

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
