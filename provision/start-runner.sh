#!/bin/sh
# Starts the runner inside the instance, lets it take one job, and powers the instance off. Runs as root.
#
# start-runner.sh arm    waits for the boot's end and the network, and starts in the background a part that has
#                        everything ready but the credentials and waits for these; exit code 0 means that it waits, 113
#                        (also of await and trust) that there is no network, or no way to GitHub
# start-runner.sh await  only waits for cloud-init's end and the network; for set-up scripts
# start-runner.sh trust  waits like await, and has the system trust the authorities in /opt/lxdrunner/authorities.pem; for set-up scripts
# start-runner.sh calm   keeps what updates packages by itself from running
# start-runner.sh settle waits until everything that boots has started, and makes the instance ready to be frozen
# start-runner.sh run    is that background part; it ends with the instance (arguments: how to change the user, and the
#                        ids of its group and itself)
#
# The credentials are one file, /run/lxdrunner/credentials, which `arm` makes, empty and in memory. It is taken
# once its last line is `end`, and emptied before the runner starts. Its other lines are a name, a blank and a
# value each:
#
#   kind      jit (the secret is a just-in-time configuration) or token (it is a registration token)
#   name      to register under          (token)
#   url       what to register with      (token)
#   labels    comma separated            (token)
#   group     runner group, may be empty (token)
#   secret    the secret
#
# The secret travels only in memory and in the runner's own environment: never in an argument, a unit's
# properties or a file on disk.
#
# Environment: LXDRUNNER_WAIT_FOR, units that `arm` waits for.
#              LXDRUNNER_SETUP_TIMEOUT, seconds that all waiting of `arm`, `await` or `settle` may take (default 240).
#              LXDRUNNER_GITHUB, SCHEME://HOST:PORT of GitHub's API: `arm` and `await` fail where it cannot be reached,
#              `run` says so in its log.
set -u

PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
# bash can wait a moment without starting a process for it. The runner needs it anyway, so it is in memory then.
if [ -z "${BASH_VERSION:-}" ] && [ -x /bin/bash ]; then exec /bin/bash "$0" "$@"; fi

base=/opt/lxdrunner
runner=$base/runner
place=/run/lxdrunner
credentials=$place/credentials
ready=$place/ready
watchdogs_off=$place/watchdogs-off
log=/var/log/lxdrunner-runner.log
newline='
'
# shellcheck source-path=SCRIPTDIR source=environment.sh disable=SC1091
. "$base/environment.sh"

say() {
    read -r up _ </proc/uptime
    echo "lxdrunner-start: $up $*"
}

refuse() {
    say "FAILED: $*"
    exit 1
}

no_network() {
    say "FAILED: $*"
    exit 113
}

# ---- waiting ----

# A pipe that nobody writes to: reading it with a time limit is a sleep that starts no process. The second function
# reads a file whole.
if [ -n "${BASH_VERSION:-}" ] && eval 'exec 9<> <(:)' 2>/dev/null; then
    # shellcheck disable=SC3045
    nap() { read -r -t "${1:-0.005}" -u 9 _ || return 0; }
    # shellcheck disable=SC3045
    read_document() { IFS= read -r -d '' document <"$1" || return 0; }
else
    nap() { sleep "${1:-0.01}" 2>/dev/null || sleep 1; }
    read_document() { document=$(cat "$1"); }
fi

# Seconds since boot, whole, without starting a process.
uptime_seconds() {
    read -r now _ </proc/uptime
    now=${now%%.*}
}

set_deadline() {
    timeout=${LXDRUNNER_SETUP_TIMEOUT:-240}
    uptime_seconds
    deadline=$((now + timeout))
}

# wait_until CONDITION…: polls, because neither a route nor cloud-init's end is an event that sh can wait
# for; seldom once it takes long, as on a host without network. Fails when the deadline has passed.
wait_until() {
    while ! "$@"; do
        uptime_seconds
        [ "$now" -lt "$deadline" ] || return 1
        if [ $((now + timeout - deadline)) -lt 5 ]; then nap; else nap 0.1; fi
    done
}

