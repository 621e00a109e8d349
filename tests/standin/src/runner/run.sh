#!/bin/sh
# The runner stand-in's entry: behaves as the real one's run.sh does where lxdrunner can tell.
# When the process began, by the clock that all on this host share: the stand-in is told with the first call. Who
# measures how fast a process can begin at all wants no more than that.
LXDRUNNER_STANDIN_BEGAN=$(date +%s%N)
export LXDRUNNER_STANDIN_BEGAN
if [ -n "${LXDRUNNER_STANDIN_ONLY_BEGIN:-}" ]; then
    echo "$LXDRUNNER_STANDIN_BEGAN"
    exit 0
fi

root=$(cd "$(dirname "$0")" && pwd) || exit 1

if [ "$(id -u)" -eq 0 ] && [ -z "${RUNNER_ALLOW_RUNASROOT:-}" ]; then
    echo "Must not run interactively with sudo"
    exit 1
fi

# The real one lets its helper be replaced by an update while it runs, and therefore runs a copy.
while :; do
    cp -f "$root/run-helper.sh.template" "$root/run-helper.sh" && chmod +x "$root/run-helper.sh" || exit 1
    "$root/run-helper.sh" "$@"
    code=$?
    if [ "$code" -eq 2 ]; then
        echo "Restarting runner..."
    else
        echo "Exiting runner..."
        exit "$code"
    fi
done
