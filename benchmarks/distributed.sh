#!/usr/bin/env bash
# Measure the distributed backends: the queue on PostgreSQL compared with other queues, the pipeline with the embedded
# backends, and growth. This takes about 40 minutes, or about 5 with `short`. Run it on an otherwise idle machine.
# It needs Debian's redis-server besides the packages of scripts/system-packages; the other queues come from PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/environment dev
export PATH="$PWD/.venv/bin:$PATH" PYTHONPATH=tests
peers=$(mktemp -d)
trap 'rm -rf "$peers"' EXIT
python -m venv "$peers"
"$peers/bin/pip" install --quiet procrastinate 'psycopg[binary]' celery redis
if [ "${1:-}" = short ]; then
  queue=(--seconds 2 --runs 1 --depths 1,1000000 --held 10)
  pipeline=(--rounds 1 --seconds 2 --only JPEG,0.25)
  growth=(--seconds 3 --runs 1 --workers 1,64 --instances 1,2)
else
  queue=(--held 180) pipeline=(--rounds 5 --only JPEG) growth=()
fi
python -m benchmarks.queue.postgres --peers "$peers/bin/python" "${queue[@]}"
python -m benchmarks.pipeline --distributed "${pipeline[@]}"
python -m benchmarks.pipeline.growth "${growth[@]}"