has_default_route() {
    while read -r device destination _ flags _; do
        [ "$destination" = 00000000 ] && [ "$((0x$flags & 1))" = 1 ] && [ "$device" != lo ] && return 0
    done </proc/net/route
    [ -r /proc/net/ipv6_route ] || return 1
    while read -r destination length _ _ _ _ _ _ _ device; do
        [ "$destination/$length" = 00000000000000000000000000000000/00 ] && [ "$device" != lo ] && return 0
    done </proc/net/ipv6_route
    return 1
}

names_a_server() {
    [ -r "$1" ] || return 1
    while read -r word address _; do
        if [ "$word" = nameserver ] && [ -n "$address" ]; then return 0; fi
    done <"$1"
    return 1
}

# systemd-resolved's stub answers before it knows a server; the file it keeps for others tells when it does.
has_resolver() {
    names_a_server /etc/resolv.conf || return 1
    case $address in
    127.0.0.53) [ ! -e /run/systemd/resolve ] || names_a_server /run/systemd/resolve/resolv.conf ;;
    esac
}

has_network() {
    has_default_route && has_resolver
}

has_any_route() {
    while read -r device _ _ flags _; do
        case $device in
        lo | Iface) ;;
        *) [ "$((0x$flags & 1))" = 0 ] || return 0 ;;
        esac
    done </proc/net/route
    [ -r /proc/net/ipv6_route ] || return 1
    while read -r destination _ _ _ _ _ _ _ _ device; do
        case $device/$destination in
        lo/* | */fe80* | */ff*) ;;
        *) return 0 ;;
        esac
    done </proc/net/ipv6_route
    return 1
}

# Where everything goes through a proxy there may be neither a default route nor a resolver.
is_connected() {
    has_network || { [ -n "${https_proxy:-${HTTPS_PROXY:-${all_proxy:-${ALL_PROXY:-}}}}" ] && has_any_route; }
}

wait_for_network() {
    is_connected && return 0
    say "waiting for the network"
    wait_until is_connected && return 0
    has_default_route || no_network "no default route after $timeout s; look at the network of the instance's profiles (a nic with DHCP?)"
    no_network "/etc/resolv.conf names no server after $timeout s; look at the DNS of the instance's network"
}

# Fails, with the reason in $reason, where no connection comes about. A lost packet is sent again within the time.
reach() {
    if [ -z "$github" ] || [ -z "${BASH_VERSION:-}" ]; then return 0; fi
    find_peer
    words=/run/lxdrunner-reach.$$
    for attempt in 1 2; do
        # Of bash alone; nothing is started for it but one more shell.
        # shellcheck disable=SC3025
        (exec 3<>"/dev/tcp/${peer%:*}/${peer##*:}") 2>"$words" 9<&- &
        child=$!
        uptime_seconds
        until=$((now + 5))
        while kill -0 "$child" 2>/dev/null && [ "$now" -lt "$until" ]; do
            nap
            uptime_seconds
        done
        ! kill -9 "$child" 2>/dev/null || : >"$words"
        if wait "$child" 2>/dev/null; then
            rm -f "$words"
            return 0
        fi
        # What is refused now may be there in a moment, as the proxy of a host that boots.
        [ "$attempt" = 2 ] || [ ! -s "$words" ] || sleep 1
    done
    reason=$(cat "$words")
    rm -f "$words"
    reason=${reason%%"$newline"*}
    [ -n "$reason" ] || reason='no answer within 5 s, twice'
    reason="cannot connect to $peer from inside: ${reason##*: }. Docker and ufw on the host drop what instances send to \
others: for Docker run iptables -I DOCKER-USER -i BRIDGE -j ACCEPT and iptables -I DOCKER-USER -o BRIDGE -m conntrack \
--ctstate RELATED,ESTABLISHED -j ACCEPT; for ufw: ufw allow in on BRIDGE, ufw route allow in on BRIDGE and ufw route allow \
out on BRIDGE. Behind a proxy, set https_proxy in env"
    return 1
}

