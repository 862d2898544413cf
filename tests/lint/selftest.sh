#!/bin/sh
# A guard that never failed proves nothing: plants one fault at a time in a copy of the tree and
# expects layers.awk and purity.sh to go red, and green without it. Prints one line per case and
# "N passed, N failed".
root=$(cd "$(dirname "$0")/../.." && pwd)
copy=$(mktemp -d) || exit 2
trap 'rm -rf "$copy"' EXIT
passed=0
failed=0
modules='runtime proto persistence actors sharding'

result() { # name, wanted status, found status
	if [ "$2" = "$3" ]; then
		passed=$((passed + 1))
		echo "ok     $1"
	else
		failed=$((failed + 1))
		echo "FAILED $1: status $3, expected $2"
	fi
}

layers() { # name, wanted status, file, line to plant
	mkdir -p "$copy/$(dirname "$3")"
	printf '%s\n' "$4" > "$copy/$3"
	(cd "$copy" && awk -v order="$modules" -f "$root/tests/lint/layers.awk" "$3") > "$copy/out" 2>&1
	status=$?
	result "layers: $1" "$2" "$status"
	if [ "$status" = 1 ] && ! grep -q "$3:1: layering:" "$copy/out"; then
		result "layers: $1 names the line" 0 1
	fi
}

purity() { # name, wanted status, C text
	mkdir -p "$copy/actors/account"
	printf '%s\n' "$3" > "$copy/actors/account/planted.c"
	(cd "$copy" && ${CC:-cc} -c -o actors/account/planted.o actors/account/planted.c) || exit 2
	sh "$root/tests/lint/purity.sh" "$copy/actors/account/planted.o" > "$copy/out" 2>&1
	result "purity: $1" "$2" $?
}

layers 'downwards is fine' 0 sharding/a.c '#include "actors/call.h"'
layers 'upwards is not' 1 persistence/a.c '#include "actors/call.h"'
layers 'upwards with blanks is not' 1 persistence/a.c ' # include "actors/call.h"'
layers 'relative path' 1 runtime/sched/a.c '#include "lane.h"'
layers 'domain reads the contract' 0 actors/account/a.c '#include "actors/aggregate.h"'
layers 'domain reads runtime/base' 0 actors/account/a.c '#include "runtime/base/bytes.h"'
layers 'domain reads the registry' 1 actors/account/a.c '#include "actors/registry.h"'
layers 'domain reads another domain' 1 actors/account/a.c '#include "actors/calculator/calculator.h"'
layers 'domain reads the clock' 1 actors/account/a.c '#include <time.h>'
layers 'domain prints' 1 actors/account/a.c '#include <stdio.h>'
layers 'runtime knows a domain' 1 actors/entity.c '#include "actors/account/account.h"'
layers 'rocksdb outside persistence' 1 sharding/a.c '#include <rocksdb/c.h>'
layers 'nng below the client' 1 runtime/sched/a.c '#include <nng/nng.h>'
layers 'product reads tests' 1 cmd/troupe/a.c '#include "tests/support/test.h"'
layers 'tests read everything' 0 tests/unit/cmd/a.c '#include "cmd/trouped/listener.h"'
layers 'stand-alone fence' 1 runtime/sched/a.c 'atomic_thread_fence(memory_order_acquire);'

purity 'arithmetic is fine' 0 'int account_f(int x); int account_f(int x) { return x + 1; }'
purity 'constants are fine' 0 'extern int account_x; int *const account_p = &account_x;'
purity 'the clock is not' 1 'long time(long *); long account_f(void); long account_f(void) { return time(0); }'
purity 'malloc is not' 1 'void *malloc(unsigned long); void *account_f(void); void *account_f(void) { return malloc(1); }'
purity 'printing is not' 1 'int puts(const char *); int account_f(void); int account_f(void) { return puts("x"); }'
purity 'another domain is not' 1 'int calculator_g(void); int account_f(void); int account_f(void) { return calculator_g(); }'
purity 'a static counter is not' 1 'int account_f(void); int account_f(void) { static int n; return ++n; }'
sh "$root/tests/lint/purity.sh" "$copy/missing.o" > /dev/null 2>&1
result 'purity: a missing object' 1 $?
sh "$root/tests/lint/purity.sh" > /dev/null 2>&1
result 'purity: no object' 2 $?

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
