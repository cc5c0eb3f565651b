"""What passages say in English: rows of `telltales`."""

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
