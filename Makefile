# Troupe: a clustered, event-sourced actor runtime.
#
#   make run       install what is missing, build a release, start one node with the examples
#   make test      install what is missing, build everything, run every test that CI runs
#   make           trouped and troupe, release build      make V=debug   the same for debugging
#   make check     unit tests (V=debug asan tsan ubsan)   make lint      format, layers, purity, tidy
#   make bench     the tables of bench/                   make fuzz      libFuzzer, FUZZ_SECONDS=n
#   make chaos     kill -9, partitions, power cuts, damaged disks: the long form of what test does
#   make spin      models of members and hand-off, every state; every planted fault is found
#   make sim       groups and whole clusters in one thread, from seeds: SEEDS=n SEED=s JOBS=n
#   make explore   every order of events in small groups of the real core, DEPTH=n
#   make mutants   rules of consensus broken one by one, and the tests that notice
#   make install   PREFIX=/usr/local, DESTDIR=            make fmt       rewrite in the house format
#   make deps      install the Debian packages            make clean     remove build/
#
# V = debug release asan tsan ubsan cov fuzz. Each keeps its own build/$(V). VERBOSE=1 shows all.

V ?= release
B := build/$(V)
.DEFAULT_GOAL := all
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:

VERSION := 0.1.0
PREFIX ?= /usr/local
DESTDIR ?=

# Bottom to top. A module may include headers of the modules to its left, never to its right.
MODULES := runtime proto persistence actors sharding

PROGRAMS :=
UNIT_TESTS :=
STRESS_TESTS :=
FUZZERS :=
BENCHES :=
PROTOS :=
include $(MODULES:%=%/module.mk) cmd/module.mk tests/module.mk bench/module.mk
-include local.mk

# ---- flags ----------------------------------------------------------------------------------
GEN      := $(B)/gen
STD      := -std=c11 -D_GNU_SOURCE -I. -I$(GEN) -DTROUPE_VERSION='"$(VERSION)"'
WARN     := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes \
            -Wmissing-prototypes -Wold-style-definition -Wvla -Wundef -Wcast-align \
            -Wwrite-strings -Wformat=2 -Wimplicit-fallthrough -fno-common
DEBUGGER := -g3 -fno-omit-frame-pointer
LIBS     := -lprotobuf-c -lrocksdb -luv -lnng -ljansson -ldl -lpthread -lm

CC_debug      := gcc
CC_release    := gcc
CC_asan       := gcc
CC_tsan       := clang
CC_ubsan      := clang
CC_cov        := clang
CC_fuzz       := clang
CFLAGS_debug   := -O0 -DRT_DEBUG
CFLAGS_release := -O2 -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fstack-clash-protection \
                  -fcf-protection -fPIE
LDFLAGS_release := -pie -Wl,-z,relro,-z,now
CFLAGS_asan    := -O1 -DRT_DEBUG -fsanitize=address,undefined -fno-sanitize-recover=all
CFLAGS_tsan    := -O1 -DRT_DEBUG -fsanitize=thread
CFLAGS_ubsan   := -O1 -DRT_DEBUG -fsanitize=undefined -fno-sanitize-recover=undefined
CFLAGS_cov     := -O0 -DRT_DEBUG -fprofile-instr-generate -fcoverage-mapping
CFLAGS_fuzz    := -O1 -DRT_DEBUG -fsanitize=fuzzer-no-link,address,undefined
ifeq ($(filter $(V),debug release asan tsan ubsan cov fuzz),)
$(error unknown V=$(V))
endif
ifeq ($(origin CC),default)
CC := $(CC_$(V))
endif
ifneq ($(findstring clang,$(CC)),)
WARN += -Wthread-safety -Wno-gnu-zero-variadic-macro-arguments
else
WARN += -Wlogical-op -Wduplicated-cond
endif
WERROR ?= -Werror
ALL_CFLAGS  = $(STD) $(WARN) $(WERROR) $(DEBUGGER) $(CFLAGS_$(V)) $(CFLAGS)
ALL_LDFLAGS = $(CFLAGS_$(V)) $(LDFLAGS_$(V)) $(LDFLAGS)
# Generated code is not ours to warn about.
GEN_CFLAGS  = $(STD) -w $(DEBUGGER) $(CFLAGS_$(V)) $(CFLAGS)

