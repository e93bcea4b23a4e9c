#!/usr/bin/python
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: job_info
short_description: Returns the state, the progress and the result of a job on a node
version_added: 0.1.0
description:
  - Reads a job of module M(deeptrain.cluster.job). It starts nothing, does not wait, and unless O(renew_lease) is set renews no lease, so a
    status check does not keep a cluster alive.
  - With O(config) it also returns whether M(deeptrain.cluster.job) would start the job, attach to it or refuse it, with the same O(config),
    O(overwrite), O(recheck) and O(exclusive).
author: The deeptrain.cluster authors (@deeptrain)
extends_documentation_fragment:
  - deeptrain.cluster._attributes.read_only
  - deeptrain.cluster._job
attributes:
  check_mode:
    details: O(renew_lease) has no effect in check mode.
options:
  progress_offset:
    description: Byte of the progress file at which to begin to read, RV(progress_offset) of an earlier call.
    type: int
    default: 0
  renew_lease:
    description:
      - Whether to renew the lease of a node on which role P(deeptrain.cluster.autostop#role) has created one, for a task that waits for the job
        in a loop.
      - M(deeptrain.cluster.job) sets it with each poll, so that a controller that waits for a job keeps the lease.
    type: bool
    default: false
seealso:
  - module: deeptrain.cluster.job
"""

EXAMPLES = r"""
- name: Read the state of the training
  deeptrain.cluster.job_info:
    kind: train
    run: default
  register: training

- name: Read whether the training could be started with this configuration
  deeptrain.cluster.job_info:
    kind: train
    run: default
    config: "{{ training_config }}"
  register: training
  failed_when: training.action == 'refuse'

- name: Wait for an export that another unit starts
  deeptrain.cluster.job_info:
    kind: export
    run: default
    renew_lease: true
  register: export
  until: export.job_state == 'done'
  retries: 60
  delay: 60
"""

RETURN = r"""
job_state:
  description: State of the job, one of V(none), V(running), V(done) and V(failed).
  type: str
  returned: always
  sample: done
result:
  description: The job's result document, or nothing as long as it has none.
  type: dict
  returned: always
progress:
  description: Records of progress since O(progress_offset), only the newest where there are many.
  type: list
  elements: dict
  returned: always
progress_offset:
  description: Byte at which the next call begins to read the progress.
  type: int
  returned: always
reason:
  description: Why the job failed.
  type: str
  returned: when the job failed
log:
  description: End of the journal of a failed job.
  type: list
  elements: str
  returned: when the job failed
action:
  description: What M(deeptrain.cluster.job) with C(state=started) would do, V(start), V(attach), V(nothing) or V(refuse).
  type: str
  returned: when O(config) was given
  sample: attach
difference:
  description: Difference from the configuration of the existing job, C(was) and C(is) by its dotted name.
  type: dict
  returned: when O(config) was given
  sample: {"source": {"was": "s3://bucket/a", "is": "s3://bucket/b"}}
refusal:
  description: Why M(deeptrain.cluster.job) would refuse, and what to do about it.
  type: str
  returned: when RV(action) is V(refuse)
unit:
  description: Name of the unit.
  type: str
  returned: always
  sample: deeptrain-train@default.service
unit_state:
  description: The unit's C(ActiveState).
  type: str
  returned: always
  sample: inactive
restarts:
  description: Number of times systemd has restarted the running job.
  type: int
  returned: always
boot:
  description: Identifies the boot of the node.
  type: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deeptrain.cluster.plugins.module_utils._job import INFO_ARGUMENT_SPEC, REFUSE, name_errors
from ansible_collections.deeptrain.cluster.plugins.module_utils._job_reader import JobReader, renew_lease


def read(job):
    """Return the module's result."""
    params = job.params
    result = job.snapshot()
    result["progress"], result["progress_offset"] = job.progress(params["progress_offset"])
    if params["config"] is not None:
        result["action"], result["difference"], refusal = job.compare(result["job_state"])
        if result["action"] == REFUSE:
            result["refusal"] = refusal
    return result


def main():
    """Run the module."""
    module = AnsibleModule(argument_spec=INFO_ARGUMENT_SPEC, supports_check_mode=True)
    for message in name_errors(module.params):
        module.fail_json(msg=message)
    job = JobReader(module)
    if module.params["renew_lease"]:
        renew_lease(module)
    try:
        result = read(job)
    except OSError as error:
        module.fail_json(msg=f"{job.unit}: {error}", unit=job.unit)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
