# make install, make uninstall: programs, the client library for C, headers for aggregates, pages.
#
# The library holds the client alone, without the runtime, and shows troupe_* only.
LIB_VERSION := 0
LIB_SRCS    := proto/client/blocking.c proto/client/client.c proto/client/nodes.c \
	proto/client/pending.c proto/utf8.c proto/wire.c
LIB_PROTOS  := proto/troupe.proto
LIB_OBJS    := $(LIB_SRCS:%.c=$(B)/lib/%.o) $(LIB_PROTOS:%.proto=$(B)/lib/%.pb-c.o)
LIB_LIBS    := -lnng -lprotobuf-c -lpthread
LIB_SO      := libtroupe.so.$(LIB_VERSION)
LIBRARIES   := $(B)/lib/libtroupe.a $(B)/lib/$(LIB_SO)

# Their own objects: shared code cannot be position-independent for executables only.
LIB_CFLAGS = $(filter-out -fPIE,$(ALL_CFLAGS)) -fPIC
$(B)/lib/%.o: %.c $(B)/.flags | $(PB_HEADERS)
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LIB_CFLAGS) -MMD -MP -c $< -o $@
$(B)/lib/%.pb-c.o: $(GEN)/%.pb-c.c $(B)/.flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(filter-out -fPIE,$(GEN_CFLAGS)) -fPIC -MMD -MP -c $< -o $@
-include $(LIB_OBJS:.o=.d)

$(B)/lib/libtroupe.a: $(LIB_OBJS)
	$(call say,AR)
	$(Q)ld -r -o $(@:.a=.o) $^
	$(Q)objcopy --wildcard --keep-global-symbol='troupe_*' $(@:.a=.o)
	$(Q)rm -f $@ && ar rcs $@ $(@:.a=.o)
$(B)/lib/$(LIB_SO): $(LIB_OBJS) packaging/libtroupe.map
	$(call say,LD)
	$(Q)$(CC) $(filter-out -pie,$(ALL_LDFLAGS)) -shared -Wl,-soname,$(LIB_SO) \
	  -Wl,--version-script=packaging/libtroupe.map -Wl,-z,defs -o $@ $(LIB_OBJS) $(LIB_LIBS)

.PHONY: libraries install uninstall
libraries: $(LIBRARIES)

BIN_DIR     := $(PREFIX)/bin
LIB_DIR     := $(PREFIX)/lib
INCLUDE_DIR := $(PREFIX)/include/troupe
MAN_DIR     := $(PREFIX)/share/man/man1
DOC_DIR     := $(PREFIX)/share/doc/troupe
DATA_DIR    := $(PREFIX)/share/troupe
UNIT_DIR    := $(PREFIX)/lib/systemd/system
MAN_PAGES   := $(wildcard docs/man/*.1)
DOC_PAGES   := $(wildcard README.md LICENSE docs/protocol.md docs/tutorial.md)
INSTALL     := install
FILLED      := sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@VERSION@|$(VERSION)|g'

# A build of its own first, so that it is whole before the first file is copied.
install: deps-build
	$(Q)$(MAKE) --no-print-directory all libraries
	$(Q)$(INSTALL) -d $(addprefix "$(DESTDIR)",$(BIN_DIR) $(LIB_DIR)/pkgconfig $(INCLUDE_DIR) \
	  $(MAN_DIR) $(DOC_DIR) $(DATA_DIR) $(UNIT_DIR))
	$(Q)$(INSTALL) $(B)/cmd/trouped/trouped $(B)/cmd/troupe/troupe "$(DESTDIR)$(BIN_DIR)"
	$(Q)$(INSTALL) -m 644 $(LIBRARIES) "$(DESTDIR)$(LIB_DIR)"
	$(Q)ln -sf $(LIB_SO) "$(DESTDIR)$(LIB_DIR)/libtroupe.so"
	$(Q)$(INSTALL) -m 644 proto/client/client.h actors/aggregate.h $(GEN)/proto/troupe.pb-c.h \
	  "$(DESTDIR)$(INCLUDE_DIR)"
	$(Q)$(INSTALL) -m 644 proto/troupe.proto "$(DESTDIR)$(DATA_DIR)"
	$(Q)$(if $(MAN_PAGES),$(INSTALL) -m 644 $(MAN_PAGES) "$(DESTDIR)$(MAN_DIR)")
	$(Q)$(if $(DOC_PAGES),$(INSTALL) -m 644 $(DOC_PAGES) "$(DESTDIR)$(DOC_DIR)")
	$(Q)$(FILLED) packaging/troupe.pc.in > "$(DESTDIR)$(LIB_DIR)/pkgconfig/troupe.pc"
	$(Q)$(FILLED) packaging/trouped.service.in > "$(DESTDIR)$(UNIT_DIR)/trouped.service"
	$(Q)[ -n "$(DESTDIR)" ] || [ "$$(id -u)" != 0 ] || ldconfig || true
	@echo "installed to $(DESTDIR)$(PREFIX)"

# What install wrote, and the directories that are Troupe's alone. Data is never touched.
uninstall:
	$(Q)rm -f $(addprefix "$(DESTDIR)",$(BIN_DIR)/trouped $(BIN_DIR)/troupe \
	  $(LIB_DIR)/libtroupe.a $(LIB_DIR)/libtroupe.so $(LIB_DIR)/$(LIB_SO) \
	  $(LIB_DIR)/pkgconfig/troupe.pc $(UNIT_DIR)/trouped.service \
	  $(addprefix $(MAN_DIR)/,$(notdir $(MAN_PAGES))))
	$(Q)rm -rf $(addprefix "$(DESTDIR)",$(INCLUDE_DIR) $(DOC_DIR) $(DATA_DIR))
	@echo "removed from $(DESTDIR)$(PREFIX)"
