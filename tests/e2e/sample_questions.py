"""Ten questions that the sample documents answer, and one that they do not. docs/guide.md shows them."""

from typing import NamedTuple


class SampleQuestion(NamedTuple):
    """`quote` stands in the file `source` and holds the answer; both are "" where nothing answers."""

    question: str
    source: str
    quote: str


SAMPLE_QUESTIONS = (
    SampleQuestion("When does dental cover start?", "employee-handbook.md", "starts on your first day"),
    SampleQuestion(
        "How many weeks of parental leave does each parent get?", "employee-handbook.md", "sixteen weeks at full pay"
    ),
    SampleQuestion("How do I remove limescale?", "support-faq.html", "equal parts of water and white vinegar"),
    SampleQuestion("How long is the guarantee on the Wren travel kettle?", "support-faq.html", "3 years"),
    SampleQuestion("How fast may a forklift go inside?", "warehouse-safety.txt", "8 km/h inside"),
    SampleQuestion("When will the thermostats of order 4471 be dispatched?", "late-delivery.eml", "6 March 2026"),
    SampleQuestion("How many kettles were repaired in 2025?", "annual-report-2025.pdf", "5,742"),
    SampleQuestion("What voltage does the Wren run on?", "products.jsonl", "110 and 230 volts"),
    SampleQuestion(
        "Wie lange kann ich eine Bestellung zurücksenden?", "ruecksendungen-de.md", "innerhalb von 30 Tagen"
    ),
    SampleQuestion("电水壶的保修期是多久？", "shouhou-fuwu-zh.md", "电水壶自购买之日起保修三年"),
    SampleQuestion("Who is the managing director?", "", ""),
)
