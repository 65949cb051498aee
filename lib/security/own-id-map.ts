import type { IdMap } from '../namespace/types.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd } from '../plan/steps.js';
import { mapText } from './id-map.js';

/**
 * A process may map its own id in its new user namespace by itself, once it has given up setgroups(2): user_namespaces(7),
 * "Defining user and group ID mappings".
 */
export function writeOwnIdMap(plan: PlanBuilder, map: IdMap): void {
  const files: [name: string, text: string][] = [
    ['setgroups', 'deny'],
    ['uid_map', mapText(map.uids)],
    ['gid_map', mapText(map.gids)],
  ];
  const file = plan.slot('id map');
  for (const [name, text] of files) {
    plan.label(`write ${name}`, `/proc/self/${name}`);
    plan.add('openat', [cwd, `/proc/self/${name}`, k.O_WRONLY | k.O_CLOEXEC, 0], { out: file });
    plan.add('write', [file, Buffer.from(text)]);
    plan.release(file);
  }
}
