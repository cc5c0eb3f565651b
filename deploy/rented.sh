#!/bin/bash
# The one process of a rented container: SSH as the only way in, Winnow behind it, and vLLM where the image has it.
# tini stands above with -g, so that a SIGTERM reaches all of them. When Winnow ends, the container does.
set -euo pipefail

VLLM_PORT=8001

open_the_way_in() {
  : "${SSH_PUBLIC_KEY:?is not set: give your public key (the text of ~/.ssh/id_ed25519.pub), the only way in}"
  install -d -m 700 ~/.ssh
  printf '%s\n' "$SSH_PUBLIC_KEY" >~/.ssh/authorized_keys
  chmod 600 ~/.ssh/authorized_keys
  ssh-keygen -A # here and not in the image: everybody has the image
  "$(command -v sshd)" -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no \
    -o PermitRootLogin=prohibit-password # its full path: sshd insists
}

keep_vllm_running() {
  until vllm serve "${VLLM_MODEL:-google/gemma-3-4b-it}" --host 127.0.0.1 --port "$VLLM_PORT" \
    --max-model-len="${VLLM_MAX_MODEL_LEN:-8192}" \
    --max-num-seqs="${VLLM_MAX_NUM_SEQS:-64}" \
    --gpu-memory-utilization="${VLLM_GPU_MEMORY_UTILIZATION:-0.92}" \
    --language-model-only \
    --generation-config=vllm \
    --enable-prompt-tokens-details \
    '--structured-outputs-config={"backend":"xgrammar","disable_any_whitespace":true}' \
    --disable-fastapi-docs; do
    echo "vLLM ended with status $?; it starts again in ${RESTART_S:-10} s" >&2
    sleep "${RESTART_S:-10}"
  done
}

open_the_way_in
if command -v vllm >/dev/null; then
  export VLLM_NO_USAGE_STATS=1 VLLM_URL="http://127.0.0.1:$VLLM_PORT/v1"
  keep_vllm_running &
fi
exec setpriv --reuid=winnow --regid=winnow --init-groups env HOME=/data winnow "${@:-serve}"
