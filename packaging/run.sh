#!/bin/sh
# Starts one node in the foreground: run.sh BUILD_DIR RUN_DIR. Ctrl-C stops it.
mkdir -p "$2" || exit 1
cat << END
For other terminals:

    alias troupe=$(pwd)/$1/cmd/troupe/troupe

The node keeps its data in $2/data; "make run" starts it again with all it has acknowledged.

END
exec "$1/cmd/trouped/trouped" --data "$2/data"
