#!/bin/sh
# Prints figures of the webhook port under load and attack, beside the targets. Ends with 1 if one is missed.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=provision/lib.sh
. "$top/provision/lib.sh"

# Seconds of one measurement of throughput, how often each is repeated, and seconds of an attack.
seconds=5
rounds=3
attack=60

usage() {
    cat <<TXT
usage: tests/front_door.sh [--short] [speed] [slow] [forged] [descriptors] [restarts] [large]

Loads the daemon's webhook port and prints figures beside their targets; without an argument all of them:

  speed        signed deliveries of 12 to 25 KB a second: kept connections, new ones, new TLS ones
  slow         1,000 slow connections (slowhttptest) beside real deliveries
  forged       5,000 deliveries a second with a bad signature beside real ones
  descriptors  no file descriptors are left for ten seconds
  restarts     50 restarts while deliveries go on through a held socket
  large        the static binary: its size, its memory at rest, and while 60 connections send bodies of 25 MB with a bad
               signature

  --short            a tenth of the time
  LXDRUNNER_BIN=FILE measures this binary, and the examples beside it, instead of building them
TXT
}

missed=0
scratch=
pids=

finish() {
    result=$?
    trap '' EXIT HUP INT TERM
    end_all
    [ -z "$scratch" ] || rm -rf "$scratch"
    exit "$result"
}

end_all() {
    for pid in $pids; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    pids=
}

# figure NAME TARGET MEASURED MET: a row of the table; MET is an awk condition.
figure() {
    if awk "BEGIN { exit !($4) }"; then
        verdict=met
    else
        verdict=MISSED
        missed=1
    fi
    printf '| %s | %s | %s | %s |\n' "$1" "$2" "$3" "$verdict"
}

# value KEY <TEXT: of KEY=VALUE words.
value() {
    tr ' ' '\n' | sed -n "s/^$1=//p" | tail -n 1
}

median() {
    sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

kilobytes() {
    awk -v key="$1:" '$1 == key { print $2 }' "/proc/$daemon/status"
}

# start TLS: the daemon; its LXD and its GitHub are away.
start() {
    end_all
    : >"$scratch/log"
    cat >"$scratch/config.yml" <<YML
pat: x
hooksecret: $secret
github_api: http://127.0.0.1:9
targets: [{org: acme}]
socket: $scratch/none
web_host: 127.0.0.1
web_port: $port
web_tls: $1
cache_home: $scratch/cache
runnermap:
  - {name: one, labels: [self-hosted], image: x}
YML
    chmod 600 "$scratch/config.yml"
    # As many file descriptors as a service has where nobody says otherwise.
    prlimit --nofile=1024: "$binary" serve -c "$scratch/config.yml" 2>"$scratch/log" &
    daemon=$!
    pids=$daemon
    tries=0
    until grep -q 'lxdrunner is up' "$scratch/log"; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ] || ! kill -0 "$daemon" 2>/dev/null; then
            cat "$scratch/log" >&2
            die "the daemon does not come up (see above)"
        fi
        sleep 0.1
    done
}

with_wrk() {
    wrk -t2 -c32 "-d$seconds" -s "$scratch/$1.lua" "http://127.0.0.1:$port/hooks/lxdrunner" | value rate
}

with_load() {
    # shellcheck disable=SC2086
    "$examples/load" most "127.0.0.1:$port" "$secret" "$seconds" $1 | value rate
}

# rate NAME TARGET COMMAND ARGUMENT: the median of the daemon's rates.
rate() {
    : >"$scratch/rates"
    n=0
    while [ "$n" -lt "$rounds" ]; do
        n=$((n + 1))
        "$3" "$4" >>"$scratch/rates"
    done
    median=$(median <"$scratch/rates")
    figure "$1, a second" "≥ $2" "$median" "$median >= $2"
}

# memory WHEN: what the daemon took at most, and takes now.
memory() {
    sleep 2
    peak=$(kilobytes VmHWM)
    now=$(kilobytes VmRSS)
    measured=$(awk -v a="$peak" -v b="$now" 'BEGIN { printf "%.1f MB, then %.1f MB", a * 1024 / 1e6, b * 1024 / 1e6 }')
    figure "memory: $1" "≤ 24 MB, then ≤ 12 MB" "$measured" "$peak * 1024 <= 24e6 && $now * 1024 <= 12e6"
}

speed() {
    need wrk
    start false
    "$examples/load" script "$secret" "$scratch/kept.lua"
    "$examples/load" script "$secret" "$scratch/new.lua" close
    rate "kept connections (wrk)" 3000 with_wrk kept
    rate "a new connection each" 3000 with_load ""
    memory "kept and new connections"
    start true
    rate "a new TLS connection each" 800 with_load tls
    memory "TLS connections"
}

# beside NAME: real deliveries, 50 a second, for as long as the attack lasts.
beside() {
    "$examples/load" rate "127.0.0.1:$port" "$secret" "$attack" 50 >"$scratch/real"
    p99=$(value p99_ms <"$scratch/real")
    failed=$(value failed <"$scratch/real")
    figure "$1: real deliveries' p99" "≤ 50 ms, none refused" "$p99 ms, $failed of $(value count <"$scratch/real") refused" \
        "$p99 <= 50 && $failed == 0"
}

