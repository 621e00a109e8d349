#!/bin/sh
# Starts the runner inside the instance, lets it take one job, and powers the instance off. Runs as root.
#
# start-runner.sh      starts the runner in the background and returns; exit code 0 means started
# start-runner.sh run  is that background part; it ends with the instance
#
# The secret lies in /run/lxdrunner/secret and is removed before the runner starts. It travels only in memory
# and in the runner's own environment: never in an argument, a unit's properties or a file on disk.
#
# Environment: LXDRUNNER_REGISTRATION   jit (the secret is a just-in-time configuration) or
#                                       token (the secret is a registration token)
#              LXDRUNNER_NAME           name to register under         (token)
#              LXDRUNNER_URL            what to register with          (token)
#              LXDRUNNER_LABELS         comma separated                (token)
#              LXDRUNNER_GROUP          runner group, may be empty     (token)
set -u

runner=/opt/lxdrunner/runner
secret_file=/run/lxdrunner/secret
started=/run/lxdrunner/started
log=/var/log/lxdrunner-runner.log
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

say() {
    read -r up _ </proc/uptime
    echo "lxdrunner-start: $up $*"
}

# ---- in the foreground ----

refuse() {
    say "FAILED: $*" >&2
    exit 1
}

start() {
    case ${LXDRUNNER_REGISTRATION:-} in
    jit) ;;
    token)
        if [ -z "${LXDRUNNER_URL:-}" ] || [ -z "${LXDRUNNER_NAME:-}" ]; then refuse "a token needs LXDRUNNER_URL and LXDRUNNER_NAME"; fi
        ;;
    *) refuse "LXDRUNNER_REGISTRATION is '${LXDRUNNER_REGISTRATION:-}', not jit or token" ;;
    esac
    # Whoever asks twice, for instance because the first answer got lost, gets one runner.
    if [ -d "$started" ]; then
        say "started already"
        exit 0
    fi
    [ -s "$secret_file" ] || refuse "no secret in $secret_file"
    [ -x "$runner/run.sh" ] || refuse "no $runner/run.sh; the set-up did not end well, see /var/log/lxdrunner-setup.log"

    mkdir "$started" || refuse "cannot make $started (see above)"

    # As a unit the runner gets a scope of its own, with limits that suit a job: all the tasks it likes, and
    # the death of one process for want of memory is not the death of all. Should this script be killed,
    # systemd powers off in its place.
    if [ -d /run/systemd/system ] && systemd-run --quiet --collect --no-ask-password \
        --unit=lxdrunner-runner --description='GitHub Actions runner' \
        --property=TasksMax=infinity --property=LimitNOFILE=1048576 --property=OOMPolicy=continue \
        --property=SuccessAction=poweroff-immediate --property=FailureAction=poweroff-immediate \
        --setenv=LXDRUNNER_REGISTRATION="$LXDRUNNER_REGISTRATION" \
        --setenv=LXDRUNNER_NAME="${LXDRUNNER_NAME:-}" --setenv=LXDRUNNER_URL="${LXDRUNNER_URL:-}" \
        --setenv=LXDRUNNER_LABELS="${LXDRUNNER_LABELS:-}" --setenv=LXDRUNNER_GROUP="${LXDRUNNER_GROUP:-}" \
        "$0" run; then
        return
    fi
    if command -v setsid >/dev/null; then
        setsid "$0" run </dev/null >/dev/null 2>&1 &
    else
        nohup "$0" run </dev/null >/dev/null 2>&1 &
    fi
}

# ---- in the background ----

# The instance is thrown away, so the quickest way is the best: nothing is synced or stopped first.
power_off() {
    trap '' EXIT HUP INT TERM
    say "powering off"
    poweroff -ff
    poweroff -f
    systemctl poweroff -ff
    halt -f -p
    busybox poweroff -f
    echo o >/proc/sysrq-trigger
    kill -s INT 1
    exit 1
}

fail() {
    say "FAILED: $*"
    exit 1
}

# as_runner COMMAND: as the unprivileged user, with this environment. setpriv becomes the command; the others,
# for where it is missing (or is BusyBox's, which cannot change the user), stay beside it.
as_runner() {
    group=$(id -g runner)
    if setpriv --reuid=runner --regid="$group" --init-groups true 2>/dev/null; then
        setpriv --reuid=runner --regid="$group" --init-groups /bin/sh -c "$1"
    elif command -v runuser >/dev/null; then
        runuser -u runner -- /bin/sh -c "$1"
    else
        su -s /bin/sh runner -c "$1"
    fi
}

# What an image sets for everybody, proxies for instance; a login would read it.
read_environment() {
    [ -r /etc/environment ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        line=${line#export }
        name=${line%%=*}
        case $name in
        "$line" | '' | [0-9]* | *[!A-Za-z0-9_]*) continue ;;
        secret | secret_file | runner | registration | log) continue ;;
        esac
        value=${line#*=}
        case $value in
        \"*\") value=${value#\"} value=${value%\"} ;;
        \'*\') value=${value#\'} value=${value%\'} ;;
        esac
        export "$name=$value"
    done </etc/environment
}

register() {
    export ACTIONS_RUNNER_INPUT_TOKEN="$secret"
    say "registering $LXDRUNNER_NAME with $LXDRUNNER_URL"
    # Expanded by the shell that as_runner starts.
    # shellcheck disable=SC2016
    as_runner 'exec ./config.sh --unattended --ephemeral --disableupdate \
        --url "$LXDRUNNER_URL" --name "$LXDRUNNER_NAME" \
        ${LXDRUNNER_LABELS:+--labels "$LXDRUNNER_LABELS"} ${LXDRUNNER_GROUP:+--runnergroup "$LXDRUNNER_GROUP"}' ||
        fail "config.sh could not register $LXDRUNNER_NAME with $LXDRUNNER_URL (exit code $?, see above)"
    unset ACTIONS_RUNNER_INPUT_TOKEN
}

run() {
    trap power_off EXIT
    trap 'exit 1' HUP INT TERM
    umask 022
    exec </dev/null >>"$log" 2>&1
    registration=${LXDRUNNER_REGISTRATION:-}
    secret=$(cat "$secret_file")
    rm -f "$secret_file"
    [ -n "$secret" ] || fail "no secret in $secret_file"

    # A job sees what a login of `runner` would, and nothing of ours.
    unset LXDRUNNER_REGISTRATION INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID \
        MEMORY_PRESSURE_WATCH MEMORY_PRESSURE_WRITE
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    read_environment
    HOME=~runner USER=runner LOGNAME=runner SHELL=/bin/bash
    [ -x "$SHELL" ] || SHELL=/bin/sh
    export PATH HOME USER LOGNAME SHELL
    cd "$runner" || fail "no $runner"
    unset OLDPWD

    case $registration in
    jit) ;;
    token) register ;;
    *) fail "LXDRUNNER_REGISTRATION is '$registration', not jit or token" ;;
    esac
    unset LXDRUNNER_NAME LXDRUNNER_URL LXDRUNNER_LABELS LXDRUNNER_GROUP
    # The runner takes such variables for arguments and drops them before it starts a job.
    [ "$registration" != jit ] || export ACTIONS_RUNNER_INPUT_JITCONFIG="$secret"
    say "starting the runner"
    as_runner 'exec ./run.sh'
    say "the runner ended (exit code $?)"
}

case ${1:-} in
'') start ;;
run) run ;;
*) refuse "unknown argument '$1': none, or run" ;;
esac
