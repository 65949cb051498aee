import { join } from 'node:path';
import { CgroupError, optionError } from '../errors.js';
import { native } from '../native.js';
import * as check from '../spawn/validate.js';
import { type Place, v2Of } from './places.js';

// Pressure stall information: Documentation/accounting/psi.rst, "Cgroup2 interface" and "Monitoring for pressure thresholds".

const resources = ['cpu', 'memory', 'io'] as const;
export type Resource = (typeof resources)[number];

export interface PressureTrigger {
  readonly resource: Resource;
  readonly kind: 'some' | 'full';
  readonly stallUs: number;
  readonly windowUs: number;
}

export function triggerOf(resource: unknown, options: unknown): PressureTrigger {
  const given = check.record(options, 'options');
  check.onlyKeys(given, '', ['kind', 'stallMs', 'windowMs']);
  const kind = given['kind'] === undefined ? 'some' : check.oneOf(given['kind'], 'kind', ['some', 'full']);
  // WINDOW_MIN_US and WINDOW_MAX_US in kernel/sched/psi.c.
  const window = given['windowMs'];
  if (typeof window !== 'number' || !(window >= 500 && window <= 10_000)) throw optionError('windowMs', 'milliseconds from 500 to 10000', window);
  const stall = given['stallMs'];
  if (typeof stall !== 'number' || !(stall > 0 && stall <= window))
    throw optionError('stallMs', 'milliseconds: more than 0, and not more than windowMs', stall);
  return { resource: check.oneOf(resource, 'resource', resources), kind, stallUs: Math.round(stall * 1000), windowUs: Math.round(window * 1000) };
}

/** Calls back each time that tasks of the group were stalled for as long, within the window; at most once a window. */
export function watchPressure(places: readonly Place[], trigger: PressureTrigger, stalled: () => void): () => void {
  const step = 'watch for pressure';
  const v2 = v2Of(places);
  if (!v2) {
    throw new CgroupError('ERR_CLOISTER_CGROUP_UNSUPPORTED', 'cgroup v1 has no pressure stall information', {
      step,
      hint: 'mount -t cgroup2 none DIRECTORY (as root), also beside v1.',
    });
  }
  const path = join(v2.directory, `${trigger.resource}.pressure`);
  const failed = (errno: number, syscall: string): CgroupError =>
    CgroupError.ofErrno('ERR_CLOISTER_CGROUP', errno, { syscall, path, step, ...adviceFor(errno, syscall, trigger) });
  const fd = native().openFile(path, 2);
  if (fd < 0) throw failed(fd, 'open');
  const { kind, stallUs, windowUs } = trigger;
  const written = native().writeText(fd, `${kind} ${stallUs} ${windowUs}`);
  if (written < 0) {
    native().close(fd);
    throw failed(written, 'write');
  }
  const watcher = new (native().Watcher)(fd, true, (text) => {
    if (text !== undefined) stalled();
  });
  return () => watcher.close();
}

function adviceFor(errno: number, syscall: string, { windowUs }: PressureTrigger): { what?: string; hint?: string } {
  if (errno === -2 || errno === -95) {
    return {
      what: 'this kernel does not account pressure',
      hint: 'It may be switched off (psi=1 on the kernel command line switches it on), or in this group (cgroup.pressure).',
    };
  }
  if (errno === -22 && windowUs % 2_000_000 !== 0) {
    return {
      what: 'without CAP_SYS_RESOURCE a window is 2, 4, 6, 8 or 10 seconds',
      hint: 'psi_trigger_create: an unprivileged trigger is looked after by the averages, which are renewed every 2 seconds. Choose windowMs: 2000.',
    };
  }
  if (errno === -13 || errno === -1) {
    return {
      what: syscall === 'open' ? 'this user may not write to it' : 'triggers of ordinary users came with Linux 6.4',
      hint: 'Run as root, or in a delegated group.',
    };
  }
  return {};
}
