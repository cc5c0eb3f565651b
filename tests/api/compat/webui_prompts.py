"""Open WebUI's prompts, shortened to their form, as the default templates of 0.12.4 have it."""

HISTORY = """<chat_history>
USER: When does the dental cover of new staff start, please tell me?
ASSISTANT: On the first day [1].
</chat_history>"""

TITLE = f"""### Task:
Generate a concise title summarizing the chat history.
### Guidelines:
- Keep it short: 2-4 words is best.
### Output:
JSON format: {{ "title": "your concise title here" }}
### Examples:
- {{ "title": "Stock Trends" }},
### Chat History:
{HISTORY}"""

TAGS = f"""### Task:
Generate 1-3 broad tags categorizing the main themes of the chat history, along with 1-3 more specific subtopic tags.

### Output:
JSON format: {{ "tags": ["tag1", "tag2", "tag3"] }}

### Chat History:
{HISTORY}"""

FOLLOW_UPS = f"""### Task:
Predict 3-5 useful messages this user might naturally send next to advance their current objective.
### Output:
JSON format: {{ "follow_ups": ["Question 1?", "Question 2?", "Question 3?"] }}
### Chat History:
{HISTORY}"""

QUERIES = f"""### Task:
Analyze the chat history to determine the necessity of generating search queries, in the given language.

### Output:
Strictly return in JSON format:
{{
  "queries": ["query1", "query2"]
}}

### Chat History:
{HISTORY}"""

AUTOCOMPLETE = f"""### Task:
You are an autocompletion system. Continue the text in `<text>` based on the **completion type** in `<type>`.

5. If unsure, return: `{{ "text": "" }}`.

### Context:
{HISTORY}
<type>General</type>
<text>Dental cover</text>
#### Output:
"""

IMAGE = f"""### Task:
Generate a detailed prompt for am image generation task based on the given language and context.

### Output:
Strictly return in JSON format:
{{
    "prompt": "Your detailed description here."
}}

### Chat History:
{HISTORY}"""

EMOJI = """Your task is to reflect the speaker's likely facial expression through a fitting emoji. Interpret emotions.

Message: ```Thanks!```"""

ALL = (TITLE, TAGS, FOLLOW_UPS, QUERIES, AUTOCOMPLETE, IMAGE, EMOJI)

WITH_SOURCES = """### Task:
Respond to the user query using the provided context, with citations in the format [id] (e.g., <source id="1">).

<context>
<source id="1" name="rules.md"># Dental cover
The plan pays 80 percent of fillings.</source>
<source id="2" name="rules.md">Hotels may cost up to 140 euros a night.</source>
</context>

How much do fillings cost the staff?"""
"""A question with a file attached: its own search's passages, numbered."""
