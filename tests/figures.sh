#!/bin/sh
# Prints the figures that the project is held to, beside their targets. Ends with 1 where one is missed.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=provision/lib.sh
. "$top/provision/lib.sh"

# Seconds until the daemon counts as being at rest, and for which it is then watched.
settle=60
watch=60
# Rounds of the demo.
rounds=5

usage() {
    cat <<TXT
usage: tests/figures.sh [size] [idle] [demo] [tests] [inputs]

Prints figures beside their targets; without an argument all of them:

  size     the static binary's size
  idle     memory, wake-ups and processor time of the daemon at rest: LXD and the GitHub stand-in answer,
           nothing is queued (two minutes)
  demo     from webhook to runner, and to nothing left: medians of $rounds rounds
  tests    number of tests, and their time
  inputs   what each bad input gets

  LXDRUNNER_BIN=FILE                    measures this static binary instead of building one
  LXDRUNNER_TEST_LXD_SOCKET=SOCKET and
  LXDRUNNER_TEST_IMAGE=ALIAS            use this LXD and image; without them the LXD is found or set up
                                        as provision/try.sh does
TXT
}

missed=0
# The demo at rest, the job of this shell that it is, and its daemon.
demo_pid=
shell_pid=
idle_pid=
scratch=
set_up_here=

# It ends its daemon itself, and clears away.
end_demo() {
    [ -n "$demo_pid" ] || return 0
    kill -s TERM "$demo_pid" 2>/dev/null || true
    wait "$shell_pid" 2>/dev/null || true
    demo_pid=
}

# Called on every way out.
finish() {
    result=$?
    trap '' EXIT HUP INT TERM
    end_demo
    [ -z "$scratch" ] || rm -rf "$scratch"
    if [ -n "$set_up_here" ]; then
        set +e
        stop_private
    fi
    exit "$result"
}

# line FIGURE TARGET MEASURED [met|missed]
line() {
    [ "${4:-}" != missed ] || missed=1
    printf '%-40s %-14s %-22s %s\n' "$1" "$2" "$3" "${4:-}"
}

# at_most VALUE LIMIT
at_most() {
    if awk -v value="$1" -v limit="$2" 'BEGIN { exit !(value <= limit) }'; then echo met; else echo missed; fi
}

# The socket and image to use, in the variables that tests take them from.
place() {
    if [ -z "${LXDRUNNER_TEST_LXD_SOCKET:-}" ] || [ -z "${LXDRUNNER_TEST_IMAGE:-}" ]; then
        set_up_build
        set_up_lxd
        set_up_here=1
        trap finish EXIT
    fi
    socket=$LXDRUNNER_TEST_LXD_SOCKET
}

static_binary() {
    binary=${LXDRUNNER_BIN:-}
    if [ -z "$binary" ]; then
        "$top/provision/build-static.sh" >"$scratch/build" || die "the static build failed (see above)"
        binary=$(sed -n 's/: [0-9.]* MB, static$//p' "$scratch/build")
    fi
    [ -x "$binary" ] || die "there is no binary $binary; unset LXDRUNNER_BIN to build one"
    [ -z "$(ldd "$binary" 2>/dev/null | grep '=>' || true)" ] ||
        say "$binary is not static: its memory is more than the static one's"
}

size() {
    bytes=$(wc -c <"$binary")
    line "size of the binary" "4.5 MB" "$(awk -v b="$bytes" 'BEGIN { printf "%.2f MB", b / 1e6 }') ($bytes)" \
        "$(at_most "$bytes" 4500000)"
}

# Wake-ups of all its threads since it began: each time that one had slept and went on.
wake_ups() {
    awk '/^voluntary_ctxt_switches/ { sum += $2 } END { print sum }' "/proc/$idle_pid/task/"*/status
}

# Clock ticks that it was busy. The name in the second field has no space.
ticks() {
    awk '{ print $14 + $15 }' "/proc/$idle_pid/stat"
}

# kilobytes KEY: of its memory.
kilobytes() {
    awk -v key="$1:" '$1 == key { print $2 }' "/proc/$idle_pid/status"
}

