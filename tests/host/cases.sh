# What tests/host.sh plays. Every function begins and ends with a host that has its templates and nothing to do.
# shellcheck shell=bash

: "${top:?}" "${state:?}" "${events:?}" "${slow:?}"
cuts=0

short_form() {
    failed_set_up
    one_job
    cut 'job: webhook, 0.3 s later' job linux 'HookAnswered.*JobId\(JOB\), action: "queued"' 0.3
    cut 'job runs, 2 s later' job linux 'JobStarted.*JobId\(JOB\)' 2
    cut 'template: its instance starts' template ubuntu 'instance-started.*-template-' 0
}

long_form() {
    try_it
    socket_activation
    restart_and_upgrade
    stop_and_start
    lxd_restarts
    host_reboots
    github_away
    disk_full
    wrong_clock
    cuts_of_a_job_from_a_template
    cuts_of_a_job_from_the_image
    cuts_of_a_template
    cuts_of_a_standby
}

# ---- set up and uninstall, by README ----

set_up() {
    play "README: set up for real, check"
    # LXD 5.0 kills the process that has the pid of its network's last dnsmasq, which may be one of the next lines'.
    in_guest 'sudo lxd waitready --timeout 120' </dev/null
    in_guest 'mkdir -p lxdrunner/target/x86_64-unknown-linux-musl/release'
    tar -C "$top" -c provision | in_guest 'tar -x -C lxdrunner'
    in_guest 'cat >lxdrunner/target/x86_64-unknown-linux-musl/release/lxdrunner' <"$binary"
    config | in_guest 'cat >lxdrunner/config.yml'
    printf '%s\n' '#!/bin/sh' 'echo "this set-up fails"' 'exit 3' >"$state/broken.sh"
    in_guest 'sudo install -D -m 0755 /dev/stdin /etc/lxdrunner/broken.sh' <"$state/broken.sh"
    as_readme_says '**1. The binary.**' '/build-static/d' </dev/null
    echo standin-token | as_readme_says '**5. The service**' '/journalctl -f/d'
    within 200 "webhooks are made" hooked
    as_readme_says '**6. Check**' '' </dev/null
    local exposure
    exposure=$(in_guest 'systemd-analyze --no-pager security lxdrunner' </dev/null | awk '/Overall exposure/ { print $(NF - 2) }')
    awk "BEGIN { exit !($exposure <= 1.3) }" || fail "systemd-analyze security says $exposure, more than 1.3"
    within 600 "the template is baked" has_template ubuntu
    played "exposure $exposure"
}

config() {
    cat <<YAML
github_api: http://10.0.2.2:$github_port
webhook_url: http://127.0.0.1:$hook_port
YAML
    readme_block 'The smallest config' | sed 's/image: .*/image: lxdrunner-base/'
    echo '  - {name: broken, labels: [broken], image: lxdrunner-base, template: false, setup_script: broken.sh}'
    [ "$all" = no ] || cat <<YAML
  - {name: plain, labels: [plain], image: lxdrunner-base, template: false}
  - {name: warm, labels: [warm], image: lxdrunner-base, standby: 1}
YAML
}

hooked() {
    [ -n "$(order /hooks)" ]
}

take_away() {
    play "README: uninstall"
    local without=
    in_guest 'test -e /etc/systemd/system/lxdrunner.socket' </dev/null || without='/disable.*lxdrunner.socket/d'
    as_readme_says '**Uninstall**' "$without" </dev/null
    [ -z "$(instances)" ] || fail "instances are left: $(instances)"
    [ -z "$(order /hooks)" ] || fail "webhooks are left"
    [ -z "$(in_guest 'ls -d /etc/lxdrunner /var/cache/private/lxdrunner /etc/systemd/system/*/lxdrunner* 2>/dev/null' </dev/null)" ] ||
        fail "files are left"
    played
}