# A changed compiler or flag rebuilds; an unchanged one does not touch the stamp.
$(B)/.flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(subst ','\'',$(ALL_CFLAGS) $(ALL_LDFLAGS))' | cmp -s - $@ || \
	 echo '$(CC) $(subst ','\'',$(ALL_CFLAGS) $(ALL_LDFLAGS))' > $@
FORCE:

Q := $(if $(VERBOSE),,@)
say = $(if $(VERBOSE),,@printf '  %-6s %s\n' '$(1)' '$(patsubst $(B)/%,%,$@)')

# ---- rules ----------------------------------------------------------------------------------
PB_HEADERS := $(PROTOS:%.proto=$(GEN)/%.pb-c.h)

$(GEN)/%.pb-c.c $(GEN)/%.pb-c.h &: %.proto
	$(call say,PROTO)
	@mkdir -p $(@D)
	$(Q)protoc-c --c_out=$(GEN) $<

$(GEN)/%.pb-c.o: $(GEN)/%.pb-c.c $(B)/.flags
	$(call say,CC)
	$(Q)$(CC) $(GEN_CFLAGS) -MMD -MP -c $< -o $@

$(B)/%.o: %.c $(B)/.flags | $(PB_HEADERS)
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $($*_CFLAGS) -MMD -MP -c $< -o $@

# A module's protobuf files belong to it: $(module)_PROTOS.
define module_rule
$(B)/lib$(1).a: $($(1)_SRCS:%.c=$(B)/%.o) $($(1)_PROTOS:%.proto=$(GEN)/%.pb-c.o)
	$$(call say,AR)
	$$(Q)rm -f $$@ && ar rcs $$@ $$^
endef
$(foreach m,$(MODULES),$(eval $(call module_rule,$(m))))

# One pass of the linker needs users before what they use: top module first.
reverse = $(if $(1),$(call reverse,$(wordlist 2,$(words $(1)),$(1))) $(firstword $(1)))
ARCHIVES := $(foreach m,$(call reverse,$(MODULES)),$(B)/lib$(m).a)

# A program is a name and $(name)_SRCS; $(name)_PROTOS are its own messages, $(name)_LIBS adds to
# LIBS, $(name)_LDFLAGS to the linker's flags.
define program_rule
$(B)/$(1): $($(1)_SRCS:%.c=$(B)/%.o) $($(1)_PROTOS:%.proto=$(GEN)/%.pb-c.o) $(ARCHIVES)
	$$(call say,LD)
	@mkdir -p $$(@D)
	$$(Q)$(CC) $$(ALL_LDFLAGS) $($(1)_LDFLAGS) -o $$@ $$^ $($(1)_LIBS) $(LIBS)
endef
ALL_PROGRAMS := $(PROGRAMS) $(UNIT_TESTS) $(TEST_TOOLS) $(STRESS_TESTS) $(BENCHES) $(if $(filter fuzz,$(V)),$(FUZZERS))
$(foreach p,$(ALL_PROGRAMS),$(eval $(call program_rule,$(p))))

ALL_SRCS := $(sort $(foreach x,$(MODULES) $(ALL_PROGRAMS),$($(x)_SRCS)))
-include $(ALL_SRCS:%.c=$(B)/%.d)

# ---- what people type -----------------------------------------------------------------------
.PHONY: all check-build check stress fuzz sim bench coverage lint fmt-check fmt headers layers prefixes \
	purity tidy cppcheck clean help FORCE
all: $(notdir $(PROGRAMS))
define short_name
$(notdir $(1)): $(B)/$(1)
.PHONY: $(notdir $(1))
endef
$(foreach p,$(PROGRAMS),$(eval $(call short_name,$(p))))

check-build: all $(UNIT_TESTS:%=$(B)/%) $(TEST_TOOLS:%=$(B)/%) $(STRESS_TESTS:%=$(B)/%)

TEST_SECONDS ?= 300
$(B)/%.passed: $(B)/%
	$(call say,TEST)
	@LLVM_PROFILE_FILE=$(B)/$(notdir $*).profraw TSAN_OPTIONS=suppressions=tests/tsan.supp \
	  LSAN_OPTIONS=suppressions=tests/lsan.supp:print_suppressions=0 \
	  timeout $(TEST_SECONDS) $< > $<.log 2>&1 || { cat $<.log; echo "FAILED: $<"; exit 1; }
	@touch $@
check: $(UNIT_TESTS:%=$(B)/%.passed)
stress: $(STRESS_TESTS:%=$(B)/%.passed)

