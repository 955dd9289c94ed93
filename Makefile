# The commands of a developer. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help up test bench check fmt proto docs docs-serve reference

CARGO ?= cargo
TOOLS := target/tools
CODEGEN := $(CARGO) run --quiet --locked --manifest-path proto/codegen/Cargo.toml --target-dir target/codegen --

# $(call need,command:package ...) installs the packages of missing commands with apt-get if it runs as root, and otherwise
# names them and fails. NAME.pc in place of a command is a library, which pkg-config looks up.
define need
@PATH="$$PATH:/usr/sbin"; missing=""; for pair in $(1); do \
  name="$${pair%%:*}"; \
  case "$$name" in \
    *.pc) pkg-config --exists "$${name%.pc}" 2>/dev/null;; \
    *) command -v "$$name" >/dev/null 2>&1;; \
  esac || missing="$$missing $${pair##*:}"; \
done; \
if [ -n "$$missing" ]; then \
  if command -v apt-get >/dev/null 2>&1 && [ "$$(id -u)" = 0 ]; then \
    echo "installing$$missing"; \
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
  else \
    echo "missing:$$missing. Install them, on Debian or Ubuntu: sudo apt-get install$$missing" >&2; exit 1; \
  fi; \
fi
endef

# cc and make compile librdkafka and zstd. OpenSSL is the system's, found by pkg-config, because compiling it would take half
# as long as everything else together.
BUILD_NEEDS := cc:build-essential make:build-essential pkg-config:pkg-config openssl.pc:libssl-dev
# On Debian python3 comes without ensurepip, which venv needs.
TEST_NEEDS = redis-server:redis-server openssl:openssl curl:curl kcat:kcat jq:jq java:default-jre-headless mvn:maven \
  chromium:chromium chromedriver:chromium-driver node:nodejs npm:npm nginx:nginx-light go:golang-go python3:python3-venv \
  $(if $(shell python3 -c 'import ensurepip' 2>&1),ensurepip:python3-venv)

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/' | expand -t 20
	@echo; echo "  make up ARGS='--port-base 20000' passes arguments on; KAFKA=host:port REDIS=url use what runs already"

up: ## run everything: with docker compose where an engine runs, else in one process
	@if [ -z "$(KAFKA)$(REDIS)$(ARGS)" ] && command -v docker >/dev/null 2>&1 && docker info >/dev/null 2>&1; then \
	  docker compose up --build; \
	else \
	  $(MAKE) --no-print-directory up-here; \
	fi

.PHONY: up-here
up-here:
	$(call need,$(BUILD_NEEDS) $(if $(REDIS),,redis-server:redis-server))
	@$(CARGO) build --locked -p tutti && exec target/debug/tutti up $(ARGS)

test: ## all tests: unit, property, and end to end on real Kafka and Redis
	$(call need,$(BUILD_NEEDS) $(TEST_NEEDS))
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$(( $$(nproc) + 1 ))} $(CARGO) test --locked --workspace

bench: ## what the live map, waiting rooms and notifications cost, in a release build; takes some half an hour
	$(call need,$(BUILD_NEEDS) redis-server:redis-server redis-benchmark:redis-tools)
	$(CARGO) build --locked --release --features jemalloc -p tutti -p tutti-edge -p tutti-ingest -p tutti-queue
	target/release/tutti bench $(ARGS)

check: ## formatting, lints, unused dependencies, generated code, imports, and what the documents link to and name
	$(call need,$(BUILD_NEEDS))
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path proto/codegen/Cargo.toml --check
	$(CODEGEN) --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@[ -x $(TOOLS)/bin/cargo-machete ] || $(CARGO) install --quiet --locked --root $(TOOLS) cargo-machete@0.9.2
	$(TOOLS)/bin/cargo-machete
	$(CARGO) test --quiet --locked --workspace --test documents --test workspace

fmt: ## format the code
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path proto/codegen/Cargo.toml

proto: ## generate the Rust code of proto/ again, after a change there
	$(CODEGEN)

docs: $(TOOLS)/bin/mdbook ## the documents as a website with search, in target/book
	$(TOOLS)/bin/mdbook build docs

docs-serve: $(TOOLS)/bin/mdbook ## show that website at http://127.0.0.1:3000/, and again after each change
	$(TOOLS)/bin/mdbook serve docs --hostname 127.0.0.1 --port 3000

$(TOOLS)/bin/mdbook:
	$(call need,$(BUILD_NEEDS))
	$(CARGO) install --quiet --locked --root $(TOOLS) mdbook@0.5.4

reference: ## write docs/reference/config.md and metrics.md as the code is
	$(call need,$(BUILD_NEEDS))
	UPDATE_REFERENCE=1 $(CARGO) test --quiet --locked --workspace --test documents reference