failed_set_up() {
    play "a set-up that fails"
    local job
    job=$(queue 1 broken)
    await 300 "job=$job .*instance=.*launch failed"
    order "/cancel?job=$job"
    within 60 "the failure is listed" in_guest "sudo lxdrunner failures | grep -q lxdrunner-$job" </dev/null
    in_guest "sudo lxdrunner failures \$(sudo lxdrunner failures | grep -om1 'lxdrunner-$job-[0-9]*') | grep -q 'this set-up fails'" </dev/null ||
        fail "lxdrunner failures does not show what the set-up said"
    within 120 "all is quiet" is_quiet
    never_died
    played
}

# never_died: systemd has not had to start it again.
never_died() {
    local restarts
    restarts=$(in_guest 'systemctl show -P NRestarts lxdrunner' </dev/null)
    [ "$restarts" = 0 ] || fail "the daemon ended by itself $restarts times"
}

# ---- what operators do ----

one_job() {
    play "a job"
    done_in 300 "$(queue 1 linux)"
    within 120 "all is quiet" is_quiet
    played
}

# done_in SECONDS JOB…: each succeeds.
done_in() {
    local job
    for job in "${@:2}"; do
        within "$1" "job $job is done" job_is "$job" completed
        job_is "$job" success || fail "job $job failed"
    done
}

# beside_a_job WHAT COMMAND…: which a running job does not notice, and a queued one outlives.
beside_a_job() {
    play "$1"
    local running queued
    running=$(queue 40 linux)
    await 300 "JobStarted.*JobId\($running\)"
    shift
    "$@"
    queued=$(queue 1 linux)
    done_in 400 "$running" "$queued"
    within 120 "all is quiet" is_quiet
    [ -z "$(jobs_that_ran_twice)" ] || fail "ran twice: $(jobs_that_ran_twice)"
    played
}

try_it() {
    play "README: see it work"
    "$top/provision/build-static.sh" demo
    in_guest 'cat >demo && chmod +x demo' <"$target/$(uname -m)-unknown-linux-musl/release/demo"
    in_guest 'cd lxdrunner && LXDRUNNER_DEMO=~/demo LXDRUNNER_BIN=/usr/local/bin/lxdrunner provision/try.sh' </dev/null || fail "try.sh failed (see above)"
    played
}

socket_activation() {
    play "socket activation"
    sed -n '/^#   install/,/^$/s/^#   /sudo /p' "$top/provision/lxdrunner.socket" | sed 's/&& /\&\& sudo /; s| lxdrunner.socket /etc| provision/lxdrunner.socket /etc|' |
        in_guest 'cd lxdrunner && bash -eu -s'
    in_guest 'systemctl is-active lxdrunner lxdrunner.socket' </dev/null >/dev/null || fail "service or socket does not run"
    done_in 300 "$(queue 1 linux)"
    within 120 "all is quiet" is_quiet
    played
}

restart_and_upgrade() {
    beside_a_job "restart" in_guest 'sudo systemctl restart lxdrunner' </dev/null
    in_guest 'cp lxdrunner/target/*/release/lxdrunner lxdrunner/lxdrunner'
    beside_a_job "README: upgrade" as_readme_says '**Upgrade**' '' </dev/null
}

stop_and_start() {
    beside_a_job "README: stop, with the socket; start" stop_then_start
}

stop_then_start() {
    local delivery
    in_guest "$(readme_inline 'systemctl stop lxdrunner.socket')" </dev/null
    delivery=$(queue 1 linux)
    await 60 "HookAnswered.*JobId\($delivery\), action: \"queued\""
    ! in_guest 'systemctl is-active lxdrunner' </dev/null >/dev/null || fail "a delivery started the service again"
    in_guest 'sudo systemctl start lxdrunner.socket lxdrunner' </dev/null
    done_in 300 "$delivery"
}

lxd_restarts() {
    beside_a_job "LXD restarts" in_guest 'sudo systemctl restart lxd' </dev/null
    never_died
}