# The same in the background, not in the runner's first moments, for the log: what is kept frozen may have lost its way.
reach_beside() {
    [ -n "$github" ] || return 0
    (
        for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do nap; done
        reach || say "FAILED: $reason"
    ) &
}

# We may come so early that init has not yet mounted /run. systemd's socket is there once its unit generators
# have run, cloud-init's among them.
# shellcheck disable=SC2317
systemd_listens() {
    [ -S /run/systemd/private ]
}

is_systemd() {
    case $(readlink /proc/1/exe) in
    */systemd) ;;
    *) return 1 ;;
    esac
}

wait_for_systemd() {
    wait_until systemd_listens || refuse "systemd has not come up after $timeout s; see the instance's console log"
}

# What updates packages by itself holds their lock in the middle of a job. systemd never starts a unit that is masked before
# it reads it; one that it has read is stopped, with `again` also where it was masked earlier in this boot.
stop_updates() {
    [ -d /etc/systemd/system ] || return 0
    units=
    for unit in apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service unattended-upgrades.service \
        dnf-makecache.timer dnf-makecache.service dnf-automatic.timer dnf-automatic-install.timer dnf-automatic-download.timer; do
        if [ "${1:-}" != again ] && [ -L "/etc/systemd/system/$unit" ] || [ ! -e "/lib/systemd/system/$unit" ]; then continue; fi
        ln -sf /dev/null "/etc/systemd/system/$unit" && units="$units $unit"
    done
    # shellcheck disable=SC2086
    [ -z "$units" ] || ! systemd_listens || systemctl --no-block stop $units
}

cloud_init_ended() {
    [ -e /run/cloud-init/result.json ]
}

# Until cloud-init is through it may add users, install packages and hold their locks.
wait_for_cloud_init() {
    command -v cloud-init >/dev/null || return 0
    if [ -d /run/systemd/system ]; then
        # Its generator decides whether it is to run at all. `cloud-init status --wait` tells the end too, but
        # costs a start of Python and looks only four times a second.
        [ -e /run/cloud-init/enabled ] || return 0
        if ! cloud_init_ended; then
            say "waiting for cloud-init"
            wait_until cloud_init_ended || refuse "cloud-init has not ended after $timeout s; see 'cloud-init status --long' in the instance"
        fi
    else
        say "waiting for cloud-init"
        status=0
        timeout "$timeout" cloud-init status --wait >/dev/null 2>&1 || status=$?
        [ "$status" != 124 ] || refuse "cloud-init has not ended after $timeout s; see 'cloud-init status --long' in the instance"
    fi
    # One module that failed, the locale for instance, is an error to cloud-init but rarely to a job: what
    # matters here is that it has ended.
    if cloud_init_ended && ! grep -q '"errors": *\[\]' /run/cloud-init/result.json; then
        say "cloud-init ended with errors, going on all the same:"
        cat /run/cloud-init/result.json
    fi
}

await() {
    set_deadline
    if is_systemd; then wait_for_systemd; fi
    stop_updates again
    wait_for_cloud_init
    read_environment
    wait_for_network
    github=${LXDRUNNER_GITHUB:-}
    reach || no_network "$reason"
}

# ---- authorities ----

# trust: puts each certificate where the system looks for more of them; its tools take one certificate a file only.
trust() {
    await
    rebuild=update-ca-certificates
    for directory in /etc/pki/ca-trust/source/anchors /etc/pki/trust/anchors /usr/local/share/ca-certificates; do
        [ ! -d "$directory" ] || break
    done
    [ "$directory" != /etc/pki/ca-trust/source/anchors ] || rebuild=update-ca-trust
    mkdir -p "$directory" || refuse "cannot make $directory (see above)"
    rm -f "$directory"/lxdrunner-*.crt
    number=0
    while IFS= read -r line; do
        case $line in *BEGIN\ CERTIFICATE*) number=$((number + 1)) ;; esac
        printf '%s\n' "$line" >>"$directory/lxdrunner-$number.crt" || refuse "cannot write to $directory (see above)"
    done <"$base/authorities.pem"
    if command -v "$rebuild" >/dev/null; then
        "$rebuild" || refuse "$rebuild does not take the certificates of ca_file (see above)"
    else
        say "the image has no $rebuild: of ca_file only Node.js knows; put the package ca-certificates into the image"
    fi
}

