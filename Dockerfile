# One image for all programs: `luban controller` (the operator), `luban balancer-agent` (beside httpd) and
# `luban node-agent` (on every node).
#
#   docker build -t luban-cloud:0.1.0 .
#
# BASE may be any Debian 12 with Python 3.11; without one, Debian's own Python is installed into it. Offline, give pip
# a folder of wheels: --volume /path/to/wheels:/wheels --build-arg PIP_OPTIONS="--no-index --find-links /wheels".
ARG BASE=python:3.11-slim-bookworm

# libvirt-python has no wheel: it is compiled here, so that no compiler gets into the image that runs.
FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev libvirt-dev pkg-config \
       $(command -v python3 >/dev/null && [ "$(command -v python3)" != /usr/bin/python3 ] || echo python3-dev python3-venv) \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/luban
ARG PIP_OPTIONS=""
WORKDIR /src
# The dependencies first: they change less often than our own code, and the layer is kept.
COPY pyproject.toml constraints.tx[t] ./
RUN /opt/luban/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
    && touch constraints.txt \
    && /opt/luban/bin/pip install --no-cache-dir --disable-pip-version-check ${PIP_OPTIONS} -c constraints.txt -r requirements.txt setuptools wheel
COPY README.md setup.py ./
COPY operator operator
RUN mkdir -p app \
    && /opt/luban/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
    && /opt/luban/bin/pip uninstall -y -q setuptools wheel pip

FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends apache2-bin ca-certificates libvirt0 \
       $(command -v python3 >/dev/null || echo python3) \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin luban
COPY --from=build /opt/luban /opt/luban
ENV PATH=/opt/luban/bin:/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /home/luban
CMD ["luban", "controller"]