host_reboots() {
    play "the host reboots"
    queue 300 linux >/dev/null
    await 300 'JobStarted'
    job=
    order /cut
    in_guest 'sudo systemctl reboot' </dev/null || true
    wait_off
    went_off
}

github_away() {
    play "GitHub away for 60 s"
    order /away
    local job
    job=$(queue 1 linux)
    sleep 60
    order /back
    done_in 400 "$job"
    within 200 "all is quiet" is_quiet
    never_died
    played
}

disk_full() {
    play "/var full"
    local job
    in_guest 'sudo dd if=/dev/zero of=/var/full bs=64k status=none 2>&1' </dev/null || true
    job=$(queue 1 linux)
    sleep 30
    in_guest 'df -h /var; sudo lxdrunner status; sudo rm -f /var/full' </dev/null >&2 || true
    done_in 400 "$job"
    within 200 "all is quiet" is_quiet
    played
}

wrong_clock() {
    play "the clock jumps ahead by a day and back while the daemon runs"
    local job
    in_guest 'sudo date -s "+1 day"' </dev/null >/dev/null
    job=$(queue 1 linux)
    done_in 400 "$job"
    in_guest 'sudo date -s "-1 day"' </dev/null >/dev/null
    job=$(queue 1 linux)
    done_in 400 "$job"
    within 300 "all is quiet" is_quiet
    played
    play "the clock is three years ahead at power-on"
    in_guest 'sudo systemctl poweroff' </dev/null || true
    wait_off
    boot "$(date -u -d '+3 years' +%FT%T)"
    within 200 "check names it" in_guest 'sudo lxdrunner check -c /etc/lxdrunner/config.yml | grep -q clock' </dev/null
    done_in 400 "$(queue 1 linux)"
    in_guest 'sudo systemctl poweroff' </dev/null || true
    wait_off
    boot
    within 600 "the template is there" has_template ubuntu
    done_in 400 "$(queue 1 linux)"
    within 300 "all is quiet" is_quiet
    played
}

# ---- power cuts ----

# cut PHASE KIND LABEL REGEX DELAY: a job is queued (or the template or the standby of the class LABEL is deleted, so that another is
# made); so many seconds after a line that fits REGEX, where JOB is the job's id, the power goes.
cut() {
    local regex=$4
    play "cut: $1"
    job=
    case $2 in
    job)
        job=$(queue 10 "$3")
        regex=${regex//JOB/$job}
        ;;
    template) delete_all "$(phase_is template) and .config[\"user.lxdrunner.class\"] == \"$3\"" ;;
    standby) delete_all "$(phase_is standby)" ;;
    esac
    await 400 "$regex"
    sleep "$5"
    power_cut
    order /cut
    cuts=$((cuts + 1))
    went_off
}

delete_all() {
    local name
    for name in $(instances "$1"); do in_guest "sudo lxc delete --force $name" </dev/null; done
}

# The host is off, cut or rebooted. It comes back, and within a minute nothing of the boot before is left; jobs are done,
# but for those that ran.
went_off() {
    local off_at other before launch gone
    off_at=$(date -u +%FT%T)
    job_is "${job:-none}" in_progress && job=
    other=$(queue 1 linux)
    mark
    boot
    await 400 'Started lxd.service'
    before=$SECONDS
    within 60 "nothing of the boot before is left" none_of_before "$off_at"
    gone=$((SECONDS - before))
    within $((60 * slow)) "a job is launched" launched "$off_at" "$other" "$job"
    launch=$(launch_delay "$off_at" "$other" "$job")
    awk "BEGIN { exit !($launch <= 5 * $slow) }" || fail "the first launch began $launch s after LXD's answer"
    order /lost
    done_in 400 "$other" ${job:+"$job"}
    # A registration that was made and not noted on its instance goes when it was offline for provision_timeout.
    within 480 "all is quiet" is_quiet
    within 600 "the templates are there" has_template ubuntu
    [ "$all" = no ] || within 600 "the standby is there" has_standby
    [ -z "$(jobs_that_ran_twice)" ] || fail "ran twice: $(jobs_that_ran_twice)"
    never_died
    played "launch $launch s after LXD's answer, all of before gone after $gone s"
}

