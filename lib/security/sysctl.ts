import { optionError } from '../errors.js';
import type { NamespaceType } from '../namespace/types.js';
import type { NamespaceChoice } from '../spawn/settings.js';

/** What a namespace has of its own, so that setting it inside changes nothing outside: kernel/sysctl.c, namespaces(7). */
const namespaced: readonly { matches: RegExp; namespace: NamespaceType }[] = [
  { matches: /^net\./, namespace: 'net' },
  { matches: /^kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced|auto_msgmni)$/, namespace: 'ipc' },
  { matches: /^fs\.mqueue\.(msg_default|msg_max|msgsize_default|msgsize_max|queues_max)$/, namespace: 'ipc' },
];

/** Paths below /proc/sys and values. Only sysctls of a namespace that is new: anything else is the host's. */
export function checkSysctl(value: unknown, namespaces: Readonly<Record<NamespaceType, NamespaceChoice>>): [string, string][] {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw optionError('sysctl', 'an object of names and values', value);
  return Object.entries(value).map(([name, setting]) => {
    const rule = namespaced.find(({ matches }) => matches.test(name));
    if (!rule || !/^[a-z0-9_-]+(\.[a-z0-9_-]+)+$/i.test(name)) {
      throw optionError(
        `sysctl.${name}`,
        'the name of a sysctl that a namespace has for itself: net.*, kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*',
        setting,
      );
    }
    if (namespaces[rule.namespace] !== 'new') throw optionError(`sysctl.${name}`, `nothing when namespaces.${rule.namespace} is not 'new'`, setting);
    if (typeof setting !== 'string' || setting.includes('\0')) throw optionError(`sysctl.${name}`, 'a string', setting);
    return [name.replaceAll('.', '/'), setting];
  });
}
