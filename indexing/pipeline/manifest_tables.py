"""The tables of the manifest, in a file and in PostgreSQL: how they are made, and how those of earlier versions become
them.
"""

MIGRATIONS = (
    """
CREATE TABLE IF NOT EXISTS sources (
  lineage TEXT NOT NULL, path TEXT NOT NULL, name TEXT NOT NULL, hash TEXT NOT NULL, bytes INTEGER NOT NULL,
  indexed_at REAL NOT NULL, PRIMARY KEY (lineage, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
  lineage TEXT NOT NULL, id TEXT NOT NULL, path TEXT, source TEXT NOT NULL, title TEXT NOT NULL, version TEXT,
  passages INTEGER NOT NULL, indexed_at REAL NOT NULL, body BLOB, PRIMARY KEY (lineage, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS documents_by_path ON documents (lineage, path);
CREATE INDEX IF NOT EXISTS documents_unfinished ON documents (lineage) WHERE version IS NULL;
""",
    # Version 1 marked a document under way by a version of NULL, and lost the one before.
    """
CREATE TABLE pending (
  lineage TEXT NOT NULL, id TEXT NOT NULL, op TEXT NOT NULL, path TEXT, source TEXT NOT NULL, title TEXT NOT NULL,
  version TEXT, body BLOB, PRIMARY KEY (lineage, id)) WITHOUT ROWID;
CREATE INDEX pending_by_path ON pending (lineage, path);
INSERT INTO pending
  SELECT lineage, id, CASE WHEN path IS NULL AND body IS NULL THEN 'delete' ELSE 'write' END, path, source, title,
    NULL, body FROM documents WHERE version IS NULL;
DELETE FROM documents WHERE version IS NULL;
DROP INDEX documents_unfinished;
""",
    """
CREATE TABLE refused (
  lineage TEXT NOT NULL, path TEXT NOT NULL, hash TEXT NOT NULL, reading TEXT NOT NULL, reason TEXT NOT NULL,
  detail TEXT NOT NULL, PRIMARY KEY (lineage, path)) WITHOUT ROWID;
""",
    # An id with the separator of `indexing.documents.document_key` would be taken for that of a tenant's document.
    """
ALTER TABLE documents ADD COLUMN allowed TEXT NOT NULL DEFAULT '';
ALTER TABLE pending ADD COLUMN allowed TEXT NOT NULL DEFAULT '';
UPDATE OR REPLACE documents SET id=replace(id, char(31), char(65533)) WHERE instr(id, char(31));
UPDATE OR REPLACE pending SET id=replace(id, char(31), char(65533)) WHERE instr(id, char(31));
""",
)
"""How a file of version n (0: a new one, or one without a version) becomes one of version n + 1. Append only."""
SHARED_MIGRATIONS = (
    """
CREATE TABLE sources (
  lineage TEXT COLLATE "C" NOT NULL, path TEXT COLLATE "C" NOT NULL, name TEXT NOT NULL, hash TEXT NOT NULL,
  bytes BIGINT NOT NULL, indexed_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (lineage, path));
CREATE TABLE documents (
  lineage TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, path TEXT COLLATE "C", source TEXT NOT NULL,
  title TEXT NOT NULL, version TEXT, passages BIGINT NOT NULL, indexed_at DOUBLE PRECISION NOT NULL, body BYTEA,
  allowed TEXT NOT NULL, PRIMARY KEY (lineage, id));
CREATE INDEX documents_by_path ON documents (lineage, path);
CREATE TABLE pending (
  lineage TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, op TEXT NOT NULL, path TEXT COLLATE "C",
  source TEXT NOT NULL, title TEXT NOT NULL, version TEXT, body BYTEA, allowed TEXT NOT NULL,
  PRIMARY KEY (lineage, id));
CREATE INDEX pending_by_path ON pending (lineage, path);
CREATE TABLE refused (
  lineage TEXT COLLATE "C" NOT NULL, path TEXT COLLATE "C" NOT NULL, hash TEXT NOT NULL, reading TEXT NOT NULL,
  reason TEXT NOT NULL, detail TEXT NOT NULL, PRIMARY KEY (lineage, path));
CREATE FUNCTION json_each(list TEXT) RETURNS TABLE (value TEXT) LANGUAGE sql IMMUTABLE AS
  $$SELECT json_array_elements_text(CASE list WHEN '' THEN '[]' ELSE list END::json)$$;
""",
)
"""The same tables in PostgreSQL, and a function that SQLite has. Append only."""

SOURCE = ("lineage", "path", "name", "hash", "bytes", "indexed_at")
REFUSED = ("lineage", "path", "hash", "reading", "reason", "detail")
DOCUMENT = ("lineage", "id", "path", "source", "title", "version", "passages", "indexed_at", "body", "allowed")
PENDING = ("lineage", "id", "op", "path", "source", "title", "version", "body", "allowed")
TABLES = {"sources": SOURCE, "documents": DOCUMENT, "pending": PENDING, "refused": REFUSED}
"""With their columns."""
