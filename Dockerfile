# The exporter's image. The base is pinned by its version; a release pins it by digest, too: docs/container.md says how.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.16-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# What runs, in a virtual environment without a pip of its own. Before the source, so that a change there keeps the layer.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/mlexporter \
    && python -m pip --python /opt/mlexporter install --no-compile --require-hashes --only-binary :all: \
        --requirement requirements.lock \
    && python -m pip install --require-hashes --only-binary :all: --requirement requirements-build.lock

COPY pyproject.toml README.md LICENSE ./
COPY src src
# Compiled here, for nothing can be written later. Such bytecode holds no time stamp, and so is the same in each build.
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && python -m pip --python /opt/mlexporter install --no-compile --no-deps --no-index dist/*.whl \
    && python -m compileall -q -f --invalidation-mode unchecked-hash /opt/mlexporter/lib \
    && mkdir state


FROM ${PYTHON_IMAGE}
# Nothing that installs is left. The base has no bytecode of the standard library: without it, every start would compile.
RUN python -m pip uninstall --yes --quiet pip setuptools wheel \
    && rm -rf /usr/local/lib/python3.*/ensurepip \
    && python -m compileall -q -f --invalidation-mode unchecked-hash /usr/local/lib

COPY --from=build /opt/mlexporter /opt/mlexporter
# A named volume that is mounted here belongs to whom the folder belongs.
COPY --from=build --chown=65532:65532 /build/state /var/lib/mlexporter

ENV PATH=/opt/mlexporter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

ARG PYTHON_IMAGE
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mlexporter" \
      org.opencontainers.image.description="Prometheus exporter for machine-learning models: drift, data quality and performance from counts, not raw data" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/mlexporter/mlexporter" \
      org.opencontainers.image.documentation="https://github.com/mlexporter/mlexporter/tree/main/docs" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"

# By number, so that Kubernetes can tell that it is not root (runAsNonRoot).
USER 65532:65532
EXPOSE 9877
ENTRYPOINT ["mlexporter"]
CMD ["serve"]
