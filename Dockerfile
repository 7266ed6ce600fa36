# One image for every service, the console and the flows; docker-compose.yml says which of them a container is.
FROM python:3.11-slim-bookworm

# libgomp1: LightGBM's and scikit-learn's OpenMP runtime, which their wheels do not carry
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/*

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    NUMBA_CACHE_DIR=/var/cache/numba \
    HOME=/home/sluice

RUN groupadd --gid 10001 sluice \
 && useradd --uid 10001 --gid sluice --create-home --shell /usr/sbin/nologin sluice \
 && install -d -o sluice -g sluice /app /app/data /app/models /app/ml /var/cache/numba

WORKDIR /app
COPY requirements.lock ./
RUN pip install --no-deps --require-hashes -r requirements.lock

COPY --chown=sluice:sluice . .
USER sluice
# without a command: what the configuration would be, or why it is refused
CMD ["python", "-c", "from config.settings import load; load(); print('configuration accepted; docker-compose.yml names the services')"]
