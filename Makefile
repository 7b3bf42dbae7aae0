# Two commands do everything: `make book` and `make test`.
PYTHON ?= python3
RUN = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} .venv/bin/
MANIFEST = .venv/bin/python tools/make_data.py manifest

# With OFFLINE=1 the site makes no request to any other.
export OFFLINE

book: .venv/installed $(if $(OFFLINE),web/node_modules/installed)
	$(RUN)python tools/run_chapters.py
	$(RUN)jupyter-book build book --config _config.yml --toc $(CURDIR)/_toc.yml --path-output . -W
	@echo "Open file://$(CURDIR)/_build/html/index.html"

# The package's own tests, for those who change its code: a few minutes.
UNIT = ablate augment baselines checkpoint damm finetune fluorescence gates house inference losses metrics mri \
    nifti predict properties reference_network samplers schedules simulate train volumes whole_slide

unit: .venv/installed
	$(RUN)pytest $(UNIT:%=tests/test_%.py) -n 2 --dist worksteal

test: lint book web/node_modules/installed
	$(RUN)pytest tests book/*.ipynb --nbval-lax -n 2 --dist loadfile

lint: .venv/installed
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
	.venv/bin/nbstripout --verify --keep-id --keep-count book/*.ipynb $(wildcard book/assignments/*.ipynb)

serve: book
	.venv/bin/python -m http.server --directory _build/html 8000

# Each chapter as on Colab: nothing but its notebook, the package that its first cell installs, and the versions that
# Colab has, on Python 3.13; 5 GB; table on the status page.
colab: .venv/installed
	PYENV_VERSION=$$(pyenv versions --bare 2> /dev/null | paste -sd: -) $(RUN)nox -f tools/noxfile.py -s colab \
	    --error-on-missing-interpreters; failed=$$?; $(MANIFEST) && exit $$failed

# The way out of jupyter-book 1.x: the same site by Sphinx 9, MyST-NB and the theme alone, in _build/sphinx/html.
sphinx: book
	$(RUN)nox -f tools/noxfile.py -s sphinx

# Run the chapters and store anew the outputs that nbval compares.
outputs: .venv/installed
	$(RUN)jupyter-execute --inplace book/*.ipynb && .venv/bin/nbstripout --keep-id --keep-count book/*.ipynb

# Speed beside what it could be compared with: the tables of the status page.
bench: .venv/installed
	.venv/bin/python tools/bench.py && $(MANIFEST)

# Do networks sample? Beside exact draws: the table of chapter 04; five hours on two cores.
SAMPLING = $(RUN)python -m damm_lite.experiments.sampling --out _build/sampling
FEW = --fields 24 --draws 40 --samples 40
LARGE = $(SAMPLING) --batch 8 --field-seed 6000011
SMALL = $(SAMPLING) $(FEW) --size 32 --steps 1600 --field-seed 6000013

sampling: .venv/installed
	$(LARGE) --steps 8000 --prediction exact
	$(LARGE) --steps 8000 --prediction regression --sampler ddim:1 --samples 2
	for output in image preconditioned; do \
	    $(LARGE) --steps 8000 --prediction $$output || exit 1; \
	    for steps in 500 2000 8000; do $(LARGE) $(FEW) --steps $$steps --prediction $$output || exit 1; done; \
	    for levels in scaled-linear shifted; do \
	        $(SMALL) --prediction $$output --schedule $$levels --sampler sde:20 ddim:20 || exit 1; done; done
	$(SMALL) --sampler sde:5 sde:10 sde:50 sde:100 sde:200
	cp _build/sampling/summary.csv data/results/sampling.csv
	cp _build/sampling/fields.csv data/results/sampling_fields.csv
	$(MANIFEST)

# The long versions of the tests of survival, and their table on the status page.
torture: .venv/installed
	$(RUN)python tools/torture.py && $(MANIFEST)

# The tests once more, with the newest packages that the ranges allow; table on the status page.
newest: .venv/installed
	$(RUN)nox -f tools/noxfile.py -s newest && $(MANIFEST)

# The lock and the package's own tests with every Python, 3.11 to 3.14, that PATH or pyenv has, in an environment of
# 2 to 7 GB for each; table on the status page. What was installed stays for the next call.
versions: .venv/installed
	PYENV_VERSION=$$(pyenv versions --bare 2> /dev/null | paste -sd: -) $(RUN)nox -f tools/noxfile.py -s versions -- \
	    -q $(UNIT:%=tests/test_%.py) -n 2 --dist worksteal; failed=$$?; \
	    $(MANIFEST) && exit $$failed

# Small faults put into the method's files, to see whether a test notices; ten minutes.
mutants: .venv/installed
	.venv/bin/pip install -q -c constraints.txt mutmut
	$(RUN)python tools/mutants.py && $(MANIFEST)

# Known faults of the locked packages, and the licence of each; needs the network.
audit: .venv/installed
	.venv/bin/pip install -q pip-audit && .venv/bin/pip-audit -r constraints.txt --no-deps --disable-pip
	.venv/bin/pip-licenses --with-system --packages $$(sed -n 's/==.*//p' constraints.txt)

