# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

TEST_VENV := .venv/ready-test
TRAINING_VENV := .cache/venv-training/ready
OLDEST_VENV := .cache/venv-2.16/ready
NEWEST_VENV := .cache/venv-newest/ready
IM_VENV := .cache/venv-im/ready
MOTO_VENV := .cache/venv-moto/ready
# The longest ones first.
TEST_PARTS := molecule im-run im training sanity units tools lint docs argspecs

.PHONY: test $(TEST_PARTS)
test: prepare-tests ## Run all tests, on real nodes too
	@tests/parts.sh $(TEST_PARTS)

# Where words are checked. To add: roles plugins playbooks training demo tools extensions.
WORDS := README.md docs examples inventories changelogs/fragments roles plugins playbooks
lint: $(TEST_VENV) $(LINK)
	@demo/run.sh ruff check
	@demo/run.sh yamllint --strict .
	@ANSIBLE_INVENTORY=inventories/static/hosts.yml demo/run.sh ansible-lint
	@demo/run.sh antsibull-changelog lint
	@demo/run.sh codespell
	@demo/run.sh python tests/check_words.py $(WORDS)

argspecs: $(TEST_VENV)
	@demo/run.sh python tests/check_argument_specs.py

docs: $(VENV) $(LINK)
	@demo/run.sh tests/docs.sh

.PHONY: picture
picture: $(VENV) ## Draw docs/pipeline.svg from docs/pipeline.yml
	@.venv/bin/python tools/draw.py

sanity: $(TEST_VENV)
	@demo/run.sh tests/ansible_test.sh sanity

units: $(TEST_VENV)
	@demo/run.sh tests/ansible_test.sh units

tools: $(TRAINING_VENV) $(LINK) $(HADOOP) $(S3_SERVER)
	@$(TRAINING_TESTS) tests/unit_tools tests/demo

TRAINING_TESTS = DEEPTRAIN_TEST_HDFS_ARCHIVE=$(CURDIR)/$(HADOOP) DEEPTRAIN_TEST_VERSITYGW=$(CURDIR)/$(S3_SERVER) \
	PATH="$(CURDIR)/.cache/venv-training/bin:$$PATH" python -m pytest -q -p no:cacheprovider
training: $(TRAINING_VENV) $(HADOOP) $(S3_SERVER)
	@$(TRAINING_TESTS) training/tests

im: $(TEST_VENV) $(OLDEST_VENV) $(NEWEST_VENV) $(LINK) $(IM_VENV) $(MOTO_VENV)
	@PYTHONPATH=.cache demo/run.sh python -m pytest -q -rs -p no:cacheprovider tests/im

im-run: prepare-tests
	@DEEPTRAIN_TEST_HDFS_ARCHIVE=$(CURDIR)/$(HADOOP) demo/run.sh python -m pytest -q -s -p no:cacheprovider --durations=3 tests/im_run

molecule: prepare-tests
	@demo/run.sh tests/molecule.sh

.PHONY: prepare-tests
prepare-tests: .cache/packages $(TEST_VENV) $(OLDEST_VENV) $(NEWEST_VENV) $(IM_VENV) $(MOTO_VENV) $(TRAINING_VENV) $(HADOOP) $(S3_SERVER)

$(TEST_VENV): requirements-test.txt $(VENV)
	@.venv/bin/pip install --quiet --requirement requirements-test.txt
	@touch $@

$(OLDEST_VENV): requirements-oldest.txt | .cache/packages
	@python3 -m venv .cache/venv-2.16
	@.cache/venv-2.16/bin/pip install --quiet --requirement requirements-oldest.txt
	@touch $@

# The newest ansible-core, which may need a later Python than .venv has.
$(NEWEST_VENV): requirements.txt tests/newest_python.sh | .cache/packages
	@rm -rf $(@D) && mkdir -p $(@D)
	@python=$$(tests/newest_python.sh); if [ -n "$$python" ]; then \
		"$$python" -m venv $(@D) && grep '^ansible-core.*>=' requirements.txt \
			| $(@D)/bin/pip install --quiet --requirement /dev/stdin; \
		else echo "No Python 3.12 or later: tests on the newest ansible-core are skipped"; fi
	@touch $@

$(IM_VENV): tools/im_server/requirements.txt | .cache/packages
	@python3 -m venv .cache/venv-im
	@.cache/venv-im/bin/pip install --quiet --requirement tools/im_server/requirements.txt
	@touch $@

$(MOTO_VENV): tests/im/requirements.txt | .cache/packages
	@python3 -m venv .cache/venv-moto
	@.cache/venv-moto/bin/pip install --quiet --requirement tests/im/requirements.txt
	@touch $@

$(TRAINING_VENV): requirements.txt requirements-training.txt training/pyproject.toml | .cache/packages
	@python3 -m venv .cache/venv-training
	@.cache/venv-training/bin/pip install --quiet --requirement requirements.txt --requirement requirements-training.txt --editable training
	@touch $@
