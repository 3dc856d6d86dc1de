#!/bin/sh
# Upload a photo many times: upload_batch.sh KEYVALUESTORE_HOST:PORT PHOTO [TIMES]
set -eu

usage="usage: upload_batch.sh KEYVALUESTORE_HOST:PORT PHOTO [TIMES]"
[ $# -eq 2 ] || [ $# -eq 3 ] || { echo "$usage" >&2; exit 2; }
store=$1
photo=$2
times=${3:-1}
case $times in
'' | *[!0-9]*)
    echo "upload_batch.sh: TIMES is a number, not '$times'" >&2
    exit 2
    ;;
esac
[ -r "$photo" ] && [ ! -d "$photo" ] || { echo "upload_batch.sh: cannot read the photo $photo" >&2; exit 2; }

# Like the other programs, take host:port or a URL, which is what a service with TLS is registered as.
url() {
    case $1 in *://*) ;; *) set -- "http://$1" ;; esac
    echo "${1%/}"
}

if ! master=$(curl -fsS --max-time 10 "$(url "$store")/masterendpoint"); then
    echo "upload_batch.sh: the key-value store at $store does not know the master; are the services running?" >&2
    exit 1
fi
echo "Uploading to $master"

# In a file's name, curl would interpret ; , and quotes, so it gets the photo on standard input and its name as a value.
name=$(basename -- "$photo" | tr -d '\\";\r\n')
uploaded=0
while [ "$uploaded" -lt "$times" ]; do
    # Without -f, the answer has a body that says what is wrong; the last line is the status.
    if ! answer=$(curl -sS -w '\n%{http_code}' -X POST -F "image=@-;filename=\"$name\"" "$(url "$master")/task" <"$photo"); then
        echo "upload_batch.sh: no answer from $master after $uploaded of $times uploads" >&2
        exit 1
    fi
    case ${answer##*
} in
    2??) ;;
    *)
        echo "upload_batch.sh: upload $((uploaded + 1)) of $times was refused: $answer" >&2
        exit 1
        ;;
    esac
    uploaded=$((uploaded + 1))
done
