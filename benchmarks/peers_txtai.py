"""txtai's own API, in txtai's own environment; `benchmarks.peers` starts it. It imports nothing of ours.

python -P benchmarks/peers_txtai.py MODEL PASSAGES PORT
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path


def serve_txtai(model: str, passages: list[str], port: int) -> None:
    """Over an index that its library made with its defaults: hybrid, contents in SQLite."""
    settings = {"path": model, "hybrid": True, "content": True}
    embeddings = import_module("txtai").Embeddings(**settings)
    embeddings.index(passages)
    embeddings.save("txtai-index")
    embeddings.close()
    Path("txtai.yml").write_text(json.dumps({"path": "txtai-index", "writable": False, "embeddings": settings}))
    os.environ["CONFIG"] = "txtai.yml"
    import_module("uvicorn").run("txtai.api:app", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    serve_txtai(sys.argv[1], json.loads(Path(sys.argv[2]).read_text("utf-8")), int(sys.argv[3]))