none_of_before() {
    [ -z "$(instances "(.created_at < \"$1\") and ($(phase_is template) | not)")" ]
}

# launches TIME JOB…: when LXD began to make an instance for one of these jobs, after this time.
launches() {
    local since=$1 jobs
    shift
    printf -v jobs '"%s",' "$@"
    instances "(.created_at > \"$since\") and (.config[\"user.lxdrunner.job\"] | IN(${jobs%,}))" .created_at
}

launched() {
    [ -n "$(launches "$@")" ]
}

# launch_delay TIME JOB…: the seconds from LXD's answer to the first of the launches, by the host's clock; 0 where LXD
# answered before systemd called it started.
launch_delay() {
    local began answered
    began=$(launches "$@" | sort | head -n 1)
    answered=$(tail -n "+$((marked + 1))" "$events" | awk '/Started lxd.service/ { print $1; exit }')
    awk "BEGIN { delay = $(date -d "$began" +%s.%N) - $answered; printf \"%.1f\", delay < 0 ? 0 : delay }"
}

cuts_of_a_job_from_a_template() {
    cuts_of_a_job linux
}

cuts_of_a_job_from_the_image() {
    cuts_of_a_job plain
}

cuts_of_a_job() {
    local from="job ($1)"
    cut "$from: webhook" job "$1" 'HookAnswered.*JobId\(JOB\), action: "queued"' 0
    cut "$from: instance created" job "$1" 'instance-created.*-JOB-' 0
    cut "$from: instance started" job "$1" 'instance-started.*-JOB-' 0
    cut "$from: instance started, 4 s later" job "$1" 'instance-started.*-JOB-' 4
    cut "$from: runner registered" job "$1" 'Registered.*-JOB-' 0
    cut "$from: runner's session" job "$1" 'SessionOpened.*-JOB-' 0
    cut "$from: begins" job "$1" 'JobStarted.*JobId\(JOB\)' 0
    cut "$from: is over" job "$1" 'JobFinished.*JobId\(JOB\)' 0
    cut "$from: is over, 1 s later" job "$1" 'JobFinished.*JobId\(JOB\)' 1
    cut "$from: instance shut down" job "$1" 'instance-shutdown.*-JOB-' 0
    cut "$from: instance deleted" job "$1" 'instance-deleted.*-JOB-' 0
}

cuts_of_a_template() {
    cut "template: old one deleted" template ubuntu 'instance-deleted.*-template-' 0
    cut "template: instance created" template ubuntu 'instance-created.*-template-' 0
    cut "template: set-up, 10 s" template ubuntu 'instance-started.*-template-' 10
    cut "template: set-up, 30 s" template ubuntu 'instance-started.*-template-' 30
    cut "template: shut down" template ubuntu 'instance-(stopped|shutdown).*-template-' 0
    cut "template: ready" template ubuntu 'msg="template ready"' 0
}

cuts_of_a_standby() {
    cut "standby: created" standby warm 'instance-created.*-standby-' 0
    cut "standby: started" standby warm 'instance-started.*-standby-' 0
    cut "standby: started, 5 s later" standby warm 'instance-started.*-standby-' 5
    cut "standby: frozen" standby warm 'instance-paused.*-standby-' 0
    cut "standby: ready" standby warm 'msg="standby ready"' 0
    cut "standby: thawed for a job" job warm 'instance-resumed.*-standby-' 0
    cut "standby: job runs" job warm 'JobStarted.*JobId\(JOB\)' 1
    cut "standby: its job is over" job warm 'JobFinished.*JobId\(JOB\)' 0
}
