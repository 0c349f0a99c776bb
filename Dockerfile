# An environment for a project that is mounted, CPU or CUDA: docs/machines.md. No image of it was built where the project
# is tested; its `make setup` is what the tests of every commit begin with.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm AS system
# gcc and libc6-dev: Triton compiles what starts its kernels. git: DVC reads the commit.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc git libc6-dev make \
    && rm -rf /var/lib/apt/lists/* \
    # A mounted project is its owner's, and git would not read it.
    && git config --system --add safe.directory /yoyak
WORKDIR /yoyak

FROM system
# cpu or cuda: PyPI's PyTorch brings CUDA itself, and the host has the driver.
ARG TORCH=cpu
# Beside the project: mounted, it would hide an environment inside. A user with a number alone has no home.
ENV VENV=/opt/yoyak PATH=/opt/yoyak/bin:$PATH HOME=/tmp
COPY Makefile pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY src src
RUN make setup TORCH=${TORCH} PYTHON=/usr/local/bin/python3 && rm -rf /tmp/.cache