idle() {
    # Not $!: that is a shell's, or sudo's.
    : >"$scratch/idle"
    # shellcheck disable=SC2016
    with_socket sh -c 'echo "$$" >"$0"; exec "$@"' "$scratch/pid" "$demo" --daemon "$binary" --idle $((settle + watch + 20)) \
        --socket "$socket" --image "$LXDRUNNER_TEST_IMAGE" >"$scratch/idle" 2>&1 9>&- &
    shell_pid=$!
    tries=0
    while [ -z "$idle_pid" ]; do
        idle_pid=$(sed -n 's/^The daemon (process \([0-9]*\)).*/\1/p' "$scratch/idle")
        tries=$((tries + 1))
        [ ! -s "$scratch/pid" ] || demo_pid=$(cat "$scratch/pid")
        if [ "$tries" -ge 300 ] || ! kill -0 "$shell_pid" 2>/dev/null; then
            cat "$scratch/idle" >&2
            die "the daemon does not come up (see above)"
        fi
        sleep 0.2
    done
    say "the daemon rests for $((settle + watch)) seconds"
    sleep "$settle"
    rss=$(kilobytes VmRSS)
    anonymous=$(kilobytes RssAnon)
    threads=$(awk '$1 == "Threads:" { print $2 }' "/proc/$idle_pid/status")
    woken=$(wake_ups)
    busy=$(ticks)
    sleep "$watch"
    woken=$(($(wake_ups) - woken))
    busy=$(($(ticks) - busy))
    per_second=$(awk -v n="$woken" -v s="$watch" 'BEGIN { printf "%.2f", n / s }')
    megabytes() { awk -v kb="$1" 'BEGIN { printf "%.2f", kb * 1024 / 1e6 }'; }
    line "daemon at rest: memory (VmRSS)" "5 MB" "$(megabytes "$rss") MB" "$(at_most "$(megabytes "$rss")" 5)"
    line "daemon at rest: of it its own (RssAnon)" "" "$(megabytes "$anonymous") MB"
    line "daemon at rest: wake-ups" "1 a second" "$per_second a second" "$(at_most "$per_second" 1)"
    line "daemon at rest: processor time" "" \
        "$(awk -v t="$busy" -v hz="$(getconf CLK_TCK)" -v s="$watch" 'BEGIN { printf "%.2f s in %d s", t / hz, s }')"
    line "daemon at rest: threads" "" "$threads"
    end_demo
}

demo() {
    say "the demo, $rounds rounds"
    if ! with_socket "$demo" --daemon "$binary" --rounds "$rounds" --socket "$socket" --image "$LXDRUNNER_TEST_IMAGE" \
        >"$scratch/demo" 2>&1 9>&-; then
        cat "$scratch/demo" >&2
        die "the demo failed (see above)"
    fi
    median() { sed -n "s/^  $1  *//p" "$scratch/demo"; }
    line "webhook to runner process, median of $rounds" "" "$(median 'runner process runs')"
    line "webhook to all gone, median of $rounds" "" "$(median 'all gone')"
}

tests() {
    say "the tests"
    (cd "$top" && cargo test --locked --no-run --quiet 9>&-) || die "the build of the tests failed (see above)"
    began=$(date +%s)
    if ! (cd "$top" && with_socket cargo test --locked >"$scratch/tests" 2>&1 9>&-); then
        grep -E '^test .* FAILED|panicked at|^test result: FAILED' "$scratch/tests" >&2 || tail -n 20 "$scratch/tests" >&2
        line "tests" "all pass" "see above" missed
        return
    fi
    passed=$(awk '/^test result:/ { sum += $4 } END { print sum }' "$scratch/tests")
    line "tests, real LXD included" "all pass" "$passed in $(($(date +%s) - began)) s" met
}

inputs() {
    say "bad inputs"
    if ! (cd "$top" && with_socket cargo test --locked --test bad_inputs -- --nocapture >"$scratch/inputs" 2>&1 9>&-); then
        tail -n 40 "$scratch/inputs" >&2
        line "bad inputs" "a clear answer" "see above" missed
        return
    fi
    rows=$(grep -c '^| ' "$scratch/inputs" || true)
    line "bad inputs" "a clear answer" "$rows, each got one" "$(if [ "$rows" -gt 0 ]; then echo met; else echo missed; fi)"
}

case ${1:-} in
-h | --help)
    usage
    exit 0
    ;;
esac
[ $# -gt 0 ] || set -- size idle demo tests inputs
for part in "$@"; do
    case $part in
    size | idle | demo | tests | inputs) ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
done

trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
scratch=$(mktemp -d)
case " $* " in
*' idle '* | *' demo '* | *' tests '*) place ;;
*) socket=/dev/null ;;
esac
case " $* " in
*' size '* | *' idle '* | *' demo '*) static_binary ;;
esac
case " $* " in
*' idle '* | *' demo '*) build_demo ;;
esac
line FIGURE TARGET MEASURED
for part in "$@"; do
    case $part in
    size) size ;;
    idle) idle ;;
    demo) demo ;;
    tests) tests ;;
    inputs) inputs ;;
    esac
done
if [ -s "$scratch/inputs" ]; then
    printf '\n| of | input | what it got |\n|---|---|---|\n'
    grep '^| ' "$scratch/inputs" || true
fi
[ "$missed" = 0 ]
