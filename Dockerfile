# The image of the service; docs/docker.md says how it is used.
#
# Python 3.11 because that is what every test of Winnow runs on; constraints.txt holds for 3.12 and 3.13 as well
# (--build-arg BASE=python:3.13-slim-trixie). Security fixes come with a rebuild: docker build --pull.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS base
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends tini \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/*


# Which libraries: a file of its own, so that other changes of pyproject.toml do not install them anew.
FROM ${BASE} AS requirements
COPY pyproject.toml ./
RUN python3 -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['quickstart'], sep='\n')" > /requirements.txt


# The libraries. Nothing of Winnow's own code is in here, so a change of the code leaves this layer alone.
FROM ${BASE} AS dependencies
# The package index has torch for Linux with CUDA alone, 3 GB of it. uv knows where PyTorch keeps its other builds:
# "cpu", "cu130" to embed on a GPU, or "" to take what the index (or the uv.toml below) gives.
ARG TORCH_BACKEND=cpu
ARG UV=uv==0.13.9
ENV UV_LINK_MODE=copy
WORKDIR /build
# A mirror or a folder of wheels: --secret id=pip,src=pip.conf --secret id=uv,src=uv.toml. Neither stays in a layer.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/uv \
 && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check "$UV"
COPY constraints.txt ./
COPY --from=requirements /requirements.txt ./
RUN --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv venv --python python3 /opt/winnow \
 && /opt/uv/bin/uv pip install --python /opt/winnow/bin/python --compile-bytecode \
    ${TORCH_BACKEND:+--torch-backend="$TORCH_BACKEND"} \
    --constraints constraints.txt --requirements requirements.txt \
 && rm -r /opt/winnow/lib/python3*/site-packages/torch/test /opt/winnow/lib/python3*/site-packages/torch/include
# Three gigabytes of CUDA are never an accident.
RUN case "$TORCH_BACKEND" in cu*|auto) ;; *) \
      /opt/winnow/bin/python -c 'import sys, torch; sys.exit(torch.version.cuda and "this torch is built for CUDA")' ;; \
    esac


FROM dependencies AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY indexing indexing
COPY app app
RUN --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv build --wheel --build-constraints constraints.txt --out-dir /wheel


FROM base AS service
LABEL org.opencontainers.image.title="winnow" \
      org.opencontainers.image.description="Finds passages in your documents and answers from them, with citations" \
      org.opencontainers.image.licenses="Apache-2.0"
# A fixed number, so that whoever mounts a folder as /data knows whom to give it to.
RUN groupadd --gid 10001 winnow \
 && useradd --uid 10001 --gid winnow --no-log-init --home-dir /data --no-create-home --shell /usr/sbin/nologin winnow \
 && install -d -o winnow -g winnow /data \
 && install -d /etc/winnow
COPY --from=dependencies /opt/winnow /opt/winnow
RUN --mount=type=bind,from=dependencies,source=/opt/uv,target=/opt/uv \
    --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    /opt/uv/bin/uv pip install --python /opt/winnow/bin/python --no-cache --offline --no-deps /wheel/*.whl \
 && /opt/winnow/bin/python -m compileall -q /opt/winnow/lib/python3*/site-packages/app \
                                            /opt/winnow/lib/python3*/site-packages/indexing \
 && ln -s /opt/winnow/bin/winnow /usr/local/bin/winnow
# Models that are downloaded stay beside the index. winnow.toml is read from the working directory: mount it there.
ENV WINNOW_HOME=/data WINNOW_HOST=0.0.0.0 WINNOW_PORT=8000 HF_HOME=/data/huggingface PYTHONDONTWRITEBYTECODE=1
WORKDIR /etc/winnow
VOLUME /data
EXPOSE 8000
USER 10001:10001
STOPSIGNAL SIGTERM
# http.client because urllib would ask a proxy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["/opt/winnow/bin/python", "-c", \
  "import os, sys, http.client as h; c = h.HTTPConnection('127.0.0.1', int(os.environ['WINNOW_PORT']), timeout=4); c.request('GET', '/health/ready'); sys.exit(c.getresponse().status != 200)"]
# tini hands signals on while Python is still importing, and collects what readers leave behind.
ENTRYPOINT ["tini", "--", "winnow"]
CMD ["serve"]


# For hosts that rent out one container each (docs/clore.md): the service, a way in over SSH, and vLLM if BASE has it.
FROM service AS rented
USER root
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openssh-server util-linux \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
 && install -d /run/sshd
COPY deploy/rented.sh /usr/local/bin/rented
# Loopback only: whatever ports an order opens, nothing but SSH answers there.
ENV WINNOW_HOST=127.0.0.1
EXPOSE 22
ENTRYPOINT ["tini", "-g", "--", "/bin/bash", "/usr/local/bin/rented"]
CMD []


FROM service AS winnow
