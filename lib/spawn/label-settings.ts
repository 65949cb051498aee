import { optionError } from '../errors.js';
import type { SelinuxLabels } from '../security/types.js';
import type { Settings } from './settings.js';
import type { SpawnOptions } from './types.js';
import * as check from './validate.js';

// Labels of Linux Security Modules: process.apparmorProfile, process.selinuxLabel and linux.mountLabel of the OCI runtime specification.

export function apparmorOf(value: unknown): Settings['apparmor'] {
  if (value === undefined || value === false) return value;
  // The kernel's word for it is one line of at most a page, without space at its ends (proc_pid_attr_write, strim).
  const isName = typeof value === 'string' && /^[^\s\p{Cc}](?:[^\p{Cc}]*[^\s\p{Cc}])?$/u.test(value) && value.length < 4000;
  if (!isName) throw optionError('apparmor', 'the name of a profile, or false', value);
  return value;
}

export function selinuxOf(options: SpawnOptions, namespaces: Settings['namespaces']): SelinuxLabels | undefined {
  const { selinux } = options;
  if (selinux === undefined) return undefined;
  const labels = check.record(selinux, 'selinux');
  check.onlyKeys(labels, 'selinux', ['process', 'mount']);
  const context = (kind: 'process' | 'mount'): string | undefined => {
    const label = labels[kind];
    if (label === undefined) return undefined;
    if (typeof label !== 'string' || !/^[\w.-]+(:[\w.-]+){2}(:[\w.,:-]+)?$/.test(label))
      throw optionError(`selinux.${kind}`, "a context, 'user:role:type' or 'user:role:type:level'", label);
    return label;
  };
  const [process, mount] = [context('process'), context('mount')];
  // A change of labels at exec takes the death signal away (selinux_bprm_committing_creds): an init that keeps its own is what ends with us.
  if (process !== undefined && namespaces.pid !== 'new')
    throw optionError('selinux.process', "nothing when namespaces.pid is not 'new': it is the init that gives the program its label", process);
  // Init's child opens the file that takes the label, in /proc, under all rules.
  if (process !== undefined && options.landlock !== undefined)
    throw optionError('selinux.process', 'nothing with landlock, whose rules would be in force before the label is taken', process);
  if (mount !== undefined && namespaces.mount !== 'new') throw optionError('selinux.mount', "nothing when namespaces.mount is not 'new'", mount);
  if (mount !== undefined && options.rootfs !== undefined)
    throw optionError('selinux.mount', 'nothing with rootfs: files of a root that is made before, or a directory of, have their labels already', mount);
  return process === undefined && mount === undefined ? undefined : { process, mount };
}
