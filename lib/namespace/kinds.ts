import { readFileSync, statSync } from 'node:fs';
import { optionError } from '../errors.js';
import { parseIdMap } from '../host/caller.js';
import { native } from '../native.js';
import { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { runPlan } from '../plan/run.js';
import { cwd } from '../plan/steps.js';
import { enter } from './enter.js';
import { Namespace } from './namespace.js';
import type { IdMap } from './types.js';

/** cgroup_namespaces(7) */
export class CgroupNamespace extends Namespace<'cgroup'> {
  static {
    Namespace.register('cgroup', CgroupNamespace);
  }
}

/** ipc_namespaces(7) */
export class IpcNamespace extends Namespace<'ipc'> {
  static {
    Namespace.register('ipc', IpcNamespace);
  }
}

/** mount_namespaces(7) */
export class MountNamespace extends Namespace<'mount'> {
  static {
    Namespace.register('mount', MountNamespace);
  }
}

/** time_namespaces(7) */
export class TimeNamespace extends Namespace<'time'> {
  static {
    Namespace.register('time', TimeNamespace);
  }
}

/** pid_namespaces(7) */
export class PidNamespace extends Namespace<'pid'> {
  static {
    Namespace.register('pid', PidNamespace);
  }
  /** undefined at the top of what we may see. */
  async parent(): Promise<PidNamespace | undefined> {
    const fd = native().namespaceParent(this.fd);
    return fd < 0 ? undefined : Namespace.hold('pid', fd);
  }
}

/** uts_namespaces(7) */
export class UtsNamespace extends Namespace<'uts'> {
  static {
    Namespace.register('uts', UtsNamespace);
  }

  async hostname(): Promise<string> {
    // To enter one's own takes CAP_SYS_ADMIN too: setns(2).
    if (statSync('/proc/self/ns/uts', { bigint: true }).ino === this.id) return readFileSync('/proc/sys/kernel/hostname', 'utf8').trimEnd();
    const plan = new PlanBuilder();
    enter(plan, this);
    plan.label('read the host name', '/proc/sys/kernel/hostname');
    // The kernel answers for the namespace of whoever reads, not of whoever opened (proc_do_uts_string).
    const file = plan.open('hostname', 'openat', [cwd, '/proc/sys/kernel/hostname', k.O_RDONLY | k.O_CLOEXEC, 0]);
    plan.add('read_head', [file]);
    const fdOf = await runPlan(plan);
    return fdOf.head.toString('utf8').trimEnd();
  }

  async setHostname(name: string): Promise<void> {
    if (typeof name !== 'string' || Buffer.byteLength(name) > 64 || name.includes('\0')) throw optionError('name', 'at most 64 bytes', name);
    const plan = new PlanBuilder();
    enter(plan, this);
    plan.label('set the host name').add('sethostname', [Buffer.from(name)]);
    await runPlan(plan);
  }
}

/** user_namespaces(7) */
export class UserNamespace extends Namespace<'user'> {
  static {
    Namespace.register('user', UserNamespace);
  }
  /** undefined at the top of what we may see. */
  async parent(): Promise<UserNamespace | undefined> {
    const fd = native().namespaceParent(this.fd);
    return fd < 0 ? undefined : Namespace.hold('user', fd);
  }

  /** `outside` are ids of its parent. */
  async idMap(): Promise<IdMap> {
    const map = async (kind: 'uid' | 'gid'): Promise<IdMap['uids']> => parseIdMap(await this.#read(`/proc/self/${kind}_map`));
    return { uids: await map('uid'), gids: await map('gid') };
  }

  async #read(path: string): Promise<string> {
    using own = await Namespace.of('self', 'user');
    // One's own user namespace cannot be entered again: setns(2).
    if (this.equals(own)) return readFileSync(path, 'utf8');
    const plan = new PlanBuilder();
    enter(plan, this);
    plan.label('read the id map', path);
    const file = plan.open('id map', 'openat', [cwd, path, k.O_RDONLY | k.O_CLOEXEC, 0]);
    plan.add('read_head', [file]);
    return (await runPlan(plan)).head.toString('latin1');
  }
}
