# shellcheck shell=sh disable=SC2154
# The environment of runner and job, read from what image, instance and class say. Sourced by start-runner.sh.

# Variables of the two scripts, which the environment of runner and job must not change.
own_names='IFS UID EUID PPID BASHOPTS SHELLOPTS address attempt base child container credentials deadline destination device
    directory document entry flags github group_id kind length line log module name newline now number own_names peer
    place proxy ready reason rebuild runner secret starting status switch timeout unit units until up user_id value
    watchdogs_off word words'

# assign LINE: exports NAME=VALUE, in the words of /etc/environment.
assign() {
    line=${1#export }
    name=${line%%=*}
    case $name in
    "$line" | '' | [0-9]* | *[!A-Za-z0-9_]*) return 0 ;;
    esac
    case " $own_names " in
    *[[:space:]]"$name"[[:space:]]*) return 0 ;;
    esac
    export "$name=${line#*=}"
}

# What an image sets for everybody; a login would read it.
read_image_environment() {
    [ -r /etc/environment ] || return 0
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        *=*) value=${line#*=} ;;
        *) continue ;;
        esac
        case $value in
        \"*\") value=${value#\"} value=${value%\"} ;;
        \'*\') value=${value#\'} value=${value%\'} ;;
        esac
        assign "${line%%=*}=$value"
    done </etc/environment
}

# environment.* of the instance and its profiles: LXD gives it to a container's init and to what it executes, but
# init does not pass it on.
read_init_environment() {
    [ -n "${BASH_VERSION:-}" ] && [ -r /proc/1/environ ] || return 0
    is_container || return 0
    # shellcheck disable=SC3045
    while IFS= read -r -d '' line; do
        assign "$line"
    done </proc/1/environ
}

# A virtual machine's init has words of the kernel's command line in its environment.
is_container() {
    # shellcheck disable=SC3045
    while IFS= read -r -d '' line; do
        case $line in container=*) return 0 ;; esac
    done </proc/1/environ
    return 1
}

# env of the class, and environment.* of its config.
read_class_environment() {
    [ -r "$base/environment" ] || return 0
    while IFS= read -r line; do
        assign "$line"
    done <"$base/environment"
}

# Where several set the same variable, the last one counts.
read_environment() {
    read_image_environment
    read_init_environment
    read_class_environment
    case :$PATH: in
    *:/usr/bin:*) ;;
    *) PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ;;
    esac
}

# is_excepted HOST: true where no_proxy has it, by name or by a domain.
is_excepted() {
    (
        IFS=', '
        set -f
        for entry in ${no_proxy:-${NO_PROXY:-}}; do
            [ "$entry" != '*' ] || exit 0
            entry=${entry#.}
            case $1 in
            "$entry" | *."$entry") exit 0 ;;
            esac
        done
        exit 1
    )
}

# What is connected to, HOST:PORT in $peer: GitHub, or the proxy on the way there.
find_peer() {
    peer=${github#*://}
    case $github in
    https:*) proxy=${https_proxy:-${HTTPS_PROXY:-${all_proxy:-${ALL_PROXY:-}}}} ;;
    *) proxy=${http_proxy:-${HTTP_PROXY:-${all_proxy:-${ALL_PROXY:-}}}} ;;
    esac
    if [ -z "$proxy" ] || is_excepted "${peer%:*}"; then return 0; fi
    proxy=${proxy#*://}
    proxy=${proxy##*@}
    peer=${proxy%%/*}
    case $peer in
    *:*) ;;
    *) peer=$peer:80 ;;
    esac
}
