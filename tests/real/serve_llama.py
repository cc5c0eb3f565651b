"""llama.cpp's own HTTP server, out of its wheel: `serve_llama.py MODEL.gguf PORT CONTEXT SLOTS [TEMPLATE]`.

Run by the Python of `.venv-real`, which has nothing of ours.
"""

import os
import sys
import time
from pathlib import Path

import xllamacpp


def main(model: str, port: str, context: str, slots: str, template: str = "") -> None:
    """Serve until the process is ended, or whoever started it is. `context` is for each of the slots."""
    parent = os.getppid()
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = model, {Path(model).stem}
    params.hostnames, params.port = ["127.0.0.1"], int(port)
    params.n_ctx, params.n_parallel = int(context) * int(slots), int(slots)
    params.cpuparams.n_threads = 2
    params.endpoint_metrics = True
    if template:
        params.chat_template, params.use_jinja = Path(template).read_text(encoding="utf-8"), True
    server = xllamacpp.Server(params)
    sys.stdout.write(f"up at {server.listening_address}\n")
    sys.stdout.flush()
    while os.getppid() == parent:
        time.sleep(0.5)


if __name__ == "__main__":
    main(*sys.argv[1:])
