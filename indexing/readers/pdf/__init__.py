"""PDF: words put in reading order, with headings and tables."""
