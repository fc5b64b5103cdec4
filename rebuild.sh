#!/usr/bin/env bash
# Builds the image, then replaces the running container. If the build fails, the old container goes on running.
# Everything else, the port and the container's name included, is told in run.sh.
set -euo pipefail
REBUILD=yes exec "$(dirname "$0")/run.sh" "$@"
