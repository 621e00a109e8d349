# shellcheck shell=sh
# HTTP for the runner stand-in, by curl or else by wget. Sourced by the other scripts.

# talk METHOD URL TOKEN ANSWER-FILE [BODY-FILE]: prints the status, 000 where there was no answer.
talk() {
    if command -v curl >/dev/null 2>&1; then
        set -- "$1" "$2" "$3" "$4" "${5:-}"
        if [ "$1" = POST ]; then
            curl -s -m 40 -o "$4" -w '%{http_code}' -H "Authorization: Bearer $3" -H 'Expect:' \
                --data-binary "@${5:-/dev/null}" "$2"
        else
            curl -s -m 40 -o "$4" -w '%{http_code}' -H "Authorization: Bearer $3" "$2"
        fi
        return 0
    fi
    # Neither wget tells the status of a success; with nothing to read it was 204, which is 200 to those who ask.
    talk_errors=$4.errors
    if [ "$1" = POST ]; then
        wget -q -S -t 1 -T 40 -O "$4" --header "Authorization: Bearer $3" --post-file "${5:-/dev/null}" "$2" 2>"$talk_errors"
    else
        wget -q -S -t 1 -T 40 -O "$4" --header "Authorization: Bearer $3" "$2" 2>"$talk_errors"
    fi
    talk_code=$?
    # Of both wgets' words, the last line with "HTTP/1.1 NNN" has the status.
    talk_status=$(sed -n 's|.*HTTP/1\.[01] \([0-9][0-9][0-9]\).*|\1|p' "$talk_errors" | tail -n 1)
    rm -f "$talk_errors"
    if [ -n "$talk_status" ]; then
        printf '%s' "$talk_status"
    elif [ "$talk_code" -eq 0 ] && [ -s "$4" ]; then
        printf 200
    elif [ "$talk_code" -eq 0 ]; then
        printf 204
    else
        printf 000
    fi
}
