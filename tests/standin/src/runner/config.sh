#!/bin/sh
# Registers the runner stand-in with a token, with the real config.sh's arguments.
root=$(cd "$(dirname "$0")" && pwd) || exit 1
# shellcheck source-path=SCRIPTDIR source=bin/talk.sh disable=SC1091
. "$root/bin/talk.sh"

if [ "$(id -u)" -eq 0 ] && [ -z "${RUNNER_ALLOW_RUNASROOT:-}" ]; then
    echo "Must not run with sudo"
    exit 1
fi

url=${ACTIONS_RUNNER_INPUT_URL:-}
token=${ACTIONS_RUNNER_INPUT_TOKEN:-}
name=${ACTIONS_RUNNER_INPUT_NAME:-$(hostname)}
labels=${ACTIONS_RUNNER_INPUT_LABELS:-}
work=${ACTIONS_RUNNER_INPUT_WORK:-_work}
ephemeral=false
implied=true
unattended=false
while [ $# -gt 0 ]; do
    case $1 in
        --url) url=$2 ; shift ;;
        --token) token=$2 ; shift ;;
        --name) name=$2 ; shift ;;
        --labels) labels=$2 ; shift ;;
        --work) work=$2 ; shift ;;
        --runnergroup) shift ;;
        --ephemeral) ephemeral=true ;;
        --unattended) unattended=true ;;
        --no-default-labels) implied=false ;;
        --replace | --disableupdate) ;;
        *) echo "Unrecognized command-line input arguments: '$1'." ; exit 1 ;;
    esac
    shift
done

if [ -f "$root/.runner" ]; then
    echo "Cannot configure the runner because it is already configured."
    exit 1
fi
if [ -z "$url" ] || [ -z "$token" ] || [ "$unattended" = false ]; then
    echo "Invalid configuration provided. --url, --token and --unattended are needed."
    exit 1
fi
if [ "$implied" = true ]; then
    case $(uname -m) in
        aarch64) arch=ARM64 ;;
        arm*) arch=ARM ;;
        *) arch=X64 ;;
    esac
    labels="self-hosted,Linux,$arch${labels:+,$labels}"
fi

server=$(printf '%s\n' "$url" | sed -n 's|^\(https\{0,1\}://[^/]*\).*|\1|p')
answer=$(mktemp) && request=$(mktemp) || exit 1
trap 'rm -f "$answer" "$request"' EXIT
printf 'url=%s\ntoken=%s\nname=%s\nlabels=%s\nephemeral=%s\n' \
    "$url" "$token" "$name" "$labels" "$ephemeral" >"$request"
status=$(talk POST "$server/_runner/register" "" "$answer" "$request")
case $status in
    200) ;;
    401) echo "Http response code: Unauthorized from 'POST $server'" ; exit 1 ;;
    404) echo "Http response code: NotFound from 'POST $server'" ; exit 1 ;;
    409) echo "A runner exists with the same name $name." ; exit 1 ;;
    *) echo "An error occurred: no answer from $server" ; exit 1 ;;
esac

umask 077
own=$(sed -n 1p "$answer")
id=$(sed -n 2p "$answer")
printf '{"AgentId":"%s","AgentName":"%s","ServerUrl":"%s/","GitHubUrl":"%s","WorkFolder":"%s"}\n' \
    "$id" "$name" "$server" "$url" "$work" >"$root/.runner"
printf '{"Scheme":"OAuth","Data":{"Token":"%s"}}\n' "$own" >"$root/.credentials"
echo "√ Runner successfully added"
echo "√ Settings Saved."
