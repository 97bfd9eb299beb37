#!/bin/sh
# Starts wharf over plugins/ and shows a first call. Ctrl-C ends both.
set -eu
wharf=$1
# This one talks to the registry that it starts, whatever the environment says.
unset WHARF_REGISTRY WHARF_TOKEN

"$wharf" up &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
# Ctrl-C reaches wharf as well, which finishes its calls: wait for it instead of dying first.
trap : INT TERM

# The first call, as soon as there is somebody to answer it.
tries=0
until answer=$("$wharf" call Arith.Multiply '{"a":7,"b":8}' 2>/dev/null); do
    tries=$((tries + 1))
    if [ "$tries" -ge 100 ] || ! kill -0 "$server" 2>/dev/null; then
        echo "wharf did not come up; what it said is above" >&2
        exit 1
    fi
    sleep 0.1
done
if ! kill -0 "$server" 2>/dev/null; then
    echo "another wharf answered; the one started here did not come up, as is said above" >&2
    exit 1
fi

cat <<TEXT

A first call:

  $wharf call Arith.Multiply '{"a":7,"b":8}'
  $answer

In another terminal, try:

  $wharf call arith.divide '{"a":7,"b":0}'
  $wharf call textkit.recase 'hello there' title
  $wharf services
  $wharf inspect plugins/arith.wasm
  curl localhost:8500/services
  curl localhost:7401/metrics

Change plugins/arith/src/lib.rs, run 'make plugins', and call again: no restart is needed.

TEXT

# After a signal the first wait returns early; the second one waits for the drain.
wait "$server" || wait "$server"
