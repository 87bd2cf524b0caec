#!/bin/sh
# Work queue on ipcfs: work_queue.sh produce NAME N | consume NAME. See README.md.
set -eu

mount=${IPCFS_MOUNT:-/mnt/ipc}

# A whole read or write is one operation, and > truncates nothing here: queues and semaphores have no size.
produce() {
    i=1
    while [ "$i" -le "$1" ]; do
        echo "$i" > "$jobs"
        i=$((i + 1))
    done
    echo end > "$jobs"
}

consume() {
    while job=$(cat "$jobs") && [ "$job" != end ]; do
        case $job in
        '' | *[!0-9]*) echo "not a job: $job" >&2; exit 1 ;;
        esac
        cat "$lock" > /dev/null                 # wait
        read -r total < "$counter" || total=0   # a new segment is empty
        total=$((total + job))
        printf '%11d\n' "$total" 1<> "$counter" # <> where > would truncate: it is shared memory
        echo > "$lock"                          # post
        echo "sh: job $job, counter $total"
    done
}

case $#,${1-} in
3,produce | 2,consume) ;;
*) echo "usage: $0 produce NAME N | consume NAME" >&2; exit 2 ;;
esac

jobs=$mount/mq@max_messages=10,max_message_size=64/$2
lock=$mount/sem@value=1/$2
counter=$mount/shm/$2
touch "$jobs" "$lock" "$counter"
"$1" "${3-}"
