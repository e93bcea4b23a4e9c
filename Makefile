# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The nodes' cluster: another name where two checkouts run side by side.
CLUSTER := deeptrain
NODES := --group ps=1 --group chief=1 --group worker=2 --group s3=1
INVENTORY := inventories/local/hosts.yml

VENV := .venv/ready
LINK := .cache/ansible_collections/deeptrain/cluster
HADOOP := .cache/hadoop-3.5.0-hdfs.tar.gz
S3_SERVER := .cache/bin/versitygw

# Ansible wants UTF-8, whatever the user's language.
export LC_ALL := C.UTF-8
export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## Show this text
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
		printf 'make %-8s %s\n' "$$target" "$$text"; done

.PHONY: demo
demo: ## Train on five nodes of this machine; the model lands in an S3 server on one of them
	@mkdir -p -m 0700 .demo && date +%s >.demo/started
	@$(MAKE) --no-print-directory --jobs=3 prepare
	@demo/run.sh ansible-playbook demo/s3.yml
	@demo/run.sh python demo/dataset.py fashion-mnist --to s3://deeptrain/fashion-mnist
	@DEEPTRAIN_STAGES_FILE=.demo/stages.json demo/run.sh ansible-playbook playbooks/site.yml
	@demo/run.sh python demo/summary.py

# Independent of each other but for the packages, and done side by side.
.PHONY: prepare
prepare: nodes $(VENV) $(LINK) $(HADOOP) $(S3_SERVER)

.PHONY: nodes
nodes: .cache/packages ## Make or start the nodes alone, and write inventories/local/hosts.yml
	@python3 demo/nodes.py up --cluster $(CLUSTER) --inventory $(INVENTORY) $(NODES)

.PHONY: clean
clean: ## Remove all that was made here: nodes, image, network, downloads, .venv (Debian packages stay)
	@if command -v python3 >/dev/null; then python3 demo/nodes.py down --everything; fi
	@find . -name __pycache__ -prune -exec rm -rf {} +
	rm -rf .venv .demo .cache $(INVENTORY)

.cache/packages:
	@mkdir -p .cache
	@command -v python3 >/dev/null || demo/install.sh python3
	@demo/install.sh dataset-fashion-mnist $$(python3 demo/nodes.py needs) \
		$$(python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv) \
		$$(command -v mvn >/dev/null || echo maven)
	@touch $@

$(VENV): requirements.txt | .cache/packages
	@echo "Installing Python tools in .venv"
	@python3 -m venv .venv
	@.venv/bin/pip install --quiet --requirement requirements.txt
	@touch $@

# Names such as deeptrain.cluster.site resolve to this checkout.
$(LINK):
	@mkdir -p $(@D) && ln -sfn ../../.. $@

$(HADOOP): $(wildcard tools/hdfs_archive/*) | .cache/packages
	@echo "Building the HDFS archive"
	@python3 tools/hdfs_archive/build.py --maven-repository .cache/maven --output $@

GO := env GOBIN="$(CURDIR)/.cache/bin" GOPATH="$(CURDIR)/.cache/go" GOCACHE="$(CURDIR)/.cache/go/build" \
	XDG_CONFIG_HOME="$(CURDIR)/.cache/go/config" CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-modcacherw .venv/bin/go
$(S3_SERVER): | $(VENV)
	@echo "Building the S3 server, about a minute"
	@$(GO) install -trimpath -ldflags='-s -w' github.com/versity/versitygw/cmd/versitygw@v1.8.0 2>.cache/go.log \
		|| { cat .cache/go.log; exit 1; }
	@rm -rf .cache/go .cache/go.log

-include tests/tests.mk
