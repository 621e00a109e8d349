#!/bin/sh
# Prints how fast jobs start and what the daemon costs, each beside its target and its floor; writes the same as JSON.
# Ends with 1 where a figure misses its target.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=provision/lib.sh
. "$top/provision/lib.sh"

usage() {
    cat <<TXT
usage: tests/bench.sh [plan] [snapshot] [calls] [memory] [cpu] [template] [standby] [image] [burst]

Without an argument all of them:

  plan      how long a decision takes with 10,000 jobs and 2,000 instances
  snapshot  how long a look at 2,000 instances takes
  calls     how many calls of LXD a job costs
  memory    of the daemon with 0, 100 and 500 running instances
  cpu       for an hour of 500 running instances (watched for two minutes)
  template  from webhook to runner, from a template     } on a real LXD, with a runner package of the real one's
  standby   the same from a standby                     } size, by turns with the bare API calls that it cannot
  image     the same from the image                     } do without
  burst     twenty at once

  LXDRUNNER_BIN=FILE                    measures this binary (a static one takes less memory)
  LXDRUNNER_BENCH_ROUNDS=N              rounds of each start (default: 11; image 5, burst 2)
  LXDRUNNER_BENCH_LOG=FILE              where the log of the daemon that was measured last is written
  LXDRUNNER_BENCH_JSON=FILE             where the figures are written (default: below target/)
  LXDRUNNER_TEST_LXD_SOCKET=SOCKET and
  LXDRUNNER_TEST_IMAGE=ALIAS            use this LXD and image; without them the LXD is found or set up
                                        as provision/try.sh does
TXT
}

case " $* " in
*' -h '* | *' --help '*)
    usage
    exit 0
    ;;
esac
real=
[ $# -gt 0 ] || real=1
for part in "$@"; do
    case $part in
    plan | snapshot | calls | memory | cpu) ;;
    template | standby | image | burst) real=1 ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
done

set_up_here=
before=
finish() {
    result=$?
    trap '' EXIT HUP INT TERM
    # Unquoted on purpose: one word a limit.
    # shellcheck disable=SC2086
    [ -z "$before" ] || sysctl -q -w $before
    [ -z "$set_up_here" ] || stop_private
    exit "$result"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# A daemon that logs every call spends its time on that.
LXDRUNNER_TEST_LOG=${LXDRUNNER_TEST_LOG:-info}
LXDRUNNER_TEST_TRACE=1
export LXDRUNNER_TEST_LOG LXDRUNNER_TEST_TRACE
if [ -n "$real" ] && { [ -z "${LXDRUNNER_TEST_LXD_SOCKET:-}" ] || [ -z "${LXDRUNNER_TEST_IMAGE:-}" ]; }; then
    set_up_build
    set_up_lxd
    set_up_here=1
    trap finish EXIT
    export LXDRUNNER_TEST_LXD_SOCKET LXDRUNNER_TEST_IMAGE
fi
# What with_socket looks at.
# shellcheck disable=SC2034
socket=${LXDRUNNER_TEST_LXD_SOCKET:-/dev/null}
# Twenty containers with systemd are more than the kernel's usual limits allow.
limits='fs.inotify.max_user_instances kernel.keys.maxkeys kernel.keys.maxbytes'
if [ -n "$real" ] && [ "$(id -u)" = 0 ] && [ "$(sysctl -n fs.inotify.max_user_instances)" -lt 1024 ]; then
    for limit in $limits; do
        before="$before $limit=$(sysctl -n "$limit")"
    done
    sysctl -q -w fs.inotify.max_user_instances=8192 kernel.keys.maxkeys=2000 kernel.keys.maxbytes=2000000
fi
cd "$top"
cargo bench --locked --quiet --bench bench --no-run || die "the bench does not build (see above)"
with_socket cargo bench --locked --quiet --bench bench -- "$@" 9>&-