# ---- in the foreground ----

# The place for the credentials. Only once init has mounted /run: it would be hidden, or on disk, before.
make_place() {
    # Whoever asks twice, for instance because the first answer got lost, gets one runner.
    if [ -d "$place/armed" ]; then
        say "armed already"
        return 1
    fi
    mkdir -p "$place"
    [ "$(stat -f -c %T "$place")" = tmpfs ] ||
        mount -t tmpfs -o size=1m,mode=0700,nosuid,nodev,noexec lxdrunner "$place" ||
        refuse "$place is on disk and a tmpfs cannot be mounted there: the secret would be written to disk"
    # LXD sets mode and owner of a file that is new to it after the content, and answers 404 where it was taken away by then.
    if ! chown 0:0 "$place" || ! chmod 0700 "$place" || ! true >"$credentials" || ! chmod 0600 "$credentials" || ! mkdir "$place/armed"; then
        refuse "cannot make $place (see above)"
    fi
}

# setpriv becomes the command; the others, for where it is missing (or is BusyBox's, which cannot change the
# user), stay beside it.
choose_switch() {
    group_id=$(id -g runner) || refuse "no user runner; the set-up did not end well, see /var/log/lxdrunner-setup.log"
    user_id=$(id -u runner)
    if setpriv --reuid=runner --regid="$group_id" --init-groups true 2>/dev/null; then
        switch=setpriv
    elif command -v runuser >/dev/null; then
        switch=runuser
    else
        switch=su
    fi
}

# As a unit the runner gets a scope of its own, with limits that suit a job: all the tasks it likes, and
# the death of one process for want of memory is not the death of all. Should this script be killed,
# systemd powers off in its place.
detach() {
    if [ -d /run/systemd/system ] && systemd-run --quiet --collect --no-ask-password --property=Delegate=yes \
        --unit=lxdrunner-runner --description='GitHub Actions runner' \
        --property=TasksMax=infinity --property=LimitNOFILE=1048576 --property=OOMPolicy=continue \
        --property=SuccessAction=poweroff-immediate --property=FailureAction=poweroff-immediate \
        "$0" run "$switch" "$group_id" "$user_id" "$github"; then
        return
    fi
    if command -v setsid >/dev/null; then
        setsid "$0" run "$switch" "$group_id" "$user_id" "$github" </dev/null >/dev/null 2>&1 9<&- &
    else
        nohup "$0" run "$switch" "$group_id" "$user_id" "$github" </dev/null >/dev/null 2>&1 9<&- &
    fi
}

# shellcheck disable=SC2317
is_ready() {
    [ -e "$ready" ]
}

arm() {
    set_deadline
    github=${LXDRUNNER_GITHUB:-}
    read_environment
    [ -x "$runner/run.sh" ] || refuse "no $runner/run.sh; the set-up did not end well, see /var/log/lxdrunner-setup.log"
    if is_systemd; then
        wait_for_systemd
        stop_updates
        # Before the background part, and while systemd is busy anyway: it answers to that once the boot is half over.
        choose_switch
        if make_place; then detach; fi
        wait_for_cloud_init
        wait_for_network
    else
        # Nothing tells when another init has mounted /run, but it does so before the network is up.
        wait_for_cloud_init
        wait_for_network
        choose_switch
        if make_place; then detach; fi
    fi
    reach || no_network "$reason"
    wait_for_units
    wait_until is_ready || refuse "the background part is not ready after $timeout s; see $log"
}

# shellcheck disable=SC2317
boot_ended() {
    # systemctl is a process each time.
    sleep 0.3 2>/dev/null || sleep 1
    case $(systemctl is-system-running 2>/dev/null) in
    initializing | starting) return 1 ;;
    esac
}

