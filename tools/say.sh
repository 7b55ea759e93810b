# shellcheck shell=bash
# How the scripts in this folder talk: one line a step, output kept in a log and shown only when the step failed.

if [ -t 1 ]; then
    bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' dim=$'\e[2m' plain=$'\e[0m'
else
    bold='' green='' red='' dim='' plain=''
fi
log_directory=build/log

section() { printf '%s%s%s\n' "$bold" "$*" "$plain"; }
fact() { printf '  %s✓%s %-18s %s%s%s\n' "$green" "$plain" "$1" "$dim" "$2" "$plain"; }

# die MESSAGE HINT: the last thing a script says.
die() {
    printf '  %s✗ %s%s\n' "$red" "$1" "$plain" >&2
    [ -z "${2:-}" ] || printf '    %s\n' "$2" >&2
    exit 1
}

# quietly NAME DOING HINT COMMAND...: run COMMAND with its output in a log, a ticking line on a terminal meanwhile; show the end of the log and
# HINT if it fails.
quietly() {
    local name=$1 doing=$2 hint=$3
    shift 3
    local log="$log_directory/${name// /-}.log" started=$SECONDS status=0
    mkdir -p "$log_directory"
    "$@" >"$log" 2>&1 </dev/null &
    local pid=$!
    # A subshell started with & ignores interrupts: hand them on.
    trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
    if [ -t 1 ]; then
        while kill -0 "$pid" 2>/dev/null; do
            printf '\r  %s… %-18s %s (%d s)%s' "$dim" "$name" "$doing" $((SECONDS - started)) "$plain"
            sleep 0.2
        done
        printf '\r\e[K'
    fi
    wait "$pid" || status=$?
    trap - INT TERM
    if [ "$status" -ne 0 ]; then
        tail -n 20 "$log" | sed 's/^/    | /' >&2
        die "$name: $doing failed (exit status $status; all of it: $log)" "$hint"
    fi
    fact "$name" "$doing: done in $((SECONDS - started)) s"
}