# Restamp badges and setup cells for a copy of the book at another address.
fork: .venv/installed
	.venv/bin/python tools/fork.py $(URL)

# Student notebooks, autograders and the instructor's folder, from the masters; then grade a folder of submissions.
assignments: .venv/installed
	$(RUN)python tools/make_assignments.py $(MASTERS) $(if $(STUDENTS),--students $(STUDENTS))

grade: .venv/installed
	$(RUN)python tools/grade.py $(SUBMISSIONS) $(if $(RULES),--rules $(RULES)) $(if $(STUDENTS),--students $(STUDENTS))

# Which submissions resemble each other, beside what was handed out to all.
similarity: .venv/installed
	$(RUN)python tools/similarity.py $(SUBMISSIONS) $(if $(RULES),--rules $(RULES)) $(if $(STUDENTS),--students $(STUDENTS))

# Marks for Canvas, Moodle and Gradescope from the tables of `make grade`, written points and the course's rules.
gradebook: .venv/installed
	$(RUN)python tools/gradebook.py $(GRADES) --rules $(RULES) --students $(STUDENTS) \
	    $(if $(WRITTEN),--written $(WRITTEN)) $(if $(LATE),--late $(LATE))

# A deck for each chapter, with the outputs of the last `make book`.
slides: book
	$(RUN)python tools/make_slides.py

# The whole book as _build/damm-diffusion.pdf, printed by Chromium.
pdf: book web/node_modules/installed
	$(RUN)python tools/make_pdf.py

# The full lock, from the ranges of the requirements files.
lock:
	$(PYTHON) -m venv --clear _build/lock && _build/lock/bin/pip install -q torch==2.13.0 -r requirements-dev.txt
	_build/lock/bin/pip freeze --exclude-editable | sed 's/+cpu//' > constraints.txt

clean:
	rm -rf .venv _build web/node_modules *.egg-info .pytest_cache .ruff_cache

# TORCH_INDEX is an index of PyTorch's own, such as https://download.pytorch.org/whl/cpu, whose wheels are smaller.
.venv/installed: constraints.txt requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11, 5) <= sys.version_info < (3, 14))' || \
	    { echo "Python 3.11, 3.12 or 3.13 is needed, 3.11.5 at least, and $(PYTHON) is $$($(PYTHON) -V 2>&1)."; \
	      echo "Install one, and name it: make book PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv && .venv/bin/pip install -q --disable-pip-version-check -c constraints.txt \
	    $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements-dev.txt
	touch $@

web/node_modules/installed: web/packages.json tools/fetch_scripts.py
	$(PYTHON) tools/fetch_scripts.py && touch $@

.PHONY: book test unit lint serve colab sphinx outputs bench torture newest versions mutants fork assignments grade similarity gradebook sampling slides pdf lock audit clean