# The clock goes on while it is frozen: at the thaw systemd kills what is starting, or silent to its watchdog, for too long.
settle() {
    is_systemd || return 0
    set_deadline
    if ! wait_until boot_ended; then
        starting=$(systemctl --no-legend --no-pager list-jobs | sed -n 's/^ *[0-9]* *\([^ ]*\) .* running *$/\1/p' | tr '\n' ' ')
        refuse "the boot has not ended after $timeout s, and what is starting when it is frozen is killed at the thaw; still starting: ${starting:-nothing}"
    fi
    ! systemctl service-watchdogs no || : >"$watchdogs_off"
}

# Starting a unit waits where it is starting already, and does nothing where it has started. Each word is one.
# shellcheck disable=SC2086
wait_for_units() {
    units=${LXDRUNNER_WAIT_FOR:-}
    [ -n "$units" ] || return 0
    is_systemd || refuse "wait_for names units of systemd ($units), and this image has another init"
    uptime_seconds
    timeout "$((deadline > now ? deadline - now : 1))" systemctl start $units && return 0
    systemctl --no-pager --lines=5 status $units
    refuse "what wait_for names ($units) has not started within $timeout s (see above); correct wait_for, or the image"
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

# as_runner COMMAND: as the unprivileged user, with this environment.
as_runner() {
    case $switch in
    setpriv) setpriv --reuid=runner --regid="$group_id" --init-groups /bin/sh -c "$1" 9<&- ;;
    runuser) runuser -u runner -- /bin/sh -c "$1" 9<&- ;;
    su) su -s /bin/sh runner -c "$1" 9<&- ;;
    esac
}

# What the runner's first moments read from disk; it goes on beside us.
warm() {
    (
        cd "$runner" || exit
        for file in run.sh run-helper.sh.template run-helper.sh bin/Runner.Listener bin/Runner.*.dll bin/libhostfxr.so \
            bin/libhostpolicy.so bin/libcoreclr.so bin/libclrjit.so bin/System.Private.CoreLib.dll bin/System.Runtime.dll; do
            [ ! -r "$file" ] || cat "$file"
        done >/dev/null
    ) 9<&- &
}

# A document is whole when its last line is there.
take_credentials() {
    while :; do
        if [ -s "$credentials" ]; then
            read_document "$credentials"
            document=$newline${document%"$newline"}
            case $document in
            *"${newline}end") break ;;
            esac
        fi
        nap
    done
    # Emptied before the runner starts, without starting a process for it; and gone a moment later.
    : >"$credentials" || fail "cannot empty $credentials (see above)"
    rm -f "$credentials" 9<&- &
}

