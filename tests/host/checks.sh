# What tests/host.sh asks and waits for: GitHub's side, the host's side, and README's lines.
# shellcheck shell=bash

: "${top:?}" "${state:?}" "${events:?}"
github_port=0
orders_port=0
github_pid=

# ---- GitHub ----

start_github() {
    mkdir -p "$state/offered"
    "$github" "$github_port" "$orders_port" http://10.0.2.2 "$state/offered" >>"$events" 9>&- &
    github_pid=$!
    within 30 "the GitHub stand-in answers" order /jobs 2>/dev/null
}

# order PATH [QUERY]: tells the stand-in, prints what it says.
order() {
    curl -fsS -X POST "http://127.0.0.1:$orders_port$1"
}

# queue SECONDS LABEL: prints the job's id.
queue() {
    order "/queue?seconds=$1&label=$2"
}

# job_is JOB STATUS…: its status or conclusion is one of these.
job_is() {
    local status conclusion wanted=" ${*:2} "
    read -r _ status conclusion _ < <(order /jobs | grep "^$1 ") || return 1
    [[ $wanted = *" $status "* || $wanted = *" $conclusion "* ]]
}

# jobs_that_ran_twice: each line is one.
jobs_that_ran_twice() {
    order /jobs | awk '$4 > 1 || $5 > 1'
}

# ---- waiting ----

# within SECONDS WHAT COMMAND…: until it succeeds.
within() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what: not so in time ($*)"
        sleep 1
    done
}

mark() {
    marked=$(wc -l <"$events")
}

# seen REGEX: since the mark, in what the host and GitHub tell.
seen() {
    tail -n "+$((marked + 1))" "$events" | grep -qE -- "$1"
}

# await SECONDS REGEX
await() {
    local deadline=$((SECONDS + $1))
    until seen "$2"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "within $1 s nothing tells '$2'"
        sleep 0.05
    done
}

# ---- the host ----

# instances [FILTER [FIELD]]: the names (or that field) of lxdrunner's instances that fit jq's FILTER. (lxc itself would
# take seconds each time.)
instances() {
    in_guest "sudo curl -fsS --unix-socket /var/lib/lxd/unix.socket 'http://lxd/1.0/instances?recursion=1'" </dev/null |
        jq -r ".metadata[] | select(.name | startswith(\"lxdrunner-\")) | select(${1:-true}) | ${2:-.name}"
}

phase_is() {
    echo ".config[\"user.lxdrunner.phase\"] == \"$1\""
}

has_template() {
    [ -n "$(instances "$(phase_is template) and .config[\"user.lxdrunner.class\"] == \"$1\"")" ]
}

has_standby() {
    [ -n "$(instances "$(phase_is standby)")" ]
}

# Nothing runs for a job and nothing is registered.
is_quiet() {
    [ -z "$(instances "$(phase_is provisioning) or $(phase_is started)")" ] && [ -z "$(order /runners)" ]
}

# ---- README ----

# readme_block TEXT: the first block of shell or YAML behind the line that has this text.
readme_block() {
    awk -v text="$1" '
        index($0, text) { found = 1 }
        found && /^```(sh|yaml)$/ { inside = 1; next }
        inside && /^```$/ { exit }
        inside' "$top/README.md" | grep . || die "README.md has no block behind '$1'"
}

# as_readme_says TEXT SED: runs the block, but for what SED takes out, in the host as a user in the source tree would; standard
# input goes to its first command.
as_readme_says() {
    readme_block "$1" | sed "$2" >"$state/block.sh"
    in_guest 'cat >block.sh' <"$state/block.sh"
    in_guest 'cd lxdrunner && bash -euo pipefail ../block.sh' || fail "README's lines behind '$1' failed (see above)"
}

# readme_inline TEXT: the first command in README's running text that has this text.
readme_inline() {
    # shellcheck disable=SC2016
    grep -o '`[^`]*`' "$top/README.md" | tr -d '`' | grep -m1 -F -- "$1"
}
