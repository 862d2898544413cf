# Other people's SP libraries against a running node: pynng from PyPI and, when there is a Go
# compiler, mangos through the module proxy. Everything fetched stays in build/interop. Not part of
# `make test`, which needs no network.
INTEROP := build/interop
GO_ENV  := GOPATH=$(CURDIR)/$(INTEROP)/go GOCACHE=$(CURDIR)/$(INTEROP)/go-cache GOFLAGS=-modcacherw

.PHONY: interop
interop:
	$(Q)$(MAKE) --no-print-directory V=release all
	$(Q)[ -x $(INTEROP)/venv/bin/python ] || python3 -m venv $(INTEROP)/venv
	$(Q)$(INTEROP)/venv/bin/pip install --quiet --disable-pip-version-check pynng==0.9.0
	$(Q)if command -v go > /dev/null; then \
	  (cd tests/interop/mangos && $(GO_ENV) go build -o $(CURDIR)/$(INTEROP)/mangos .); \
	else echo "mangos: skipped, no Go compiler (golang-go)"; rm -f $(INTEROP)/mangos; fi
	$(Q)python3 tests/interop/run.py "$(INTEROP)/venv/bin/python tests/interop/pynng_client.py" \
	  $(if $(shell command -v go),"$(INTEROP)/mangos")