slow() {
    need slowhttptest
    start false
    for kind in '-H -t GET' '-B -t POST -s 20000'; do
        # shellcheck disable=SC2086
        slowhttptest -c 500 $kind -i 5 -r 250 -x 10 -p 3 -l "$attack" \
            -u "http://127.0.0.1:$port/hooks/lxdrunner" >/dev/null 2>&1 &
        pids="$pids $!"
    done
    sleep 2
    beside "1,000 slow connections for $attack s"
    memory "slow connections"
}

forged() {
    start false
    "$examples/load" forged "127.0.0.1:$port" "another secret" "$attack" 5000 >"$scratch/forged" &
    flood=$!
    beside "5,000 bad signatures a second for $attack s"
    wait "$flood"
    rate=$(value rate <"$scratch/forged")
    figure "bad signatures that were answered, a second" "≥ 4900" "$rate" "$rate >= 4900"
    lines=$(grep -c delivery_refused "$scratch/log" || true)
    figure "lines of the log that they made" "≤ 1 a second" "$lines in $attack s" "$lines <= $attack + 2"
    memory "bad signatures"
}

# The binary that is released: another libc keeps more of what was freed.
static_binary() {
    [ -z "${LXDRUNNER_BIN:-}" ] || return 0
    "$top/provision/build-static.sh" >"$scratch/build" || die "the static build failed (see above)"
    binary=$(sed -n 's/: [0-9.]* MB, static$//p' "$scratch/build")
}

large() {
    static_binary
    size=$(wc -c <"$binary")
    figure "the static binary" "≤ 6 MB" "$(awk -v a="$size" 'BEGIN { printf "%.1f MB", a / 1e6 }')" "$size <= 6e6"
    start false
    sleep 2
    rest=$(kilobytes VmRSS)
    figure "memory at rest" "≤ 6 MB" "$(awk -v a="$rest" 'BEGIN { printf "%.1f MB", a * 1024 / 1e6 }')" \
        "$rest * 1024 <= 6e6"
    for kind in '' chunked; do
        start false
        # shellcheck disable=SC2086
        "$examples/load" large "127.0.0.1:$port" "$((attack / 6))" 60 $kind >"$scratch/large"
        peak=$(kilobytes VmHWM)
        measured=$(awk -v a="$peak" 'BEGIN { printf "%.1f MB", a * 1024 / 1e6 }')
        figure "memory: 60 connections of 25 MB bodies${kind:+, $kind} ($(cat "$scratch/large"))" "≤ 32 MB" \
            "$measured" "$peak * 1024 <= 32e6"
    done
}

descriptors() {
    start false
    "$examples/load" rate "127.0.0.1:$port" "$secret" 14 20 >"$scratch/real" &
    real=$!
    sleep 1
    prlimit --pid "$daemon" --nofile=1:
    sleep 10
    prlimit --pid "$daemon" --nofile=1024:
    "$examples/load" rate "127.0.0.1:$port" "$secret" 1 10 >"$scratch/after"
    wait "$real"
    after=$(value max_ms <"$scratch/after")
    failed=$(cat "$scratch/real" "$scratch/after" | sed -n 's/.*failed=\([0-9]*\).*/\1/p' | awk '{ n += $1 } END { print n }')
    figure "no file descriptors for 10 s: serves again" "within 1 s, nothing lost" "$after ms at most, $failed lost" \
        "$after <= 1000 && $failed == 0"
    said=$(grep -c accept_failed "$scratch/log" || true)
    figure "lines of the log that it made" "1" "$said" "$said == 1"
}

restarts() {
    start false
    end_all
    "$examples/load" restarts "127.0.0.1:$port" "$secret" 50 "$binary" "$scratch/config.yml" >"$scratch/restarts"
    count=$(value count <"$scratch/restarts")
    failed=$(value failed <"$scratch/restarts")
    figure "50 restarts with the socket held" "≥ 10000 deliveries, 0 refused" "$count, $failed refused" \
        "$count >= 10000 && $failed == 0"
}

parts=
for word in "$@"; do
    case $word in
    -h | --help)
        usage
        exit 0
        ;;
    --short)
        seconds=2
        rounds=1
        attack=6
        ;;
    speed | slow | forged | descriptors | restarts | large) parts="$parts $word" ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
done

check_system
check_build_tools
binary=${LXDRUNNER_BIN:-}
if [ -z "$binary" ]; then
    (cd "$top" && cargo build --release --locked --bins --examples) || die "the build failed (see above)"
    binary=${CARGO_TARGET_DIR:-$top/target}/release/lxdrunner
fi
examples=$(dirname "$binary")/examples
[ -x "$examples/load" ] || die "there is no $examples/load; unset LXDRUNNER_BIN to build it"
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
scratch=$(mktemp -d)
secret=0123456789abcdef0123456789abcdef
port=5971
printf '| figure | target | measured | |\n|---|---|---|---|\n'
# shellcheck disable=SC2086
for part in ${parts:-speed slow forged descriptors restarts large}; do
    "$part"
done
[ "$missed" = 0 ]
