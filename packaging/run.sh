#!/bin/sh
# Starts one node in the foreground: run.sh BUILD_DIR RUN_DIR. Ctrl-C stops it.
mkdir -p "$2" || exit 1
cat << END
Data in $2/data. In another terminal:

    alias troupe=$(pwd)/$1/cmd/troupe/troupe
    troupe send account/alice Open
    troupe send account/alice Deposit '{"amount": 1000000, "ref": "salary"}'
    troupe send account/alice WriteCheck '{"number": 101, "amount": 400000}'
    troupe query account/alice Balance
    troupe events account/alice
    troupe --help

Ctrl-C stops the node; "make run" starts it again with everything it has acknowledged.

END
exec "$1/cmd/trouped/trouped" --data "$2/data"