FUZZ_SECONDS ?= 60
fuzz:
	$(Q)$(MAKE) --no-print-directory V=fuzz $(FUZZERS:%=build/fuzz/%)
	$(Q)for f in $(FUZZERS); do mkdir -p build/corpus/$$f && \
	  build/fuzz/$$f -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 build/corpus/$$f || exit 1; done

# SIM_FLAGS: -v, -k, ... as in tests/sim/main.c. Of clusters (tests/clustersim/) CLUSTER_SEEDS.
SEED  ?= 1
SEEDS ?= 1000
CLUSTER_SEEDS ?= $(SEEDS)
JOBS  ?= 2
sim: $(B)/tests/sim/sim $(B)/tests/clustersim/clustersim
	$(Q)$(B)/tests/sim/sim -s $(SEED) -n $(SEEDS) -j $(JOBS) $(SIM_FLAGS)
	$(Q)$(B)/tests/clustersim/clustersim -s $(SEED) -n $(CLUSTER_SEEDS) -j $(JOBS) $(SIM_FLAGS)

coverage:
	$(Q)$(MAKE) --no-print-directory V=cov check
	$(Q)llvm-profdata-14 merge -sparse -o build/cov/all.profdata build/cov/*.profraw
	$(Q)llvm-cov-14 report build/cov/$(firstword $(UNIT_TESTS)) \
	  $(patsubst %,--object build/cov/%,$(wordlist 2,99,$(UNIT_TESTS))) \
	  --instr-profile=build/cov/all.profdata $(filter-out tests/% bench/% cmd/%,$(ALL_SRCS))

C_FILES := $(shell git ls-files -co --exclude-standard '*.c' '*.h' ':!docs' 2>/dev/null)
H_FILES := $(filter %.h,$(C_FILES))
fmt:
	clang-format -i $(C_FILES)
fmt-check:
	$(Q)clang-format --dry-run -Werror $(C_FILES)
layers:
	$(Q)awk -v order="$(MODULES)" -f tests/lint/layers.awk $(C_FILES)
$(B)/%.h.ok: %.h $(B)/.flags | $(PB_HEADERS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -fsyntax-only -x c $< && touch $@
headers: $(H_FILES:%=$(B)/%.ok)
DOMAIN_OBJS := $(patsubst %.c,$(B)/%.o,$(actors_DOMAIN_SRCS))
purity: $(DOMAIN_OBJS)
	$(Q)sh tests/lint/purity.sh $^
prefixes: $(ARCHIVES)
	$(Q)$(foreach m,$(MODULES),nm -g --defined-only $(B)/lib$(m).a 2>/dev/null | awk -v p='^($($(m)_PREFIX))_' \
	  'NF == 3 && $$3 !~ p && $$3 !~ /^__/ { print "$(m)/: symbol without its prefix: " $$3; bad = 1 } END { exit bad }' || exit 1;)
# What was found clean stays so until its object is rebuilt.
$(B)/%.tidy: $(B)/%.o .clang-tidy
	$(call say,TIDY)
	$(Q)clang-tidy --quiet -p . $*.c 2>$@.log >&2 || { grep -v 'warnings generated' $@.log; exit 1; }
	@touch $@
tidy: compile_commands.json
	$(Q)$(MAKE) --no-print-directory -k -j2 \
	  $(patsubst %.c,$(B)/%.tidy,$(filter-out tests/% bench/%,$(ALL_SRCS)))
cppcheck: | $(PB_HEADERS)
	$(Q)cppcheck -j2 --std=c11 --enable=warning,portability,performance --inline-suppr --quiet \
	  --error-exitcode=1 -I. $(filter-out tests/% bench/%,$(ALL_SRCS))
lint: fmt-check layers headers prefixes purity tidy cppcheck

comma := ,
compile_commands.json: Makefile $(MODULES:%=%/module.mk) tests/module.mk cmd/module.mk bench/module.mk | $(PB_HEADERS)
	$(file >$@,[)
	$(foreach s,$(ALL_SRCS),$(file >>$@,{"directory":"$(CURDIR)"$(comma)"file":"$(s)"$(comma)"command":"clang -std=c11 -D_GNU_SOURCE -I. -I$(GEN) -DTROUPE_VERSION=0 -Wall -Wextra -Wthread-safety -DRT_DEBUG -c $(s)"}$(if $(filter $(s),$(lastword $(ALL_SRCS))),,$(comma))))
	$(file >>$@,])

include packaging/module.mk

clean:
	rm -rf build compile_commands.json
help:
	@sed -n 's/^# \{0,1\}//; 1,16p' Makefile