# field NAME: the value of a line of the document, in $value.
field() {
    value=${document#*"$newline$1 "}
    if [ "$value" = "$document" ]; then value=; fi
    value=${value%%"$newline"*}
}

register() {
    field name
    export LXDRUNNER_NAME="$value"
    field url
    export LXDRUNNER_URL="$value"
    field labels
    export LXDRUNNER_LABELS="$value"
    field group
    export LXDRUNNER_GROUP="$value"
    export ACTIONS_RUNNER_INPUT_TOKEN="$secret"
    say "registering $LXDRUNNER_NAME with $LXDRUNNER_URL"
    # Expanded by the shell that as_runner starts.
    # shellcheck disable=SC2016
    as_runner 'exec ./config.sh --unattended --ephemeral --disableupdate \
        --url "$LXDRUNNER_URL" --name "$LXDRUNNER_NAME" \
        ${LXDRUNNER_LABELS:+--labels "$LXDRUNNER_LABELS"} ${LXDRUNNER_GROUP:+--runnergroup "$LXDRUNNER_GROUP"}' ||
        fail "config.sh could not register $LXDRUNNER_NAME with $LXDRUNNER_URL (exit code $?, see above)"
    unset ACTIONS_RUNNER_INPUT_TOKEN LXDRUNNER_NAME LXDRUNNER_URL LXDRUNNER_LABELS LXDRUNNER_GROUP
}

# What the runner itself is told by its environment.
tell_the_runner() {
    if [ -r "$base/authorities.pem" ] && [ -z "${NODE_EXTRA_CA_CERTS:-}" ]; then
        # Node.js does not look where the system keeps its authorities.
        export NODE_EXTRA_CA_CERTS="$base/authorities.pem"
    fi
    [ ! -r "$base/job-started.sh" ] || export ACTIONS_RUNNER_HOOK_JOB_STARTED="$base/job-started.sh"
    [ ! -r "$base/job-completed.sh" ] || export ACTIONS_RUNNER_HOOK_JOB_COMPLETED="$base/job-completed.sh"
}

# The user's own systemd, which rootless Podman and `systemctl --user` need. It comes up while the runner does.
begin_session() {
    [ -d /run/systemd/system ] || return 0
    # Where the image has the PAM module (libpam-systemd), without which it does not start.
    for module in /usr/lib/*/security/pam_systemd.so /usr/lib64/security/pam_systemd.so /lib/security/pam_systemd.so; do
        [ ! -e "$module" ] || break
    done
    [ -e "$module" ] || return 0
    export XDG_RUNTIME_DIR="/run/user/$user_id" DBUS_SESSION_BUS_ADDRESS="unix:path=/run/user/$user_id/bus"
    systemctl --no-block start "user@$user_id.service" 9<&- &
}

run() {
    trap power_off EXIT
    trap 'exit 1' HUP INT TERM
    umask 022
    exec </dev/null >>"$log" 2>&1
    # A job sees what a login of `runner` would, and nothing of ours.
    unset LXDRUNNER_SETUP_TIMEOUT LXDRUNNER_WAIT_FOR LXDRUNNER_GITHUB LXDRUNNER_NAME LXDRUNNER_CLASS INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID \
        MEMORY_PRESSURE_WATCH MEMORY_PRESSURE_WRITE
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    cd "$runner" || fail "no $runner"
    warm
    : >"$ready" || fail "cannot write $ready"

    take_credentials
    read_environment
    # It may have been frozen for long since it was ready.
    # What ran out meanwhile is passed over soon after the thaw; a service's next sign of life sets its watchdog again.
    if [ -e "$watchdogs_off" ]; then (sleep 30 && systemctl service-watchdogs yes) 9<&- & fi
    # It was there before. Without it the runner tries again and again; if this script ended, the instance and its log would go.
    LXDRUNNER_SETUP_TIMEOUT=20
    set_deadline
    (wait_for_network)
    unset LXDRUNNER_SETUP_TIMEOUT
    HOME=~runner USER=runner LOGNAME=runner SHELL=/bin/bash
    [ -x "$SHELL" ] || SHELL=/bin/sh
    # As GitHub's machines have it; without one, what is not ASCII is cut to pieces by many tools.
    LANG=${LANG:-C.UTF-8}
    export PATH HOME USER LOGNAME SHELL LANG
    unset OLDPWD
    tell_the_runner
    begin_session

    field secret
    secret=$value
    [ -n "$secret" ] || fail "no secret in what was handed over"
    field kind
    kind=$value
    case $kind in
    # The runner takes such variables for arguments and drops them before it starts a job.
    jit) export ACTIONS_RUNNER_INPUT_JITCONFIG="$secret" ;;
    token) register ;;
    *) fail "the kind of what was handed over is '$kind', not jit or token" ;;
    esac
    document=
    # A version that GitHub refuses is told from other ends in the log; run.sh itself may hide it.
    export ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1
    reach_beside
    say "starting the runner"
    case $switch in
    setpriv) setpriv --reuid=runner --regid="$group_id" --init-groups ./run.sh 9<&- ;;
    *) as_runner 'exec ./run.sh' ;;
    esac
    say "the runner ended (exit code $?)"
}

case ${1:-} in
arm) arm </dev/null ;;
await) await </dev/null ;;
trust) trust </dev/null ;;
settle) settle </dev/null ;;
calm) stop_updates </dev/null ;;
run)
    switch=${2:?} group_id=${3:?} user_id=${4:?} github=${5:-}
    run
    ;;
*) refuse "unknown argument '${1:-}': arm, await, trust, calm, settle or run" ;;
esac
