"""Word, PowerPoint, Excel, OpenDocument and EPUB."""
