# Two commands do all the set-up on a fresh machine with Python 3.11+ and the network: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
BROWSER := $(VENV)/browser
DEMO := zero-offload-10b-v100
FOUR_WAYS := lecture-64-dp lecture-64-mp lecture-64-pp lecture-64-zero3

.PHONY: demo test test-browser lint bench compiled pure plots docs docs-numbers accuracy clean

demo: $(STAMP)
	$(BIN)/stepline run $(DEMO) --out out/demo

test: $(STAMP) pure lint
	$(BIN)/python -m pytest -n 2

test-browser: $(BROWSER)
	sh tests/browser/chromium.sh $(BIN)/python
	$(BIN)/python -m pytest -m browser -rs tests/browser

lint: $(STAMP)
	$(BIN)/ruff check sim tests benchmarks plots docs
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/engine_speed.py
	$(BIN)/python benchmarks/scale.py

# The engine as C, in place: most large steps take two thirds of the time. Needs a C compiler.
compiled: $(STAMP)
	$(BIN)/python benchmarks/compile_engine.py

pure:
	rm -f sim/engine/*.so *__mypyc.*.so

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m compileall -q sim
	touch $@

$(BROWSER): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[dev,browser]'
	touch $@

plots: $(BROWSER)
	$(BIN)/python plots/step.py zero-offload-10b-v100
	$(BIN)/python plots/step.py llama3-8b-8xh100-zero3
	$(BIN)/stepline plot timeline mixtral-8x7b-64xh100 --out plots
	$(BIN)/stepline plot pipeline lecture-4096 --out plots
	$(BIN)/stepline plot pipeline own-order --out plots
	$(BIN)/stepline plot breakdown $(FOUR_WAYS) --out plots
	$(BIN)/stepline plot volume $(FOUR_WAYS) --out plots
	$(BIN)/stepline plot memory zero-offload-10b-v100 --out plots
	$(BIN)/stepline plot peak lecture-64-dp --vary layout.zero=0,1,2,3 --out plots
	$(BIN)/stepline plot peak lecture-1t-one-gpu --out plots
	$(BIN)/stepline plot roofline llama3-8b-8xh100-zero3 --out plots
	$(BIN)/stepline plot scaling lecture-64-dp lecture-64-zero3 --vary layout.dp=8,16,32,64 --out plots
	$(BIN)/stepline topology show dgx-2 --out plots
	$(BIN)/stepline topology show gh200 --out plots
	$(BIN)/python plots/ring_steps.py
	$(BIN)/python plots/measured_collectives.py
	$(BIN)/python plots/tornado.py zero-offload-10b-v100
	$(BIN)/python plots/offload_crossing.py
	$(BIN)/python plots/infinity_efficiency.py
	$(BIN)/python plots/before_after.py
	$(BIN)/python plots/sweep_offload.py
	$(BIN)/python plots/largest_model.py
	sh tests/browser/chromium.sh $(BIN)/python
	$(BIN)/python plots/report_page.py

# Pages of docs/ as HTML in out/docs; builds without the network, every warning is an error.
docs: $(VENV)/docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -j auto -d out/doctrees docs out/docs

# Simulates every published step and writes what was found into docs/accuracy.md: ten minutes; a killed run goes on.
accuracy: $(STAMP)
	$(BIN)/stepline validate benchmarks/measured/*.csv --page docs/accuracy.md --out out/validate
	cp out/validate/errors.png plots/accuracy.png

# Writes every simulated number of README.md and docs/ anew, and the tables of docs/formats.md.
docs-numbers: $(STAMP)
	$(BIN)/python docs/quoted.py
	$(BIN)/python docs/tables.py

$(VENV)/docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) out dist build .pytest_cache .mypy_cache .ruff_cache
