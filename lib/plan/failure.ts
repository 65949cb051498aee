import type { NativeFailure } from '../../types/native.js';
import { CgroupError, errnoText, IsolationError, NetworkError } from '../errors.js';
import { execveAdvice } from '../host/exec-advice.js';
import { type Advice, adviceFor } from '../host/hints.js';
import type { PlanBuilder } from './builder.js';
import * as k from './constants.js';
import type { Step, StepKind } from './steps.js';

/** The order of `Phase` in csrc/child/plan.h. */
const phases = ['step', 'clone_joiner', 'clone_child', 'setgroups', 'uid_map', 'gid_map', 'oom_score_adj', 'newuidmap', 'newgidmap', 'setns'] as const;

const specialSyscalls: Partial<Record<StepKind, string>> = {
  await_ids: 'futex',
  drop_bounding: 'prctl',
  install_filter: 'seccomp',
  attach_device_program: 'bpf',
  landlock_add_path: 'landlock_add_rule',
  send_fd: 'sendmsg',
  netlink: 'sendto',
  overlay_lowers: 'fsconfig',
  exec: 'execve',
  fsconfig_fd: 'fsconfig',
  ioctl_number: 'ioctl',
};

export const syscallOf = (kind: StepKind): string => specialSyscalls[kind] ?? kind;

const mountCalls = new Set<StepKind>([
  'mount',
  'fsopen',
  'fsconfig',
  'fsconfig_fd',
  'fsmount',
  'fspick',
  'open_tree',
  'move_mount',
  'mount_setattr',
  'pivot_root',
  'umount2',
]);

/** lib/cgroup/make.ts */
const groupStep = /^(make a control group|set [a-z_]+\.\S+ to |limit devices|enter the control group|delegate the control group)/;

/** By what was being done: which call refused it, as whom, is a detail. */
function codeOf({ kind, label }: Step): `ERR_CLOISTER_${string}` {
  if (/^(use a layer|use the writable layer|use a directory as root|mount the (overlay|root)|overlay a)/.test(label)) return 'ERR_CLOISTER_ROOTFS';
  if (groupStep.test(label)) return 'ERR_CLOISTER_CGROUP';
  if (/^(route everything to|intercept what|open the sockets of) /.test(label)) return 'ERR_CLOISTER_NETWORK';
  if (/^write (setgroups|uid_map|gid_map)/.test(label)) return 'ERR_CLOISTER_ID_MAP';
  if (/^(join the |make a \w+ namespace)/.test(label)) return 'ERR_CLOISTER_NAMESPACE';
  if (label === 'confine by AppArmor') return 'ERR_CLOISTER_LABEL';
  if (label.includes('Landlock')) return 'ERR_CLOISTER_LANDLOCK';
  return mountCalls.has(kind) || /^(mount |bind |layer of a mount|mask|make read-only)/.test(`${label} `) ? 'ERR_CLOISTER_MOUNT' : 'ERR_CLOISTER_STEP';
}

const landlocked = (plan: PlanBuilder): boolean => plan.steps.child.some(({ kind }) => kind === 'landlock_restrict_self');

/** A failed launch, in words: what was being done, which call was refused, why on this host, what to do. */
export function explainFailure(plan: PlanBuilder, failure: NativeFailure): IsolationError {
  const phase = phases[failure.phase] ?? 'step';
  if (phase !== 'step') return explainPhase(plan, failure, phase);
  const step = plan.all[failure.step] as Step;
  if (step.kind === 'exec') {
    const paths = step.args[0] as readonly string[];
    return execveAdvice(paths, failure.candidate, failure.errno, failure.head, failure.step, landlocked(plan));
  }
  if (step.kind === 'overlay_lowers') {
    // Two for each of them: to open it, to take it for a layer.
    const name = (step.args[2] as readonly string[])[failure.candidate >> 1];
    const isOpened = (failure.candidate & 1) === 1;
    return refused('ERR_CLOISTER_ROOTFS', failure, {
      step: isOpened ? step.label : 'use a layer',
      index: failure.step,
      syscall: isOpened ? 'fsconfig' : 'openat',
      path: `${step.path}/${name}`,
    });
  }
  return refused(codeOf(step), failure, {
    step: step.label,
    index: failure.step,
    syscall: syscallOf(step.kind),
    path: step.path,
  });
}

function explainPhase(plan: PlanBuilder, failure: NativeFailure, phase: Exclude<(typeof phases)[number], 'step'>): IsolationError {
  const index = plan.steps.parent.length + plan.steps.join.length;
  if (phase === 'clone_child' || phase === 'clone_joiner') {
    const flags = phase === 'clone_child' ? plan.cloneFlags : Math.max(plan.joinFlags, 0);
    // cgroup_css_set_fork: only these are about the group; a right that is missing can be the group's or a namespace's.
    if (phase === 'clone_child' && plan.cgroupSlot && [k.EACCES, k.EBUSY, k.EOPNOTSUPP, k.ENODEV, k.EAGAIN].includes(-failure.errno)) {
      return refused('ERR_CLOISTER_CGROUP', failure, { step: 'enter the control group', index, syscall: 'clone3', path: plan.cgroupPath });
    }
    return refused('ERR_CLOISTER_NAMESPACE', failure, { step: 'make the namespaces', index, syscall: 'clone3', path: undefined }, flags);
  }
  if (phase === 'setns') return refused('ERR_CLOISTER_NAMESPACE', failure, { step: 'enter the network namespace', index, syscall: 'setns', path: undefined });
  if (phase === 'newuidmap' || phase === 'newgidmap') {
    return refused('ERR_CLOISTER_ID_MAP', failure, {
      step: `map ids with ${phase}`,
      index,
      syscall: phase,
      path: `/etc/sub${phase === 'newuidmap' ? 'uid' : 'gid'}`,
    });
  }
  const code = phase === 'oom_score_adj' ? 'ERR_CLOISTER_STEP' : 'ERR_CLOISTER_ID_MAP';
  return refused(code, failure, { step: `write ${phase}`, index, syscall: 'write', path: `/proc/PID/${phase}` });
}

export interface Where {
  readonly step: string;
  readonly index: number;
  readonly syscall: string;
  readonly path: string | undefined;
}

function refused(code: `ERR_CLOISTER_${string}`, failure: NativeFailure, where: Where, cloneFlags = 0): IsolationError {
  const advice: Advice | undefined = adviceFor({ ...where, errno: -failure.errno, cloneFlags });
  const kind = code === 'ERR_CLOISTER_CGROUP' ? CgroupError : code === 'ERR_CLOISTER_NETWORK' ? NetworkError : IsolationError;
  return kind.ofErrno(code, failure.errno, {
    ...where,
    what: advice?.what ?? errnoText(failure.errno),
    hint: advice?.hint,
    evidence: advice?.evidence,
  });
}
