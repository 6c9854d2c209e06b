# Says the time every few seconds; stops at once when asked to.
set -eu
pause=
trap 'echo stopped; [ -z "$pause" ] || kill "$pause"; exit 0' TERM
while :; do
  date -u '+it is %H:%M:%S'
  sleep "${CLOCK_SECONDS:-10}" &
  pause=$!
  wait "$pause"
done
