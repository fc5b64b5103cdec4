#!/usr/bin/env bash
# Runs the built image as a container that comes back after failures and reboots; one that is running is replaced.
# Arguments go to the service: ./run.sh --sandbox
# Settings of this script, read as the service reads its own (environment, then .env, then assets/env):
#   PROXY_CONTAINER=gigachat_proxy  the container, and its image
#   PORT=8078                       the port on this machine; inside it is always 8078
#   PUBLISH=127.0.0.1               the address that the port is opened on; 0.0.0.0 for the whole network
#   RUN_AS=                         uid:gid of the service; the owner of assets unless given
#   DRAIN_TIMEOUT=30                seconds in which the service finishes its requests; the engine waits 10 more
#   START_TIMEOUT=30                seconds in which it must be healthy
set -euo pipefail
cd "$(dirname "$0")"

fail() { echo "$*" >&2; exit 1; }

# setting NAME DEFAULT [OLD NAME]...: quotes, inline comments and small letters are fine, the last line counts.
setting() {
  local default=$2 source name value names=("$1" "${@:3}")
  for source in "" .env assets/env; do
    for name in "${names[@]}"; do
      if [ -z "$source" ]; then value=${!name:-}; else
        value=$(grep -siE "^[[:space:]]*(export[[:space:]]+)?${name}[[:space:]]*=" "$source" | tail -n 1 | cut -d= -f2- |
          sed -E -e 's/^[[:space:]]*"([^"]*)".*/\1/' -e t -e "s/^[[:space:]]*'([^']*)'.*/\1/" -e t \
            -e 's/(^|[[:space:]])#.*//' -e 's/^[[:space:]]+|[[:space:]]+$//g') || true
      fi
      [ -z "$value" ] || { echo "$value"; return; }
    done
  done
  echo "$default"
}

# Who the service runs as, so that both sides can write to assets (GNU stat, else the BSD one of macOS).
owner() {
  local owner
  if docker info 2>/dev/null | grep -qE '^ *rootless(: true)?$'; then
    echo 0:0  # in a rootless engine that is the person who runs it, and no more
    return
  fi
  owner=$(stat -c %u:%g assets/. 2>/dev/null || stat -f %u:%g assets/.)
  if [ "${owner%%:*}" = 0 ]; then
    owner=$(docker image inspect -f '{{.Config.User}}' "$name")
    [ "$(id -u)" = 0 ] || fail "assets belongs to root, and the service must not be root: sudo chown -R $(id -u):$(id -g) assets"
    echo "assets belongs to root, and the service must not be root: giving assets to $owner" >&2
    chown -R "$owner" assets/.
    [ ! -f .env ] || chown "$owner" .env
  fi
  echo "$owner"
}

name=$(setting PROXY_CONTAINER gigachat_proxy)
port=$(setting PORT 8078 PROXY_PORT GPT2GIGA_PORT)
publish=$(setting PUBLISH 127.0.0.1)
drain=$(setting DRAIN_TIMEOUT 30 GPT2GIGA_SHUTDOWN_TIMEOUT_SECONDS)
patience=$(setting START_TIMEOUT 30)

[ -f assets/env ] || fail "There is no assets/env: copy assets/env_example.txt to assets/env and put your key in (or SANDBOX=on)."
docker info >/dev/null 2>&1 || fail "Docker does not answer: is it installed and running, and may you use it? See: docker info"
[ "${REBUILD:-}" != yes ] || docker build -t "$name" .
docker image inspect "$name" >/dev/null 2>&1 || fail "There is no image $name yet: run ./rebuild.sh"
user=$(setting RUN_AS "")
[ -n "$user" ] || user=$(owner)

if docker container inspect "$name" >/dev/null 2>&1; then
  echo "Stopping the old container; it finishes its requests first"
  docker stop "$name" >/dev/null
  docker rm -f "$name" >/dev/null
fi

options=(--name "$name" --restart=always --user "$user" -p "$publish:$port:8078" -v "$PWD/assets:/app/assets:z"
  --init --stop-timeout $((${drain%%.*} + 10)) --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges)
[ ! -f .env ] || options+=(-v "$PWD/.env:/app/.env:ro,z")
docker run -d "${options[@]}" "$name" "$@" >/dev/null

# The image's own health check, asked at our pace instead of the engine's. A restart means that the start failed.
SECONDS=0
until docker exec "$name" healthy >/dev/null 2>&1; do
  if [ $SECONDS -ge "$patience" ] || [ "$(docker container inspect -f '{{.RestartCount}}' "$name")" != 0 ]; then
    docker logs --tail 50 "$name" >&2
    fail "$name did not become healthy; its log is above. The engine keeps trying; to stop that: docker rm -f $name"
  fi
  sleep 0.3
done

echo "$name is healthy on http://$(docker port "$name" 8078/tcp | head -n 1), as user $user"
case "$publish" in
  127.* | localhost | "[::1]") echo "Only this machine reaches it; PUBLISH=0.0.0.0 in assets/env opens it to the network" ;;
  *) [ -n "$(setting PROXY_API_KEYS "" GPT2GIGA_API_KEY)" ] || echo "WARNING: whoever reaches this port can spend your key. Set PROXY_API_KEYS in assets/env" ;;
esac
